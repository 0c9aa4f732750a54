use wellspring::{Cx, Engine};
use wellspring_commands::Op;
use wellspring_commands::memory::Memory;

fn handler(op: &Op<Memory>, engine: &Engine) {
    let price = engine.function("price", |_: &Cx, product: &u32| u64::from(*product)).expect("registered");
    let _ = op.invalidate(&price, &7);
}

fn main() {}
