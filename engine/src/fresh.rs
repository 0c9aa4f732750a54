//! Reads with a promise: fresh at one instant, or no older than a commit.
//!
//! `get` may return a value that was being changed while it was read. A *fresh* read was right at one instant between its
//! call and its return: an instant at which no sweep was open, the node was consistent, and its value the one returned.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::async_handle::{AsyncFunction, GetFuture};
use crate::cx::Ask;
use crate::deps::{Dep, UNSTORED};
use crate::fault::Fault;
use crate::graph::Graph;
use crate::handle::{CommitId, Function};
use crate::key::{Key, Lookup};
use crate::sync::atomic::Ordering;
use crate::sync::{Backoff, fault, lock, wait};
use crate::value::Value;

/// Reads before a promise is given up: a graph that changes faster than it is computed must not keep a reader for ever.
pub(crate) const TRIES: u32 = 16;

/// Looks at what was read that may fall into an open sweep, before that counts as a change.
pub(crate) const LOOKS: u32 = 256;

/// Whether what was read still stood at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    /// All of it, at an instant within the look, with no sweep open.
    Together,
    /// A sweep is open: look again when it is over.
    Open,
    /// Some of it has been marked or replaced.
    Changed,
}

impl Graph {
    /// The number of sweeps begun and ended; odd while one is open.
    pub(crate) fn phase(&self) -> u64 {
        // Acquire: what is read after it is read after the marks of the sweeps it counts.
        self.sweeper.phase.load(Ordering::Acquire)
    }

    /// Looks at the heads of what was read, like a seqlock of which a sweep is the writer: the phase, the heads, the phase again.
    pub(crate) fn stands(&self, deps: &[Dep]) -> Stands {
        let phase = self.phase();
        if phase & 1 == 1 && !fault!("open_sweep_ignored") {
            return Stands::Open;
        }
        let unmarked = |dep: &Dep| {
            let head = self.head(dep.slot);
            // `changed` once more than the head: a slot's next tenant is newer than every epoch of the last.
            dep.epoch != UNSTORED && head.is_live() && head.is_settled() && (self.unchanged(*dep) || fault!("changed_unchecked"))
        };
        if !deps.iter().all(unmarked) {
            return Stands::Changed;
        }
        // Acquire: heads are loaded with Acquire, so this load comes after them; a mark they had shown is stored after the phase
        // became odd.
        if self.phase() == phase || fault!("open_sweep_ignored") { Stands::Together } else { Stands::Open }
    }

    /// What [`is_unchanged_since`](Graph::is_unchanged_since) wants from before the first read.
    pub(crate) fn changes(&self) -> u64 {
        // Acquire: what is read comes after it.
        self.sweeper.changes.load(Ordering::Acquire)
    }

    /// Whether nothing at all has changed since: what was read stood together, also what was evicted before it was looked at.
    ///
    /// A slot that an eviction freed says nothing about its last tenant any more, so a capacity smaller than what is read would
    /// otherwise look like a commit at every try.
    pub(crate) fn is_unchanged_since(&self, changes: u64) -> bool {
        // Acquire: as the second look in `stands`.
        changes & 1 == 0 && self.sweeper.changes.load(Ordering::Acquire) == changes
    }

    /// Waits on this thread until the sweep that is open, if one is, is over.
    pub(crate) fn wait_for_sweep(&self) {
        let mut backoff = Backoff::default();
        while !backoff.is_long() {
            if self.phase() & 1 == 0 {
                return;
            }
            backoff.wait();
        }
        self.sweeper.wait_until(|progress| !progress.sweeping);
    }

    /// An error if nobody was ever given the number.
    fn check_commit(&self, commit: CommitId) -> Result<(), Fault> {
        let last = self.sweeper.tickets();
        if commit.0 > last { Err(Fault::UnknownCommit { asked: commit, last: CommitId(last) }) } else { Ok(()) }
    }
}

/// A wait for the graph in an asynchronous read. Sweeps are short and run no user code, so the task only steps back in the queue.
struct StepBack(bool);

impl Future for StepBack {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Lets others run until the condition holds.
pub(crate) async fn step_back_until(mut done: impl FnMut() -> bool) {
    while !done() {
        StepBack(false).await;
    }
}

impl<K: Key, V: Value> Function<K, V> {
    /// [`get`](Function::get) that never returns a value which was stale for the whole of the call.
    ///
    /// The value was right at one instant between the call and its return, also while other threads commit: a result that a
    /// commit overtook is computed again, up to 16 times. Waits for a sweep that is open. A hit costs two loads more than
    /// `get`'s.
    ///
    /// # Errors
    /// As [`get`](Function::get), and [`Fault::Contended`] where the value changes faster than it can be computed.
    pub fn get_fresh<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> Result<V, Fault> {
        let asker = by.asker();
        self.admit(asker)?;
        let hash = self.hash(key);
        let (mut tries, mut overtaken) = (0, 0);
        // A hit that is overtaken has cost nothing: it is no try, but somebody else's work may not keep a reader for ever either.
        while tries < TRIES && overtaken < LOOKS {
            let phase = self.graph.phase();
            let (value, slot, epoch, before) = match self.take_hit(hash, key) {
                Some((value, slot, epoch)) => {
                    self.count_hit();
                    // It was consistent in between, and no sweep was open at any time of that.
                    if phase & 1 == 0 && self.graph.phase() == phase {
                        asker.record(Dep { slot, epoch })?;
                        return Ok(value);
                    }
                    overtaken += 1;
                    (value, slot, epoch, None)
                }
                None => {
                    self.count_miss();
                    tries += 1;
                    let before = self.graph.changes();
                    let (slot, _, (value, epoch)) =
                        self.data.obtain_key(&self.graph, hash, key, asker.held).map_err(|fault| asker.fault(fault))?;
                    (value, slot, epoch, Some(before))
                }
            };
            let dep = Dep { slot, epoch };
            for _ in 0..LOOKS {
                match self.graph.stands(&[dep]) {
                    Stands::Together => {
                        asker.record(dep)?;
                        return Ok(value);
                    }
                    Stands::Open => self.graph.wait_for_sweep(),
                    Stands::Changed if before.is_some_and(|before| self.graph.is_unchanged_since(before)) => {
                        asker.record(dep)?;
                        return Ok(value);
                    }
                    Stands::Changed => break,
                }
            }
        }
        Err(asker.fault(Fault::Contended { function: self.name().to_owned(), tries }))
    }

    /// [`get`](Function::get) of a value no older than the commit: read your own writes, also when the number came from another thread
    /// or another process. Waits until that commit is finished.
    ///
    /// # Errors
    /// As [`get`](Function::get), and [`Fault::UnknownCommit`] for a number the engine has not given out yet.
    pub fn get_at_least<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q, commit: CommitId) -> Result<V, Fault> {
        if self.graph.finished_commit() < commit.0 {
            self.graph.check_commit(commit).map_err(|fault| by.asker().fault(fault))?;
            self.graph.sweeper.wait_until(|progress| progress.finished >= commit.0);
        }
        self.get(by, key)
    }
}

impl<K: Key, V: Value> AsyncFunction<K, V> {
    /// [`get`](AsyncFunction::get) that never returns a value which was stale for the whole of the call: see
    /// [`Function::get_fresh`].
    ///
    /// # Errors
    /// As [`get`](AsyncFunction::get), and [`Fault::Contended`].
    pub fn get_fresh<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q) -> GetFuture<V> {
        let prepared = self.prepare(by.asker());
        let (handle, key) = (self.0.clone(), key.to_key());
        GetFuture::cold(async move {
            let cx = prepared?;
            let mut tries = 0;
            while tries < TRIES {
                tries += 1;
                let before = handle.graph.changes();
                let (slot, _, (value, epoch)) = handle.obtain_async(cx.as_ref(), &key).await?;
                let dep = Dep { slot, epoch };
                for _ in 0..LOOKS {
                    match handle.graph.stands(&[dep]) {
                        Stands::Together => {
                            handle.owned_asker(cx.as_ref()).record(dep)?;
                            return Ok(value);
                        }
                        Stands::Open => StepBack(false).await,
                        Stands::Changed if handle.graph.is_unchanged_since(before) => {
                            handle.owned_asker(cx.as_ref()).record(dep)?;
                            return Ok(value);
                        }
                        Stands::Changed => break,
                    }
                }
            }
            Err(handle.owned_asker(cx.as_ref()).fault(Fault::Contended { function: handle.name().to_owned(), tries }))
        })
    }

    /// [`get`](AsyncFunction::get) of a value no older than the commit: see [`Function::get_at_least`].
    ///
    /// # Errors
    /// As [`get`](AsyncFunction::get), and [`Fault::UnknownCommit`].
    pub fn get_at_least<Q: ?Sized + Lookup<K>>(&self, by: impl Ask, key: &Q, commit: CommitId) -> GetFuture<V> {
        if self.graph.finished_commit() >= commit.0 {
            return self.get(by, key);
        }
        let known = self.graph.check_commit(commit).map_err(|fault| by.asker().fault(fault));
        let prepared = known.and_then(|()| self.prepare(by.asker()));
        let (handle, key) = (self.0.clone(), key.to_key());
        GetFuture::cold(async move {
            let cx = prepared?;
            step_back_until(|| handle.graph.finished_commit() >= commit.0).await;
            let (slot, _, got) = handle.obtain_async(cx.as_ref(), &key).await?;
            crate::compute::record(handle.owned_asker(cx.as_ref()), slot, got)
        })
    }
}

impl crate::sweep::Sweeper {
    /// Sleeps until the sweeps have got so far.
    pub(crate) fn wait_until(&self, done: impl Fn(&crate::sweep::Queue) -> bool) {
        let mut queue = lock(&self.queue);
        while !done(&queue) {
            queue.asleep += 1;
            queue = wait(&self.done, queue);
            queue.asleep -= 1;
        }
    }

    fn tickets(&self) -> u64 {
        lock(&self.queue).tickets
    }
}
