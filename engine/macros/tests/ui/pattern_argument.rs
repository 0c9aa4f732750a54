#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn distance(&self, cx: &Cx, (x, y): (i32, i32)) -> i32 {
        x + y
    }
    fn ignored(&self, cx: &Cx, _: u32) -> u32 {
        1
    }
}

fn main() {}
