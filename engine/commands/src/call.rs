//! A command on its way through the filters to its handler, and the reply on its way back.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use wellspring::CommitId;

use crate::command::Command;
use crate::id::{CommandId, OperationId};
use crate::position::LogPosition;

type Extension = Arc<dyn Any + Send + Sync>;

/// A command being called: what a filter (a `tower` layer) sees. Cloning it is cheap, and a clone is the same call: it has the same
/// operation, so that trying it again after it was committed does not do it again.
#[derive(Clone)]
pub struct Call {
    pub(crate) name: &'static str,
    pub(crate) kind: TypeId,
    pub(crate) command: Arc<dyn Any + Send + Sync>,
    pub(crate) id: Option<CommandId>,
    pub(crate) operation: OperationId,
    extensions: HashMap<TypeId, Extension>,
}

impl Call {
    /// A call of a command.
    pub fn new<C: Command>(command: C) -> Call {
        Call {
            name: C::NAME,
            kind: TypeId::of::<C>(),
            command: Arc::new(command),
            id: None,
            operation: OperationId::new(),
            extensions: HashMap::new(),
        }
    }

    /// Names the call, so that a repeat of it, also by another server and after a crash, gets the journaled result.
    pub fn with_id(mut self, id: CommandId) -> Call {
        self.id = Some(id);
        self
    }

    /// Gives something along for filters and handlers: who asks, a deadline. One value of each type.
    pub fn with<T: Send + Sync + 'static>(mut self, value: T) -> Call {
        self.extensions.insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    /// The command's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The caller's name for the call.
    pub fn id(&self) -> Option<&CommandId> {
        self.id.as_ref()
    }

    /// The operation it will be, the same over every retry.
    pub fn operation(&self) -> OperationId {
        self.operation
    }

    /// The command, if it is of this type.
    pub fn command<C: Command>(&self) -> Option<&C> {
        self.command.downcast_ref()
    }

    /// What was given along.
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("name", &self.name).field("id", &self.id).field("operation", &self.operation).finish_non_exhaustive()
    }
}

/// What a call came to, as filters see it.
pub struct Reply {
    pub(crate) value: Box<dyn Any + Send>,
    pub(crate) position: LogPosition,
    pub(crate) commit: CommitId,
    pub(crate) repeated: bool,
}

impl Reply {
    /// The result, if it is of this type.
    pub fn value<T: 'static>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }

    /// Where the operation is in the log.
    pub fn position(&self) -> LogPosition {
        self.position
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("position", &self.position).field("repeated", &self.repeated).finish_non_exhaustive()
    }
}

/// A command that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What its handler returned.
    pub value: T,
    /// Where the operation is in the log: what another server can [wait for](crate::Server::wait_for).
    pub position: LogPosition,
    /// The commit of this server's engine by which it is stale here.
    pub commit: CommitId,
    /// Whether the result was journaled by an earlier call with the same id: the handler did not run.
    pub repeated: bool,
}
