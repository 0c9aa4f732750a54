#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn price(&self, product: u32, cx: &Cx) -> u32 {
        product
    }
    fn both(&self, cx: &Cx, other: &Cx) -> u32 {
        1
    }
    #[compute(cut_off = never)]
    fn stock(&self, product: u32) -> u32 {
        product
    }
}

fn main() {}
