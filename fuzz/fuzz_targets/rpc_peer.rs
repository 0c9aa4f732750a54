//! What bytes do to a peer, at either end: see [`wellspring_tests::rpc_peer`]. Time is paused, so a run lasts as long as it has something to do.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(wellspring_tests::rpc_peer::run(data));
});
