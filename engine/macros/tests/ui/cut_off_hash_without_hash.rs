#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[derive(Clone, PartialEq)]
struct Row;

#[compute]
impl Shop {
    #[compute(cut_off = hash)]
    fn row(&self, cx: &Cx, id: u32) -> Row {
        Row
    }
}

fn main() {}
