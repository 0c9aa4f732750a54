use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    async fn price(&self, cx: &Cx, product: u32) -> u32 {
        product
    }
    fn twice(&self, cx: &Cx, product: u32) -> u32 {
        let price: u32 = self.price(cx, product).unwrap_or_default();
        price * 2
    }
}

fn main() {}
