#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[derive(Clone)]
struct ShopError;

#[compute]
impl Shop {
    fn price(&self, cx: &Cx) -> Result<u32, ShopError> {
        Err(ShopError)
    }
}

fn main() {}
