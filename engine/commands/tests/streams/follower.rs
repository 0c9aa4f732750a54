//! A reader that does what a server does, and keeps account of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::{Cursor, Entry, Hints, OperationId, OperationLog, Place, Reading, StoreError, Wakeup};

use super::PATIENCE;

#[derive(Debug)]
pub struct Follower<L> {
    pub log: Arc<L>,
    pub cursor: Cursor,
    pub hints: Hints,
    /// In the order in which they came, each once.
    pub order: Vec<OperationId>,
    pub seen: HashSet<OperationId>,
    pub horizon: Place,
    /// How often everything was dropped.
    pub losses: usize,
    /// How often something came again.
    pub repeats: usize,
}

impl<L: OperationLog + Wakeup> Follower<L> {
    pub async fn at_head(log: Arc<L>) -> Follower<L> {
        let hints = log.hints();
        let head = log.head().await.expect("a head");
        let (order, seen) = (Vec::new(), HashSet::new());
        Follower { log, cursor: head.cursor, hints, order, seen, horizon: head.horizon, losses: 0, repeats: 0 }
    }

    /// One reading; whether there is more at once.
    pub async fn read(&mut self) -> Result<bool, StoreError> {
        match self.log.read(&self.cursor, 256).await? {
            Reading::Entries { entries, cursor, horizon, more } => {
                assert!(horizon >= self.horizon, "a horizon goes back along a chain of cursors");
                for Entry { operation, place, .. } in entries {
                    if self.seen.insert(operation) {
                        assert!(place >= self.horizon, "{place:?} comes after a horizon of {:?}", self.horizon);
                        self.order.push(operation);
                    } else {
                        self.repeats += 1;
                    }
                }
                (self.cursor, self.horizon) = (cursor, horizon);
                Ok(more)
            }
            Reading::Lost { .. } => {
                let head = self.log.head().await?;
                self.losses += 1;
                (self.cursor, self.horizon) = (head.cursor, head.horizon);
                Ok(true)
            }
        }
    }

    /// Whether an operation has been applied, or everything was dropped after it.
    pub fn covers(&self, entry: &Entry) -> bool {
        self.seen.contains(&entry.operation) || entry.place < self.horizon
    }

    /// Reads all there is, as often as is hinted or the time has come, until enough is there.
    pub async fn follow(&mut self, period: Duration, enough: impl Fn(&Self) -> bool) {
        let following = async {
            loop {
                loop {
                    match self.read().await {
                        Ok(true) => {}
                        Ok(false) => break,
                        // A server that is away is back at some time.
                        Err(error) if error.is_transient() => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                if enough(self) {
                    return;
                }
                tokio::select! {
                    () = self.hints.next() => {}
                    () = tokio::time::sleep(period) => {}
                }
            }
        };
        let came = tokio::time::timeout(PATIENCE, following).await;
        assert!(came.is_ok(), "{} came, {} losses, {} repeats, then nothing", self.order.len(), self.losses, self.repeats);
    }
}

pub fn operations(entries: &[Entry]) -> Vec<OperationId> {
    entries.iter().map(|entry| entry.operation).collect()
}
