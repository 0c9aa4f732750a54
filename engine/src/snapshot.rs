//! Several reads of one instant, without a lock: read, then look whether all of it still stood together.

use std::future::Future;
use std::time::Duration;

use crate::cx::{Ask, Asker, Cx, sealed};
use crate::engine::Engine;
use crate::fresh::{LOOKS, Stands, TRIES, step_back_until};

/// Who asks in [`Engine::snapshot`]: reads through it belong together.
///
/// Only reads that take `impl Ask` take part (`get`, `computed` and their like); what is borrowed under a [`Pin`](crate::Pin) does not.
#[derive(Debug)]
pub struct Snapshot(Cx);

impl sealed::Sealed for Snapshot {}

impl Ask for Snapshot {
    #[inline]
    fn asker(&self) -> Asker<'_> {
        self.0.asker()
    }
}

impl Clone for Snapshot {
    /// Another handle to the same try, for the parts of a `join!`. Only an asynchronous snapshot's clone can be read through.
    fn clone(&self) -> Snapshot {
        Snapshot(self.0.clone())
    }
}

/// A snapshot was given up: commits touched what it read at every try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotContended {
    /// How often the closure ran.
    pub tries: u32,
}

impl std::fmt::Display for SnapshotContended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "commits touched what the snapshot read at each of {} tries; read less in it, or try again later", self.tries)
    }
}

impl std::error::Error for SnapshotContended {}

/// One run of the closure.
struct Try<'e> {
    engine: &'e Engine,
    deadline: Option<Duration>,
    tries: u32,
    /// The graph's changes when the closure ran last.
    before: u64,
}

/// Runs after which reads that were evicted before they were looked at count as standing, if nothing changed meanwhile. Not at once:
/// what was evicted may have been computed twice in one run, and come out differently if it reads outside data.
const PATIENT: u32 = 4;

impl Try<'_> {
    /// Whether the closure may run once more.
    fn again(&mut self) -> Result<(), SnapshotContended> {
        let late = self.deadline.is_some_and(|deadline| self.engine.graph().timers.clock().now() >= deadline);
        if self.tries > 0 && (self.tries >= TRIES || late) {
            return Err(SnapshotContended { tries: self.tries });
        }
        self.tries += 1;
        self.before = self.engine.graph().changes();
        Ok(())
    }

    /// Whether what the closure read stood together.
    fn is_over(&self, stands: Stands) -> bool {
        stands == Stands::Together || self.tries >= PATIENT && self.engine.graph().is_unchanged_since(self.before)
    }
}

impl Engine {
    /// Runs the closure until everything it read through its argument stood together at one instant: the reads are of one commit,
    /// with no lock held while they are made.
    ///
    /// The closure may run several times, so it should only read. Exact for sources of this engine. Where functions read
    /// outside data, it promises that no commit which concerns what was read fell between the first read and the last.
    /// Commits elsewhere in the graph cost no run; a sweep that is open is waited for. A read that ends in a
    /// [`Fault`](crate::Fault) is the closure's to handle: what was read beside it still stood together.
    ///
    /// ```
    /// # use wellspring::Engine;
    /// let engine = Engine::new();
    /// let stock = engine.source("stock", |_: &u8| 10_i64)?;
    /// let (left, right) = engine.snapshot(|s| (stock.get(s, &0), stock.get(s, &1)))?;
    /// assert_eq!(left? + right?, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SnapshotContended`] after 16 runs.
    pub fn snapshot<R>(&self, read: impl FnMut(&Snapshot) -> R) -> Result<R, SnapshotContended> {
        self.read_together(None, read)
    }

    /// [`snapshot`](Engine::snapshot) that starts no new run once the engine's clock has moved on by `limit`.
    ///
    /// # Errors
    /// [`SnapshotContended`] after 16 runs or at the deadline; the closure runs at least once.
    pub fn snapshot_within<R>(&self, limit: Duration, read: impl FnMut(&Snapshot) -> R) -> Result<R, SnapshotContended> {
        self.read_together(Some(limit), read)
    }

    fn tries(&self, limit: Option<Duration>) -> Try<'_> {
        let deadline = limit.map(|limit| self.graph().timers.clock().now().saturating_add(limit));
        Try { engine: self, deadline, tries: 0, before: 0 }
    }

    fn read_together<R>(&self, limit: Option<Duration>, mut read: impl FnMut(&Snapshot) -> R) -> Result<R, SnapshotContended> {
        let graph = self.graph();
        let mut run = self.tries(limit);
        loop {
            run.again()?;
            let mut snapshot = Snapshot(Cx::outside(graph.id, true));
            let result = read(&snapshot);
            let stands = snapshot.0.close(|recorded, _| {
                // Commits that follow each other faster than one look count as one that touched something, in the end.
                for _ in 0..LOOKS {
                    match graph.stands(recorded.as_slice()) {
                        Stands::Open => graph.wait_for_sweep(),
                        settled => return settled,
                    }
                }
                Stands::Open
            });
            if run.is_over(stands) {
                return Ok(result);
            }
        }
    }

    /// [`snapshot`](Engine::snapshot) of asynchronous functions: the future the closure makes may be made several times.
    ///
    /// # Errors
    /// [`SnapshotContended`] after 16 runs.
    ///
    /// # Cancellation
    /// Dropping the future drops the run that is under way.
    pub async fn snapshot_async<R, F: Future<Output = R>>(&self, read: impl FnMut(Snapshot) -> F) -> Result<R, SnapshotContended> {
        self.read_together_async(None, read).await
    }

    /// [`snapshot_async`](Engine::snapshot_async) that starts no new run once the engine's clock has moved on by `limit`. A run that
    /// is under way is not ended by it.
    ///
    /// # Errors
    /// [`SnapshotContended`] after 16 runs or at the deadline; the closure runs at least once.
    ///
    /// # Cancellation
    /// Dropping the future drops the run that is under way.
    pub async fn snapshot_async_within<R, F: Future<Output = R>>(
        &self,
        limit: Duration,
        read: impl FnMut(Snapshot) -> F,
    ) -> Result<R, SnapshotContended> {
        self.read_together_async(Some(limit), read).await
    }

    async fn read_together_async<R, F: Future<Output = R>>(
        &self,
        limit: Option<Duration>,
        mut read: impl FnMut(Snapshot) -> F,
    ) -> Result<R, SnapshotContended> {
        let mut run = self.tries(limit);
        loop {
            run.again()?;
            let graph = self.graph();
            let mut cx = Cx::outside_shared(graph.id);
            let result = match cx.share() {
                Some(mine) => read(Snapshot(mine)).await,
                None => return Err(SnapshotContended { tries: run.tries }),
            };
            let recorded = cx.close(|recorded, _| recorded.as_slice().to_vec());
            let mut stands = Stands::Open;
            let mut looks = 0;
            step_back_until(|| {
                stands = graph.stands(&recorded);
                looks += 1;
                stands != Stands::Open || looks >= LOOKS
            })
            .await;
            if run.is_over(stands) {
                return Ok(result);
            }
        }
    }
}
