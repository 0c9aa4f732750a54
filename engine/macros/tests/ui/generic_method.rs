#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn sized<T: Clone>(&self, cx: &Cx, item: T) -> u32 {
        1
    }
    fn borrowed<'a>(&self, cx: &Cx, item: &'a str) -> u32 {
        1
    }
    fn counted<const N: usize>(&self, cx: &Cx) -> [u8; N] {
        [0; N]
    }
    fn opaque(&self, cx: &Cx, item: impl Into<String>) -> u32 {
        1
    }
    fn bounded(&self, cx: &Cx) -> u32
    where
        Shop: Clone,
    {
        1
    }
    const fn constant(&self, cx: &Cx) -> u32 {
        1
    }
}

fn main() {}
