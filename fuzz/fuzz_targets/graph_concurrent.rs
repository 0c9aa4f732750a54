//! A random monotone program and a script for each of three threads: no thread ever sees an old value, and all agrees with
//! the oracle when they have stopped.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use wellspring::{Capacity, Engine};
use wellspring_tests::concurrent::{Act, run};
use wellspring_tests::expr::Dialect;
use wellspring_tests::program::Program;

const THREADS: usize = 3;

fn input(bytes: &mut Unstructured<'_>) -> arbitrary::Result<(u8, Program, Vec<Vec<Act>>)> {
    let shape = u8::arbitrary(bytes)?;
    let program = Program::from_bytes(Dialect::Monotone, bytes)?;
    Ok((shape, program, Act::scripts(bytes, THREADS)?))
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok((shape, program, scripts)) = input(&mut Unstructured::new(data)) else { return Corpus::Reject };
    let builder = Engine::builder();
    // One input in four evicts, if its program is small: what is not kept costs what it would without a cache.
    let builder = if shape >> 6 == 3 && program.nodes() <= 6 { builder.capacity(Capacity::entries(2 + usize::from(shape >> 4 & 3))) } else { builder };
    let parallel = shape & 15 == 1;
    run(&program, &scripts, if parallel { builder.sweep_threads(2).parallel_threshold(1) } else { builder.sweep_threads(1) });
    Corpus::Keep
});
