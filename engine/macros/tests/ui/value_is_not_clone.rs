#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

struct Row;

#[compute]
impl Shop {
    fn row(&self, cx: &Cx, id: u32) -> Row {
        Row
    }
}

fn main() {}
