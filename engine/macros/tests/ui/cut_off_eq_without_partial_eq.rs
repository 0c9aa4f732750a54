#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[derive(Clone)]
struct Row;

#[compute]
impl Shop {
    #[compute(cut_off = eq)]
    fn row(&self, cx: &Cx, id: u32) -> Row {
        Row
    }
}

fn main() {}
