//! Values that expire, are evicted, end in errors and panics, are watched and cancelled, one thread on a clock moved by hand, against a
//! model: every value exactly, after every operation.
//!
//! The first byte chooses how little two of the functions may hold.
#![no_main]

use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use wellspring_tests::lifecycle::run_bytes;

fuzz_target!(|data: &[u8]| -> Corpus {
    match run_bytes(&mut Unstructured::new(data)) {
        Ok(()) => Corpus::Keep,
        Err(_) => Corpus::Reject,
    }
});
