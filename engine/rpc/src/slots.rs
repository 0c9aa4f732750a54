//! Room for the futures of calls, which the next calls use again.

use std::alloc::Layout;
use std::task::{Context, Poll};

use tokio_util::sync::ReusableBoxFuture;

/// What answers a call, until it is over.
pub(crate) type Body = ReusableBoxFuture<'static, ()>;

/// Futures of different sizes that have room: with one more, the one that came first makes room.
const MOST: usize = 16;

/// One for each size, and so for each method, or for some that are alike: a box is used again only for what is exactly as large.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    all: Vec<(Layout, Body)>,
    /// The one with what was put in last.
    last: usize,
    /// The one that makes room.
    next: usize,
}

impl Slots {
    /// Puts a future in. What was there is over, or is given up.
    pub(crate) fn set(&mut self, body: impl Future<Output = ()> + Send + 'static) {
        let layout = Layout::for_value(&body);
        self.last = match self.all.iter().position(|(known, _)| *known == layout) {
            Some(at) => at,
            None if self.all.len() < MOST => {
                self.all.push((layout, Body::new(body)));
                self.last = self.all.len() - 1;
                return;
            }
            None => {
                let at = self.next;
                self.next = (at + 1) % MOST;
                self.all[at].0 = layout;
                at
            }
        };
        self.all[self.last].1.set(body);
    }

    /// Asks what was put in last.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.all.get_mut(self.last).map_or(Poll::Ready(()), |(_, body)| body.poll(cx))
    }

    /// Takes out what was put in last, with its room.
    pub(crate) fn take(&mut self) -> Option<Body> {
        (self.last < self.all.len()).then(|| self.all.swap_remove(self.last).1)
    }

    /// Gives all room back.
    pub(crate) fn rest(&mut self) {
        *self = Slots::default();
    }
}
