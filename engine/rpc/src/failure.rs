//! Why a call fails, as its caller sees it.

use std::borrow::Cow;
use std::fmt;

use wellspring::Fault;

use crate::wire::ErrorInfo;

/// A failed call: the name of a type, as .NET spells it, and what it says. Both go to the other end as they are: nothing goes into a message
/// that a stranger must not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    type_ref: Cow<'static, str>,
    message: Cow<'static, str>,
}

impl Failure {
    /// One that has no type of its own.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Failure {
        Failure::typed(ErrorInfo::REMOTE, message)
    }

    /// One of a type: `Full.Type.Name, Assembly`. See [`ErrorInfo`] for what becomes of it, and for some names.
    pub fn typed(type_ref: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Failure {
        Failure { type_ref: type_ref.into(), message: message.into() }
    }

    /// The type's name, up to the comma.
    pub fn type_name(&self) -> &str {
        self.type_ref.split(',').next().unwrap_or_default().trim()
    }

    /// What it says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the other end has given the call up, as .NET says that: nothing is known of the value, and whoever asks again may get one.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self.type_name(), "System.OperationCanceledException" | "System.Threading.Tasks.TaskCanceledException")
    }

    /// As it travels.
    pub(crate) fn info(&self) -> ErrorInfo<'_> {
        ErrorInfo::new(&*self.type_ref, &*self.message)
    }
}

impl From<Fault> for Failure {
    /// What a function's body said in its panic is not for strangers.
    fn from(fault: Fault) -> Failure {
        match fault {
            Fault::Panicked { .. } => Failure::new("the function panicked"),
            fault => Failure::typed(ErrorInfo::INVALID_OPERATION, fault.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
