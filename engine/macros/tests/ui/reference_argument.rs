#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn greeting(&self, cx: &Cx, name: &str) -> String {
        name.to_owned()
    }
    fn sum(&self, cx: &Cx, items: &[u32]) -> u32 {
        items.iter().sum()
    }
    fn price(&self, cx: &Cx, product: &u32) -> u32 {
        *product
    }
    fn first(&self, cx: &Cx, names: Vec<&str>) -> u32 {
        1
    }
}

fn main() {}
