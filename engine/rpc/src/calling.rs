//! A call on its way to its body: who makes it, and whether it may.

use std::cell::OnceCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Level, Span};

use crate::call::Call;
use crate::caller::Caller;
use crate::failure::Failure;
use crate::method_limits::{MethodLimits, Place};
use crate::peer::Peer;
use crate::service::Method;
use crate::slots::Body;
use crate::trace_context::{Entered, TraceContext};
use crate::wire::{ErrorInfo, Headers, MethodId};

/// A call whose arguments are read just now, for those that want to know who makes it.
pub struct Calling<'a> {
    peer: &'a Arc<Peer>,
    method: &'a Method,
    headers: &'a Headers<'a>,
    deadline: Option<Instant>,
    trace: Option<TraceContext>,
    caller: OnceCell<Caller>,
}

impl fmt::Debug for Calling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("method", &self.method.id).finish_non_exhaustive()
    }
}

impl<'a> Calling<'a> {
    pub(crate) fn new(peer: &'a Arc<Peer>, method: &'a Method, headers: &'a Headers<'a>) -> Calling<'a> {
        let trace = if headers.is_empty() { None } else { TraceContext::of(headers) };
        let timeout = method.limits.as_ref().and_then(|limited| limited.limits.timeout);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Calling { peer, method, headers, deadline, trace, caller: OnceCell::new() }
    }

    /// Who makes it. Made for whoever asks first.
    pub fn caller(&self) -> &Caller {
        self.caller.get_or_init(|| Caller {
            peer: self.peer.clone(),
            session: self.peer.other.session(),
            deadline: self.deadline,
            trace: self.trace.clone(),
            headers: (!self.headers.is_empty()).then(|| self.headers.iter().map(|(key, value)| (key.into(), value.into())).collect()),
        })
    }

    /// Asks whether it may be made, and takes its place among those that run. Nothing where nobody has anything to say to that, as is usual.
    pub(crate) fn enter(&self, argument_bytes: usize) -> Result<Option<Under>, Failure> {
        let rules = &self.peer.offer.rules;
        let name = self.method.id.name();
        if let Some(authorize) = &rules.authorize {
            authorize.ask(self.caller(), name)?;
        }
        // Relaxed: it is the reader who asks, and nobody else adds to them.
        if self.peer.other.running.load(Ordering::Relaxed) >= rules.at_once {
            return Err(too_many("calls of this client", rules.at_once));
        }
        let is_traced = tracing::enabled!(target: "wellspring::rpc", Level::DEBUG);
        if !is_traced && self.trace.is_none() && self.method.limits.is_none() {
            return Ok(None);
        }
        let mut place = None;
        if let Some(limited) = &self.method.limits {
            let MethodLimits { at_once, argument_bytes: most, .. } = limited.limits;
            if argument_bytes > most {
                let why = format!("The arguments of '{name}' have {argument_bytes} bytes, and may have {most}.");
                return Err(Failure::typed(ErrorInfo::ARGUMENT, why));
            }
            if at_once != usize::MAX {
                place = Some(Place::take(&limited.running, at_once).ok_or_else(|| too_many(&format!("calls of '{name}'"), at_once))?);
            }
        }
        let span = is_traced.then(|| {
            let trace = self.trace.as_ref().map(TraceContext::trace_id);
            tracing::debug_span!(target: "wellspring::rpc", "call", method = name, caller = self.peer.other.number, trace)
        });
        let late = self.deadline.map(|at| (at, self.method.id.clone()));
        Ok(Some(Under { trace: self.trace.clone(), span, late, _place: place }))
    }
}

fn too_many(what: &str, most: usize) -> Failure {
    Failure::typed(ErrorInfo::INVALID_OPERATION, format!("More than {most} {what} at once: try again later."))
}

/// What holds while a body runs.
#[derive(Debug)]
pub(crate) struct Under {
    trace: Option<TraceContext>,
    span: Option<Span>,
    /// When it is dropped, and what was called.
    late: Option<(Instant, MethodId)>,
    _place: Option<Place>,
}

impl Under {
    /// Until it is dropped, what is done on this thread is done for the call.
    pub(crate) fn scope(&self) -> (Option<Entered>, Option<tracing::span::EnteredSpan>) {
        (self.trace.as_ref().map(TraceContext::enter), self.span.clone().map(Span::entered))
    }

    /// A body that was not over at once, until it is, or is late.
    pub(crate) async fn run(self, body: Body, call: Call) {
        let Under { trace, span, late, _place } = self;
        let body = async {
            match trace {
                Some(trace) => trace.scope(body).await,
                None => body.await,
            }
        };
        // The body is dropped after its caller has heard why: dropped before, it would say that it was given up.
        let mut body = pin!(body.instrument(span.unwrap_or_else(Span::none)));
        match late {
            None => body.await,
            Some((at, method)) => {
                if timeout_at(at, body.as_mut()).await.is_err() {
                    call.fail(&Failure::typed(ErrorInfo::TIMEOUT, format!("The call of '{}' takes too long.", method.name())));
                }
            }
        }
    }
}

/// What says which calls may be made.
pub(crate) struct Authorize(Box<Check>);

type Check = dyn Fn(&Caller, &str) -> Result<(), Failure> + Send + Sync;

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorize")
    }
}

impl Authorize {
    pub(crate) fn new(check: impl Fn(&Caller, &str) -> Result<(), Failure> + Send + Sync + 'static) -> Authorize {
        Authorize(Box::new(check))
    }

    /// One that panics says no.
    fn ask(&self, caller: &Caller, method: &str) -> Result<(), Failure> {
        let may = catch_unwind(AssertUnwindSafe(|| (self.0)(caller, method)));
        let may = may.unwrap_or_else(|_| Err(Failure::new("it cannot be found out whether the call may be made")));
        if may.is_err() {
            tracing::debug!(target: "wellspring::rpc", method, caller = caller.number(), "a call that may not be made");
        }
        may
    }
}
