//! What can go wrong with the engine's part of a read, and at registration.

use std::any::Any;
use std::fmt;

use crate::flight::panic_message;

/// What went wrong with the engine's part of a read. Never cached, and neither is a result that was made from one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The function's body (or the `Eq`, `Hash` or `Clone` it needs) panicked. The next read runs it again.
    Panicked {
        /// The function.
        function: String,
        /// The panic's message.
        message: String,
    },
    /// The value was asked for while it was being computed for that very question.
    Cycle {
        /// The functions on the cycle, the one asked for first.
        functions: Vec<String>,
    },
    /// The engine is at its limit of nodes (see `EngineBuilder::max_nodes`). Remove keys to go on.
    Full,
    /// The key is larger than the function admits (see `Define::key_limit`).
    KeyTooLarge {
        /// The function.
        function: String,
        /// The key's size in bytes, as the function measures it.
        bytes: usize,
        /// What it admits.
        limit: usize,
    },
    /// No live node of the function has this id: it was never given out here, or its key was removed since.
    UnknownNode {
        /// The function asked.
        function: String,
        /// The id.
        id: crate::NodeId,
    },
    /// A read with a promise was given up: commits overtook the value at each try.
    Contended {
        /// The function.
        function: String,
        /// How often it was computed or verified.
        tries: u32,
    },
    /// The engine has not given out this commit number.
    UnknownCommit {
        /// The number asked for.
        asked: crate::CommitId,
        /// The last one given out.
        last: crate::CommitId,
    },
    /// The engine that owns the function was dropped.
    Gone,
    /// The read went through a context whose computation has ended: keep reads inside the function's own future.
    Escaped,
    /// Waiting here would block the thread that must make progress: use the asynchronous read.
    WouldBlock,
    /// The context or pin belongs to another engine.
    ForeignEngine,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked { function, message } => write!(f, "`{function}` panicked: {message}"),
            Fault::Cycle { functions } => write!(f, "a cycle: {}", functions.join(" -> ")),
            Fault::Full => f.write_str("the engine holds as many nodes as it may; remove keys or raise `max_nodes`"),
            Fault::KeyTooLarge { function, bytes, limit } => {
                write!(f, "a key of {bytes} bytes for `{function}`, which admits {limit}; raise its `key_limit` or use a shorter key")
            }
            Fault::UnknownNode { function, id } => {
                write!(f, "`{function}` has no node {id:?}: it was never its own, or its key was removed; look the key up again")
            }
            Fault::Contended { function, tries } => {
                write!(f, "`{function}` was overtaken by commits at each of {tries} tries; use `get`, or change its sources less often")
            }
            Fault::UnknownCommit { asked, last } => {
                write!(
                    f,
                    "commit {} is not this engine's: its last is {}; use a number that a commit of this engine returned",
                    asked.0, last.0
                )
            }
            Fault::Gone => f.write_str("the engine was dropped; keep an `Engine` handle while its functions are in use"),
            Fault::Escaped => f.write_str("a context was used after its computation ended; read inside the function's own body"),
            Fault::WouldBlock => f.write_str("waiting here would block the thread that must make progress; use the asynchronous read"),
            Fault::ForeignEngine => f.write_str("the context or pin belongs to another engine"),
        }
    }
}

impl std::error::Error for Fault {}

/// A fault on its way out of a body.
struct Raised(Fault);

/// Ends a body of the engine's own that met a fault and has no value to return for it: whoever asked gets that fault as it is.
///
/// An unwind without the panic hook: a result in place of the value would cost every body that meets none.
pub(crate) fn raise(fault: Fault) -> ! {
    std::panic::resume_unwind(Box::new(Raised(fault)))
}

impl Fault {
    /// What made a body of this function unwind.
    pub(crate) fn of_panic(function: String, panic: Box<dyn Any + Send>) -> Fault {
        match panic.downcast::<Raised>() {
            Ok(raised) => raised.0,
            Err(panic) => Fault::Panicked { function, message: panic_message(&*panic) },
        }
    }
}

/// Why a function could not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is taken; names are stable across processes, so each is given once.
    Duplicate {
        /// The name.
        name: String,
    },
    /// The option is about values that a body makes; a source's are set.
    NotForSources {
        /// The name.
        name: String,
        /// The option.
        option: &'static str,
    },
    /// The option is about values that are set; a function's are made.
    OnlyForSources {
        /// The name.
        name: String,
        /// The option.
        option: &'static str,
    },
    /// `refresh_ahead` without an `expire_after` that is longer.
    NothingToRefresh {
        /// The name.
        name: String,
    },
    /// The option needs work in the background.
    NeedsSpawner {
        /// The name.
        name: String,
        /// The option.
        option: &'static str,
    },
    /// The option tells a changed value from an equal one, and the function has no rule for that.
    NeedsCutOff {
        /// The name.
        name: String,
        /// The option.
        option: &'static str,
    },
    /// The engine of the function to build on was dropped.
    Gone {
        /// The name.
        name: String,
    },
    /// The engine holds as many functions as it can number.
    TooManyFunctions,
    /// The engine is at its limit of nodes (see `EngineBuilder::max_nodes`), and a state needs one.
    Full {
        /// What the state is.
        name: String,
    },
    /// The system has no memory or no addresses left for the function's key table.
    OutOfMemory {
        /// The name.
        name: String,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::Duplicate { name } => {
                write!(f, "a function named `{name}` is registered already; choose another name (or `service_named` for a second instance)")
            }
            RegisterError::NotForSources { name, option } => {
                write!(f, "`{name}` is a source, whose values are set: `{option}` is for functions")
            }
            RegisterError::OnlyForSources { name, option } => {
                write!(f, "`{name}` is a function, whose values are made: `{option}` is for sources")
            }
            RegisterError::NothingToRefresh { name } => {
                write!(f, "`{name}` has nothing to refresh ahead of: give it an `expire_after` longer than its `refresh_ahead`")
            }
            RegisterError::NeedsSpawner { name, option } => {
                write!(f, "`{option}` of `{name}` works in the background: give the engine a `spawner`, or leave the option out")
            }
            RegisterError::NeedsCutOff { name, option } => {
                write!(f, "`{option}` of `{name}` tells of changes only: say what one is with `cut_off_eq`, `cut_off_hash` or `cut_off_by`")
            }
            RegisterError::Gone { name } => {
                write!(
                    f,
                    "`{name}` is built on a function whose engine was dropped; keep an `Engine` handle while its functions are in use"
                )
            }
            RegisterError::TooManyFunctions => f.write_str("the engine holds as many functions as it can number"),
            RegisterError::Full { name } => {
                write!(f, "the engine holds as many nodes as it may, and a `{name}` needs one; remove keys or raise `max_nodes`")
            }
            RegisterError::OutOfMemory { name } => {
                write!(f, "no memory for the key table of `{name}`; raise the limit on addresses (`ulimit -v`) or lower `max_nodes`")
            }
        }
    }
}

impl std::error::Error for RegisterError {}
