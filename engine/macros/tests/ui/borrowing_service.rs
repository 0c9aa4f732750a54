#![allow(unused)]

use wellspring::{Cx, compute};

struct Shop<'a>(&'a str);

#[compute]
impl<'a> Shop<'a> {
    fn length(&self, cx: &Cx) -> usize {
        self.0.len()
    }
}

fn main() {}
