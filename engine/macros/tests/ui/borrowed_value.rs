#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    fn name(&self, cx: &Cx) -> &str {
        "shop"
    }
    fn names(&self, cx: &Cx) -> std::borrow::Cow<'_, str> {
        "shop".into()
    }
    fn items(&self, cx: &Cx) -> impl Iterator<Item = u32> {
        0..1
    }
    fn fixed(&self, cx: &Cx) -> &'static str {
        "this one is in order"
    }
}

fn main() {}
