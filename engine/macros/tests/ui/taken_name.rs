#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn invalidate(&self, cx: &Cx) -> u32 {
        1
    }
    fn functions(&self, cx: &Cx) -> u32 {
        1
    }
}

fn main() {}
