//! Rows, and what a handler does with them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::catch::said;
use crate::draft::Draft;
use crate::event::NewEvent;
use crate::memory::Memory;
use crate::op::Op;
use crate::record::LoggedKey;

type BoxError = Box<dyn Error + Send + Sync>;
type Closure = Box<dyn FnOnce(&mut Write<'_>) -> Result<(), BoxError> + Send>;

/// All rows: one table of texts.
pub type Rows = BTreeMap<String, String>;

/// What a handler has asked for: it is done at the commit.
#[derive(Default)]
pub struct MemoryTx(Mutex<Vec<Closure>>);

impl fmt::Debug for MemoryTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTx")
    }
}

/// The rows during a commit, and the operation.
#[derive(Debug)]
pub struct Write<'c> {
    rows: &'c mut Rows,
    draft: &'c mut Draft,
}

impl Deref for Write<'_> {
    type Target = Rows;
    fn deref(&self) -> &Rows {
        self.rows
    }
}

impl DerefMut for Write<'_> {
    fn deref_mut(&mut self) -> &mut Rows {
        self.rows
    }
}

impl Write<'_> {
    /// Adds a key that is stale by the operation.
    pub fn add_key(&mut self, key: LoggedKey) {
        self.draft.add_key(key);
    }

    /// Records that a key is stale by this operation, as [`Op::invalidate`](crate::Op::invalidate) does.
    ///
    /// # Errors
    /// [`InvalidateError`](crate::InvalidateError) if the key would not arrive as itself.
    pub fn invalidate<K, Q>(&mut self, function: &crate::Logged<K>, key: &Q) -> Result<(), crate::InvalidateError>
    where
        K: wellspring::Key + serde::Serialize + serde::de::DeserializeOwned,
        Q: ?Sized + wellspring::Lookup<K>,
    {
        self.add_key(function.key(key)?);
        Ok(())
    }

    /// Adds an event.
    pub fn add_event(&mut self, event: NewEvent) {
        self.draft.add_event(event);
    }
}

impl MemoryTx {
    pub(super) fn run(self, rows: &mut Rows, draft: &mut Draft) -> Result<(), BoxError> {
        let closures = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        closures.into_iter().try_for_each(|closure| {
            // The rows are a copy: whatever a panic leaves behind in them is thrown away.
            catch_unwind(AssertUnwindSafe(|| closure(&mut Write { rows, draft })))
                .unwrap_or_else(|panic| Err(format!("a closure that was to write panicked: {}", said(panic)).into()))
        })
    }
}

impl Op<Memory> {
    /// Writes rows at the commit, after what was written before it. An error refuses the whole operation.
    pub fn write<E: Into<BoxError>>(&self, write: impl FnOnce(&mut Write<'_>) -> Result<(), E> + Send + 'static) {
        let closure: Closure = Box::new(|rows| write(rows).map_err(Into::into));
        self.tx().0.lock().unwrap_or_else(PoisonError::into_inner).push(closure);
    }
}
