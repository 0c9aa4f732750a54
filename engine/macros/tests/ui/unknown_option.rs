#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop;

#[compute]
impl Shop {
    #[compute(cutoff = eq)]
    fn misspelt(&self, cx: &Cx) -> u32 {
        1
    }
    #[compute(cut_off = always)]
    fn unknown_rule(&self, cx: &Cx) -> u32 {
        1
    }
    #[compute(result, result)]
    fn twice(&self, cx: &Cx) -> u32 {
        1
    }
    #[compute(name = "")]
    fn nameless(&self, cx: &Cx) -> u32 {
        1
    }
}

fn main() {}
