//! The whole life of values against a model: time, eviction, errors, panics, cancellation.

use arbitrary::Unstructured;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use wellspring_tests::lifecycle::run_bytes;

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    Config {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(1_000))]

    /// I1, I2, I4, I6, I8-I14, I22, I27, I29-I31, I33, I34 after every operation: see `lifecycle`.
    #[test]
    fn a_value_lives_and_ends_as_the_model_says(bytes in proptest::collection::vec(any::<u8>(), 1..240)) {
        // Bytes that end in the middle of an operation are no program.
        let _ = run_bytes(&mut Unstructured::new(&bytes));
    }
}
