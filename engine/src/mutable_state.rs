//! A single value that is set from outside: a source without a key.

use crate::batch::Batch;
use crate::computed::Computed;
use crate::cx::Ask;
use crate::engine::Engine;
use crate::fault::{Fault, RegisterError};
use crate::handle::{CommitId, Source};
use crate::state_error::StateError;
use crate::states::register_hidden;
use crate::sweep::Root;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::value::Value;

type Held<T> = Result<T, StateError>;

/// What all of one type share: each is a key.
struct Cells<T> {
    source: Source<u64, Held<T>>,
    next: AtomicU64,
}

/// A value that is set from outside and that functions may depend on: see [`Engine::mutable_state`].
///
/// ```
/// # use wellspring::{Cx, Engine, StateError};
/// let engine = Engine::new();
/// let (first, last) = (engine.mutable_state("A".to_owned())?, engine.mutable_state("B".to_owned())?);
/// let both = {
///     let (first, last) = (first.clone(), last.clone());
///     engine.function("both", move |cx: &Cx, (): &()| Ok::<_, StateError>(first.get(cx)? + &last.get(cx)?))?
/// };
/// assert_eq!(both.get(&engine, &())??, "AB");
/// first.set("X".to_owned());
/// assert_eq!(both.get(&engine, &())??, "XB");
/// last.set_error("no name");
/// assert_eq!(both.get(&engine, &())?.unwrap_err().to_string(), "no name");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A reader always gets the value of now without computing anything: there is no moment at which it is stale. A clone is another
/// handle to the same state; when the last one is dropped, what was made from it is stale.
pub struct MutableState<T: Value>(Arc<Cell<T>>);

struct Cell<T: Value> {
    source: Source<u64, Held<T>>,
    id: u64,
}

impl<T: Value> Drop for Cell<T> {
    fn drop(&mut self) {
        self.source.remove(&self.id);
    }
}

impl Engine {
    /// A state that holds `initial` until it is set.
    ///
    /// # Errors
    /// [`RegisterError::OutOfMemory`], [`RegisterError::TooManyFunctions`]: the first state of a type registers a function, the rest
    /// share it. [`RegisterError::Full`]: every state is a node.
    pub fn mutable_state<T: Value + PartialEq>(&self, initial: T) -> Result<MutableState<T>, RegisterError> {
        let cells = self.states().shared(|| {
            // A node has its value before its handle is given out. Only one that is set beyond its slot's last epoch is without for the
            // moment of its move to another slot.
            let moving = |_: &u64| Err(StateError::from(Fault::Gone));
            let source = register_hidden::<T, _>("MutableState", |name| self.source(name, moving))?;
            Ok(Cells { source, next: AtomicU64::new(0) })
        })?;
        // Relaxed: only uniqueness matters.
        let id = cells.next.fetch_add(1, Ordering::Relaxed);
        match cells.source.try_set(&id, Ok(initial)) {
            Ok(_) => Ok(MutableState(Arc::new(Cell { source: cells.source.clone(), id }))),
            Err(_) => Err(RegisterError::Full { name: cells.source.name().to_owned() }),
        }
    }
}

impl<T: Value> MutableState<T> {
    /// The value, or the error it was set to. Recorded if a context asks.
    ///
    /// # Errors
    /// The error it was set to; or a [`Fault`]: a context that has ended, or another engine's.
    pub fn get(&self, by: impl Ask) -> Result<T, StateError> {
        self.0.source.get(by, &self.0.id)?
    }

    /// The current generation: what to hold when its end matters.
    ///
    /// # Errors
    /// [`Fault`] as for [`get`](MutableState::get). An error that was set is in the generation.
    pub fn computed(&self, by: impl Ask) -> Result<Computed<Result<T, StateError>>, Fault> {
        self.0.source.computed(by, &self.0.id)
    }

    /// Sets the value: one commit; what was made from the old one is stale when this returns. An equal value changes nothing.
    #[track_caller]
    pub fn set(&self, value: T) -> CommitId {
        self.0.source.set(&self.0.id, Ok(value))
    }

    /// Sets an error in place of a value: readers get it until a value is set. The same error again changes nothing; an error that
    /// only looks the same is another one.
    #[track_caller]
    pub fn set_error(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommitId {
        self.0.source.set(&self.0.id, Err(StateError::new(error)))
    }

    /// Sets the value to what `change` makes of it; no set falls in between. An equal value changes nothing.
    ///
    /// Where others set the state meanwhile, `change` runs again with the newer value. It runs under no lock and may use the state.
    ///
    /// ```
    /// # use wellspring::Engine;
    /// # let engine = Engine::new();
    /// let count = engine.mutable_state(1)?;
    /// count.update(|n| n + 1)?;
    /// assert_eq!(count.get(&engine)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error the state holds: it stays.
    // The peer's updater invalidates even when nothing changed. Here one rule holds for every set, and `invalidate` is there for the rest.
    #[track_caller]
    pub fn update(&self, mut change: impl FnMut(&T) -> T) -> Result<CommitId, StateError> {
        let (source, graph) = (&self.0.source, &self.0.source.graph);
        let hash = source.hash(&self.0.id);
        loop {
            let Some((held, slot, seen)) = source.take_hit(hash, &self.0.id) else {
                // It is being set at this moment: the read waits for that.
                let _settled = source.data.obtain_key(graph, hash, &self.0.id, false)?;
                continue;
            };
            let new = match &held {
                Ok(value) => Ok(change(value)),
                Err(error) => return Err(error.clone()),
            };
            if source.data.cut_off.same(&held, &new) {
                return Ok(CommitId(graph.finished_commit()));
            }
            let version = graph.head(slot).version();
            if seen >= crate::verify::WORN {
                // Once in 2^32 changes the key moves to a fresh slot; of two threads that do so at once the later one counts.
                graph.commit(smallvec::smallvec![Root::Forget { slot, version }]);
                return Ok(source.set(&self.0.id, new));
            }
            let replacement = Arc::new(Replacement::new(slot, version, seen, crate::value::expose(new)));
            let commit = graph.commit(smallvec::smallvec![Root::Replace(replacement.clone())]);
            if replacement.is_done() {
                return Ok(CommitId(commit));
            }
        }
    }

    /// [`set`](MutableState::set) as a part of a batch: several states and sources change in one commit.
    ///
    /// # Panics
    /// If the batch is another engine's.
    #[track_caller]
    pub fn set_in(&self, batch: &mut Batch<'_>, value: T) {
        batch.set(&self.0.source, &self.0.id, Ok(value));
    }

    /// Makes everything made from the value stale, although the value stays as it is.
    #[track_caller]
    pub fn invalidate(&self) -> CommitId {
        self.0.source.invalidate(&self.0.id)
    }
}

impl<T: Value> Clone for MutableState<T> {
    fn clone(&self) -> MutableState<T> {
        MutableState(self.0.clone())
    }
}

impl<T: Value> std::fmt::Debug for MutableState<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MutableState").field("function", &self.0.source.name()).field("id", &self.0.id).finish()
    }
}

/// A value for a source that is set if the source is still at the epoch `seen`. The word is the sweep's.
pub(crate) struct Replacement {
    pub(crate) slot: u32,
    pub(crate) version: u32,
    pub(crate) seen: u32,
    pub(crate) word: u64,
    done: AtomicBool,
}

impl Replacement {
    fn new(slot: u32, version: u32, seen: u32, word: u64) -> Replacement {
        Replacement { slot, version, seen, word, done: AtomicBool::new(false) }
    }

    /// The sweep says whether it was set.
    pub(crate) fn answer(&self, done: bool) {
        // Relaxed: the commits' queue is locked between this and the end of the commit, which comes before `is_done`.
        self.done.store(done, Ordering::Relaxed);
    }

    /// Whether it was set, once its commit is over.
    fn is_done(&self) -> bool {
        // Relaxed: see `answer`.
        self.done.load(Ordering::Relaxed)
    }
}
