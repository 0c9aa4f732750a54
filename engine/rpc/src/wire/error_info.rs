//! Failures, as they travel.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::borrowed::Text;

/// A failure: the name of its type, as .NET spells it, and what it says. Both are empty where a stream ends without one.
///
/// A .NET caller makes an exception of that type, if it has it and its name ends in `Exception` or `Error`. A TypeScript caller sees the name up to the
/// comma.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorInfo<'a> {
    /// `Full.Type.Name, Assembly`.
    #[serde(rename = "TypeRef", alias = "typeRef", borrow, default, deserialize_with = "or_empty")]
    pub type_ref: Cow<'a, str>,
    /// For people.
    #[serde(rename = "Message", alias = "message", borrow, default, deserialize_with = "or_empty")]
    pub message: Cow<'a, str>,
}

impl<'a> ErrorInfo<'a> {
    /// The type of failures that have none of their own.
    pub const REMOTE: &'static str = "ActualLab.Serialization.RemoteException, ActualLab.Core";
    /// Of the protocol's own: no such method, for example.
    pub const RPC: &'static str = "ActualLab.Rpc.RpcException, ActualLab.Rpc";
    /// Of arguments that cannot be.
    pub const ARGUMENT: &'static str = "System.ArgumentException, System.Private.CoreLib";
    /// Of what cannot be done now.
    pub const INVALID_OPERATION: &'static str = "System.InvalidOperationException, System.Private.CoreLib";
    /// Of what took too long.
    pub const TIMEOUT: &'static str = "System.TimeoutException, System.Private.CoreLib";
    /// Of what the caller may not do.
    pub const UNAUTHORIZED: &'static str = "System.UnauthorizedAccessException, System.Private.CoreLib";
    /// Of what was given up. A .NET client asks again.
    pub const CANCELED: &'static str = "System.OperationCanceledException, System.Private.CoreLib";

    /// Of a call that another server has to be asked. A .NET client looks for that one, and asks it.
    pub const REROUTE: &'static str = "ActualLab.Rpc.RpcRerouteException, ActualLab.Rpc";

    /// One of a type.
    pub fn new(type_ref: impl Into<Cow<'a, str>>, message: impl Into<Cow<'a, str>>) -> ErrorInfo<'a> {
        ErrorInfo { type_ref: type_ref.into(), message: message.into() }
    }

    /// What a call of a method gets that is not there.
    pub fn no_such_method(method: impl std::fmt::Display) -> ErrorInfo<'static> {
        ErrorInfo::new(ErrorInfo::RPC, format!("Endpoint not found: '{method}'."))
    }

    /// Whether it is no failure at all.
    pub fn is_none(&self) -> bool {
        self.type_ref.is_empty() && self.message.is_empty()
    }
}

/// Null, where a peer gives that for empty.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    Ok(Option::<Text<'de>>::deserialize(deserializer)?.map_or(Cow::Borrowed(""), |text| text.0))
}
