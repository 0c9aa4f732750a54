//! What was sent last.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// The frames that were sent last, of which nobody knows whether they have arrived: those of the last second, and not more than 256 KiB.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    frames: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Longer ago than this, what was sent counts as received. A link that is dead for longer before anybody notices has calls run twice.
    const AGE: Duration = Duration::from_secs(1);
    /// More than this is not kept.
    const BYTES: usize = 256 << 10;

    pub(crate) fn add(&mut self, frame: Bytes) {
        let now = Instant::now();
        self.bytes += frame.len();
        self.frames.push_back((now, frame));
        while let Some((sent, frame)) = self.frames.front()
            && (self.bytes > Recent::BYTES || now.duration_since(*sent) > Recent::AGE)
        {
            self.bytes -= frame.len();
            self.frames.pop_front();
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        let now = Instant::now();
        self.bytes = 0;
        self.frames.drain(..).filter(|(sent, _)| now.duration_since(*sent) <= Recent::AGE).map(|(_, frame)| frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn sizes(recent: &mut Recent) -> Vec<usize> {
        recent.take().iter().map(Bytes::len).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_a_second_ago_is_kept_and_what_was_sent_before_that_is_not() {
        let moment = Duration::from_millis(1);
        let mut recent = Recent::default();
        recent.add(frame(1));
        tokio::time::advance(moment).await;
        recent.add(frame(2));
        tokio::time::advance(Recent::AGE).await;
        assert_eq!(sizes(&mut recent), [2], "at the end");
        assert_eq!((sizes(&mut recent), recent.bytes), (Vec::new(), 0), "it is taken once");
        recent.add(frame(1));
        tokio::time::advance(moment).await;
        recent.add(frame(2));
        tokio::time::advance(Recent::AGE).await;
        recent.add(frame(3));
        assert_eq!((recent.frames.len(), recent.bytes), (2, 5), "nor is it held until then, if something else is sent");
        assert_eq!(sizes(&mut recent), [2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_bytes_as_may_be_are_kept_and_of_more_the_last() {
        let mut recent = Recent::default();
        recent.add(frame(1));
        recent.add(frame(Recent::BYTES - 1));
        assert_eq!((recent.frames.len(), recent.bytes), (2, Recent::BYTES));
        recent.add(frame(1));
        assert_eq!(sizes(&mut recent), [Recent::BYTES - 1, 1]);
        recent.add(frame(Recent::BYTES));
        recent.add(frame(1));
        assert_eq!(sizes(&mut recent), [1]);
        recent.add(frame(Recent::BYTES + 1));
        assert_eq!((sizes(&mut recent), recent.bytes), (Vec::new(), 0), "one that is larger by itself is not");
    }
}
