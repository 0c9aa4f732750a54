#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn price(&self, product: u32) -> u32 {
        product
    }
}

fn main() {}
