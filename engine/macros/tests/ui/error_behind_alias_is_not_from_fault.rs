#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[derive(Clone)]
struct ShopError;

type Priced<T> = Result<T, ShopError>;

#[compute]
impl Shop {
    async fn stock(&self, cx: &Cx) -> Priced<u32> {
        Err(ShopError)
    }
}

fn main() {}
