use std::marker::PhantomData;

use wellspring::Inline;

#[derive(Clone, Copy, Inline)]
enum Colour {
    Red,
    Blue,
}

#[derive(Clone, Copy, Inline)]
struct Point {
    x: i16,
    y: i32,
}

#[derive(Clone, Copy, Inline)]
struct Empty;

#[derive(Clone, Copy, Inline)]
struct Id<T>(u32, PhantomData<T>);

#[derive(Clone, Copy, Inline)]
union Bits {
    word: u64,
}

fn main() {}
