//! Watching: generations that end, streams of changes, callbacks. What a watcher is owed, and what it is spared.
#![forbid(unsafe_code)]

mod callbacks;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use wellspring::{Cx, Engine, Fault, Function, Source, Watch};
use wellspring_tests::waking::block_on;

/// How long a test waits for what must come: only a test that fails waits that long.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn next<T>(inbox: &Receiver<T>) -> T {
    inbox.recv_timeout(LONG).expect("I34: told")
}

/// Whether nothing comes any more and the callback that held the other end is gone.
pub(crate) fn is_closed<T>(inbox: &Receiver<T>) -> bool {
    matches!(inbox.recv_timeout(LONG), Err(std::sync::mpsc::RecvTimeoutError::Disconnected))
}

/// Runs a future on a thread of its own, so that one that is never woken fails the test.
pub(crate) fn within<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = channel();
    thread::spawn(move || {
        let _ = tell.send(block_on(future));
    });
    next(&told)
}

/// A source and its half, rounded down and cut off: every second change of the source is none of the half.
pub(crate) fn halved(engine: &Engine) -> (Source<u8, u64>, Function<u8, u64>, Arc<AtomicU64>) {
    let source = engine.source("source", |_: &u8| 0_u64).expect("a free name");
    let runs = Arc::new(AtomicU64::new(0));
    let (read, counter) = (source.clone(), runs.clone());
    let body = move |cx: &Cx, key: &u8| {
        counter.fetch_add(1, SeqCst);
        read.get(cx, key).expect("a value") / 2
    };
    let half = engine.define("half").cut_off_eq().function(body).expect("a free name");
    (source, half, runs)
}

/// Watches with a channel as the callback.
pub(crate) fn watch<V: wellspring::Value>(engine: &Engine, function: &Function<u8, V>, key: u8) -> (Watch, Receiver<Result<V, Fault>>) {
    let (tell, told) = channel();
    let call = move |news: Result<&V, &Fault>| {
        let _ = tell.send(news.cloned().map_err(Clone::clone));
    };
    (function.watch(engine, &key, call).expect("this engine's"), told)
}

/// xorshift: the same rounds each time.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
