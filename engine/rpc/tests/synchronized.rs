//! Waiting until what is known here is true, of a server that takes its time.

mod support;

use std::time::Duration;

use support::near::{method, soon};
use support::pipe::Wire;
use support::services::World;
use tokio::time::{Instant, sleep, timeout};
use wellspring::{AsyncFunction, Engine};
use wellspring_rpc::{Connected, NotSynchronized, Remote, Remoted};

/// A client of a counter that takes so many milliseconds to say what it is.
struct Patient {
    world: World,
    wire: Wire,
    remote: Remote,
    engine: Engine,
    slow: AsyncFunction<(String, u64), Remoted<i64>>,
}

impl Patient {
    fn new() -> Patient {
        let (world, engine) = (World::new(), Engine::new());
        let wire = Wire::to(&world.hub);
        let remote = Remote::builder(wire.clone()).connect();
        let slow = remote.function(&engine, "slow", &method("ICounter.Slow:3")).expect("registered");
        Patient { world, wire, remote, engine, slow }
    }

    async fn is(&self, connected: bool) {
        self.wire.set_down(!connected);
        let mut state = self.remote.connected();
        soon(state.wait_for(|state| (*state == Connected::Yes) == connected)).await.expect("it lives");
    }

    async fn read(&self, takes: u64) -> Option<i64> {
        let read = self.slow.get(&self.engine, &("k".to_owned(), takes)).await.expect("read");
        read.as_result().ok().copied()
    }

    /// Nobody asks any more, and the server knows.
    async fn nobody_asks(&self) {
        sleep(Duration::from_millis(10)).await;
        assert_eq!((self.remote.open_calls(), self.world.hub.open_calls()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_time_gets_what_is_true_and_whoever_has_not_hears_so_when_it_is_over() {
    let (half, three, long) = (Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(3_600));
    let late = Err(NotSynchronized::TimedOut);
    for (connected, within, expected, took) in [
        (true, Duration::ZERO, late.clone(), Duration::ZERO),
        (true, three, Ok(Some(7)), half),
        (true, long, Ok(Some(7)), half),
        (false, Duration::ZERO, late.clone(), Duration::ZERO),
        (false, three, late, three),
    ] {
        let patient = Patient::new();
        patient.world.counters.set(&"k".to_owned(), 7);
        patient.is(true).await;
        patient.is(connected).await;
        let began = Instant::now();
        let read = patient.remote.synchronized(within, || patient.read(500)).await;
        assert_eq!((read.clone(), began.elapsed()), (expected, took), "connected: {connected}, within: {within:?}");
        if read.is_err() {
            patient.nobody_asks().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_is_not_held_by_a_slow_server_and_leaves_nothing() {
    for pause in [0, 100] {
        let patient = Patient::new();
        patient.is(true).await;
        let (began, pause) = (Instant::now(), Duration::from_millis(pause));
        let reading = patient.remote.synchronized(Duration::from_secs(60), || patient.read(30_000));
        assert!(timeout(pause, reading).await.is_err());
        assert_eq!(began.elapsed(), pause);
        patient.nobody_asks().await;
    }
}
