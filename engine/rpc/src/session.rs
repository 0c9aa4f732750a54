//! Who is let in, and as whom.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use futures_util::FutureExt;
use thiserror::Error;
use tokio::time::timeout;

use crate::hub::Visitor;

/// What authentication says of a client: a value of the application's, which says by being equal that two are the same identity.
#[derive(Clone)]
pub(crate) struct Session(Arc<dyn Identity>);

trait Identity: Any + Send + Sync {
    fn is(&self, other: &dyn Identity) -> bool;
    fn value(&self) -> &dyn Any;
}

impl<S: Eq + Send + Sync + 'static> Identity for S {
    fn is(&self, other: &dyn Identity) -> bool {
        other.value().downcast_ref::<S>() == Some(self)
    }

    fn value(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for Session {
    /// Nothing of what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    pub(crate) fn get<S: 'static>(&self) -> Option<&S> {
        self.0.value().downcast_ref()
    }

    /// Whether both are the same identity. A comparison that panics says no.
    pub(crate) fn is_same(one: Option<&Session>, other: Option<&Session>) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => catch_unwind(AssertUnwindSafe(|| one.0.is(&*other.0))).unwrap_or(false),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Why a client is not let in: a status for who has come by HTTP, a close code for others. Both go to a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("refused with status {status}: {reason}")]
pub struct Refusal {
    status: StatusCode,
    code: u16,
    reason: Cow<'static, str>,
}

impl Refusal {
    /// With a status. The close code is 1008.
    pub fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, code: 1008, reason: reason.into() }
    }

    /// It does not say who it is, or not so that it could be believed: 401.
    pub fn unauthorized(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, reason)
    }

    /// Whoever it is, it may not: 403.
    pub fn forbidden(reason: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::FORBIDDEN, reason)
    }

    /// Another close code. Not 4001, on which clients give up for good.
    #[must_use]
    pub fn close_code(self, code: u16) -> Refusal {
        Refusal { code, ..self }
    }

    /// For who has come by HTTP.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// For others.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// For people.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn not_proved() -> Refusal {
        Refusal::forbidden("the client has not proved that it is the one that was connected before")
    }

    pub(crate) fn unclear() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "it cannot be found out who the client is")
    }
}

/// What finds out who a visitor is.
pub(crate) struct Authenticate(Box<dyn Fn(Visitor) -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = Result<Session, Refusal>> + Send>>;

impl fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticate")
    }
}

impl Authenticate {
    pub(crate) fn new<S, F, U>(run: F) -> Authenticate
    where
        S: Eq + Send + Sync + 'static,
        F: Fn(Visitor) -> U + Send + Sync + 'static,
        U: Future<Output = Result<S, Refusal>> + Send + 'static,
    {
        Authenticate(Box::new(move |visitor| {
            let answer = run(visitor);
            Box::pin(async move { answer.await.map(|session| Session(Arc::new(session))) })
        }))
    }

    /// One that panics, or takes longer than it may, lets nobody in.
    pub(crate) async fn ask(&self, visitor: Visitor, limit: Duration) -> Result<Session, Refusal> {
        let asked = AssertUnwindSafe(async { (self.0)(visitor).await }).catch_unwind();
        let Ok(Ok(answer)) = timeout(limit, asked).await else { return Err(Refusal::unclear()) };
        answer
    }
}
