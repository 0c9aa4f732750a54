//! Options about time, errors and memory on `#[compute]` methods.

#![forbid(unsafe_code)]
#![allow(unused_variables, reason = "keys that bodies need not look at")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use wellspring::{Capacity, Cx, Engine, ErrorKind, Fault, ManualClock, compute};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq)]
enum Failed {
    Odd,
    Fault(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed::Fault(fault)
    }
}

#[derive(Default)]
struct Rates {
    runs: AtomicU32,
}

impl Rates {
    fn next(&self) -> Result<u32, Failed> {
        let run = self.runs.fetch_add(1, SeqCst);
        if run % 2 == 1 { Err(Failed::Odd) } else { Ok(run) }
    }
}

#[compute]
impl Rates {
    fn plain(&self, cx: &Cx, key: u8) -> Result<u32, Failed> {
        self.next()
    }
    #[compute(errors = keep)]
    fn kept(&self, cx: &Cx, key: u8) -> Result<u32, Failed> {
        self.next()
    }
    #[compute(expire_after = 100 * SECOND, errors = |_| ErrorKind::NonTransient, error_delays = (SECOND, 10 * SECOND), serve_stale_on_error)]
    fn slow(&self, cx: &Cx, key: u8) -> Result<u32, Failed> {
        self.next()
    }
    #[compute(capacity = Capacity::entries(10))]
    async fn bounded(&self, cx: &Cx, key: u64) -> u64 {
        key
    }
}

fn rates() -> (Arc<ManualClock>, Engine, RatesHandle) {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let rates = engine.service(Rates::default()).expect("a free name");
    (clock, engine, rates)
}

#[test]
fn errors_are_tried_again_after_a_second_without_being_asked_for() {
    let (clock, engine, rates) = rates();
    assert_eq!(rates.plain(&engine, 0), Ok(0));
    rates.invalidate().plain(0);
    assert_eq!(rates.plain(&engine, 0), Err(Failed::Odd));
    assert_eq!(rates.plain(&engine, 0), Err(Failed::Odd));
    clock.advance(SECOND);
    assert_eq!(rates.plain(&engine, 0), Ok(2));
    clock.advance(1_000 * SECOND);
    assert_eq!(rates.plain(&engine, 0), Ok(2));
    engine.assert_consistent();
}

#[test]
fn errors_are_kept_where_that_is_said() {
    let (clock, engine, rates) = rates();
    rates.runs.store(1, SeqCst);
    assert_eq!(rates.kept(&engine, 0), Err(Failed::Odd));
    clock.advance(1_000 * SECOND);
    assert_eq!(rates.kept(&engine, 0), Err(Failed::Odd));
}

#[test]
fn options_with_expressions_reach_the_function() {
    let (clock, engine, rates) = rates();
    assert_eq!(rates.slow(&engine, 0), Ok(0));
    clock.advance(100 * SECOND);
    assert_eq!((rates.slow(&engine, 0), rates.runs.load(SeqCst)), (Ok(0), 2), "an error: the last good value");
    clock.advance(10 * SECOND);
    assert_eq!(rates.slow(&engine, 0), Ok(2));
    for key in 0..100 {
        let read = std::pin::pin!(rates.bounded(&engine, key));
        assert!(read.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready());
    }
    assert!(engine.memory_report().functions.iter().any(|function| function.name == "Rates.bounded" && function.nodes <= 10));
    engine.assert_consistent();
}
