//! Watching figures: a line each time one of them changes.
//!
//! One thread for all of them, beside readers and writer. Whatever happens between two looks at a figure is one change, so a slow
//! terminal delays nobody and nothing piles up; the last change is always told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::error::ShopError;
use crate::figure::Figure;
use crate::shop::Shop;

/// Tells what the figures are, and each change of one of them, until `written` (the writer is through: whoever sets it unparks this
/// thread) and the last change is told.
pub(crate) fn watch(
    shop: &Shop,
    figures: &[Figure],
    started: Instant,
    written: &AtomicBool,
    mut tell: impl FnMut(&str) -> Result<(), ShopError>,
) -> Result<(), ShopError> {
    let mut tell = |figure: &Figure, what: &str| tell(&format!("{:9.4} s  {figure} {what}", started.elapsed().as_secs_f64()));
    let mut watched = Vec::new();
    for figure in figures {
        let reading = figure.read(shop)?;
        tell(figure, &format!("is {}", reading.value))?;
        watched.push((figure, reading));
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        // Before the round: what is read in it is not older than the last write then.
        let written = written.load(Ordering::Acquire);
        let mut quiet = true;
        for (figure, reading) in &mut watched {
            // The look subscribes first and checks then, so that no change falls in between.
            if Pin::new(&mut reading.ended).poll(&mut cx) == Poll::Pending {
                continue;
            }
            quiet = false;
            let old = std::mem::replace(reading, figure.read(shop)?);
            if old.value != reading.value {
                tell(figure, &format!("{} -> {}", old.value, reading.value))?;
            }
        }
        if written {
            return Ok(());
        }
        // Else another round for what was just read. One read a round, so that no figure waits for one that never stands still.
        if quiet {
            thread::park();
        }
    }
}

/// Wakes the thread that watches.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
