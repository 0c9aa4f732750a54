#![allow(unused)]

use wellspring::{Cx, compute};

#[compute]
struct Shop;

#[compute]
fn price(cx: &Cx, product: u32) -> u32 {
    product
}

#[compute]
trait Prices {
    fn price(&self, cx: &Cx, product: u32) -> u32;
}

#[compute]
use std::fmt;

fn main() {}
