#![allow(unused)]

use wellspring::{Cx, Value, compute};

struct Store<T, const N: usize>([T; N]);

#[compute]
impl<T: Value, const N: usize> Store<T, N> {
    fn first(&self, cx: &Cx) -> Option<T> {
        self.0.first().cloned()
    }
    async fn all(&self, cx: &Cx) -> Result<[u32; N], wellspring::Fault> {
        Ok([0; N])
    }
    fn count(&self, cx: &Cx) -> usize {
        N
    }
}

fn main() {}
