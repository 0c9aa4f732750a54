//! A random program and random operations, one thread, against the oracle: every invariant after every operation.
//!
//! The first byte chooses the dialect (exact counts, or bodies that panic) and whether sweeps are shared with a pool.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use wellspring_tests::expr::Dialect;
use wellspring_tests::op::Op;
use wellspring_tests::program::Program;
use wellspring_tests::sequential::{run_exact, run_faulty};

fn input(bytes: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Program, Vec<Op>)> {
    let shape = u8::arbitrary(bytes)?;
    let dialect = if shape & 3 == 0 { Dialect::Faulty } else { Dialect::Exact };
    let program = Program::from_bytes(dialect, bytes)?;
    Ok((shape, program, Op::list(bytes)?))
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok((shape, program, ops)) = input(&mut Unstructured::new(data)) else { return Corpus::Reject };
    // A pool thread per engine is slow to make: one input in sixteen.
    let parallel = shape >> 4 == 1;
    if shape & 3 == 0 {
        run_faulty(&program, &ops, parallel);
    } else {
        run_exact(&program, &ops, parallel);
    }
    Corpus::Keep
});
