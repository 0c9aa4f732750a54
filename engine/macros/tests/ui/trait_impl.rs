use wellspring::{Cx, compute};

struct Shop;

trait Prices {
    fn price(&self, cx: &Cx, product: u32) -> u32;
}

#[compute]
impl Prices for Shop {
    fn price(&self, cx: &Cx, product: u32) -> u32 {
        product
    }
}

fn main() {}
