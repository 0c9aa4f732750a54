#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn price(&self, cx: Cx, product: u32) -> u32 {
        product
    }
    async fn stock(&self, context: &mut Cx, product: u32) -> u32 {
        product
    }
}

fn main() {}
