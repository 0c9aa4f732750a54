#![allow(unused)]

use std::rc::Rc;

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    async fn stock(&self, cx: &Cx) -> u32 {
        1
    }
    async fn total(&self, cx: &Cx) -> u32 {
        let kept = Rc::new(2);
        self.stock(cx).await.unwrap_or_default() * *kept
    }
}

fn main() {}
