#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn none(cx: &Cx, product: u32) -> u32 {
        product
    }
    fn exclusive(&mut self, cx: &Cx, product: u32) -> u32 {
        product
    }
    fn owned(self, cx: &Cx) -> u32 {
        1
    }
    fn shared(self: std::sync::Arc<Self>, cx: &Cx) -> u32 {
        1
    }
}

fn main() {}
