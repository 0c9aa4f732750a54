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
