//! The peer of both ends, under random bytes: see [`wellspring_tests::rpc_peer`]. What a fuzz target does with better ones, without a sanitizer.

use std::time::{Duration, Instant};

fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(wellspring_tests::rpc_peer::run(bytes));
}

/// For so many seconds, if `WELLSPRING_TORTURE_SECONDS` says so, from the seed `WELLSPRING_SEED`.
#[test]
fn whatever_is_said_to_a_peer_nothing_panics_and_nothing_is_left() {
    // A panic in a task is somebody else's to see, or nobody's.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        told(panic);
        std::process::abort();
    }));
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let until = Instant::now() + Duration::from_secs(number("WELLSPRING_TORTURE_SECONDS").unwrap_or(2));
    let given = number("WELLSPRING_SEED");
    let mut seed = given.unwrap_or(0);
    loop {
        println!("rpc_peer: WELLSPRING_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed);
        let mut bytes = vec![0; random.usize(..6_000)];
        random.fill(&mut bytes);
        run(&bytes);
        seed += 1;
        if Instant::now() >= until || (given.is_some() && number("WELLSPRING_TORTURE_SECONDS").is_none()) {
            return;
        }
    }
}
