//! With a spawner, flights are driven by the executor; who waits decides only whether they go on.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use wellspring::{Cx, Engine, GetFuture, Spawner};
use wellspring_tests::waking::{Breath, Counting, block_on, poll_once};

use crate::gate::{Gate, until};
use crate::runtime::{HANGS, Runtime};

struct CountingSpawner(Runtime, AtomicUsize);

impl Spawner for CountingSpawner {
    fn spawn(&self, future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.1.fetch_add(1, SeqCst);
        Spawner::spawn(&self.0, future);
    }
}

#[test]
fn a_spawned_flight_ends_without_being_polled_by_who_waits() {
    for runtime in Runtime::all() {
        let gate = Gate::new();
        let spawner = Arc::new(CountingSpawner(runtime, AtomicUsize::new(0)));
        let engine = Engine::builder().spawner(spawner.clone()).build();
        let f = {
            let gate = gate.clone();
            engine
                .async_function("f", move |_: Cx, n: u32| {
                    let gate = gate.clone();
                    async move {
                        let _passing = gate.pass().await;
                        n + 1
                    }
                })
                .unwrap()
        };
        let (counter, waker) = Counting::pair();
        let mut read = f.get(&engine, &1);
        assert!(poll_once(&mut read, &waker).is_pending());
        gate.open();
        // The result is there although `read` is not polled.
        until("the executor finishes the flight", || f.existing(&1).is_some());
        until("who waits is told", || counter.count() > 0);
        assert_eq!(block_on(read), Ok(2));
        assert_eq!((spawner.1.load(SeqCst), gate.arrived()), (1, 1));
        engine.assert_consistent();
    }
}

#[test]
fn a_spawned_flight_is_dropped_when_the_last_waiter_leaves() {
    for runtime in Runtime::all() {
        let gate = Gate::new();
        let engine = Engine::builder().spawner(Arc::new(runtime)).build();
        let f = {
            let gate = gate.clone();
            engine
                .async_function("f", move |_: Cx, n: u32| {
                    let gate = gate.clone();
                    async move {
                        let _passing = gate.pass().await;
                        n + 1
                    }
                })
                .unwrap()
        };
        let (_, waker) = Counting::pair();
        let mut read = f.get(&engine, &1);
        assert!(poll_once(&mut read, &waker).is_pending());
        until("the body waits", || gate.arrived() == 1);
        drop(read);
        until("the body's locals are dropped", || gate.over() == 1);
        engine.assert_consistent();
        gate.open();
        assert_eq!(block_on(f.get(&engine, &1)), Ok(2));
        engine.assert_consistent();
    }
}

/// Cancelling takes the future out of the flight; here the thread that cancels is in the middle of polling it.
#[test]
fn a_body_that_drops_its_own_last_waiter_does_not_deadlock() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let engine = Engine::builder().spawner(Arc::new(Runtime::Threads)).build();
        let waiter: Arc<Mutex<Option<GetFuture<u32>>>> = Arc::default();
        let (over, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let f = {
            let (waiter, over, left) = (waiter.clone(), over.clone(), left.clone());
            engine
                .async_function("f", move |_: Cx, n: u32| {
                    let (waiter, over, left) = (waiter.clone(), over.clone(), left.clone());
                    async move {
                        struct Over(Arc<AtomicUsize>);
                        impl Drop for Over {
                            fn drop(&mut self) {
                                self.0.fetch_add(1, SeqCst);
                            }
                        }
                        let _over = Over(over);
                        loop {
                            Breath::default().await;
                            let mine = waiter.lock().unwrap().take();
                            if mine.is_some() {
                                drop(mine);
                                left.fetch_add(1, SeqCst);
                            }
                            if left.load(SeqCst) > 5 {
                                return n;
                            }
                        }
                    }
                })
                .unwrap()
        };
        let (_, waker) = Counting::pair();
        let mut read = f.get(&engine, &1);
        assert!(poll_once(&mut read, &waker).is_pending());
        *waiter.lock().unwrap() = Some(read);
        until("the body has dropped its waiter", || left.load(SeqCst) == 1);
        until("the body is dropped", || over.load(SeqCst) == 1);
        engine.assert_consistent();
        done.send(()).unwrap();
    });
    ended.recv_timeout(HANGS / 3).expect("the body dropped its own last waiter and hangs");
}
