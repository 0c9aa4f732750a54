//! How calls are made.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::hash::Hash;
use crate::remote::{CallError, Connected};
use crate::trace_context::TraceContext;
use crate::wire::{Headers, limits};

type Header = (Cow<'static, str>, Cow<'static, str>);

/// How the calls of a [`Remote`](crate::Remote) are made: see [`Remote::with`](crate::Remote::with). Without any, they take whatever time they take,
/// and go on with the trace of the body that makes them.
#[derive(Clone, Default)]
pub struct CallOptions {
    connect_timeout: Option<Duration>,
    timeout: Option<Duration>,
    headers: Vec<Header>,
    trace: Option<TraceContext>,
}

impl fmt::Debug for CallOptions {
    /// Without what the headers say, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.headers.iter().map(|(key, _)| &**key).collect();
        f.debug_struct("CallOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("headers", &keys)
            .field("trace", &self.trace)
            .finish()
    }
}

impl CallOptions {
    /// None.
    pub fn new() -> CallOptions {
        CallOptions::default()
    }

    /// How long a call that is made without a connection waits for one: then it fails with [`CallError::NotConnected`], and is not sent. Nothing
    /// at all, if this is zero.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> CallOptions {
        CallOptions { connect_timeout: Some(timeout), ..self }
    }

    /// How long a call may take until its result has come, all in all, also if it is made again elsewhere: then it fails with
    /// [`CallError::TimedOut`], and the other end is told that nobody waits for it. What it has done by then it has done.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> CallOptions {
        CallOptions { timeout: Some(timeout), ..self }
    }

    /// A header, which the other end's [`Caller`](crate::Caller) has. Keys that begin with `~` or `#`, and `v`, are the protocol's own: a call with one
    /// fails.
    #[must_use]
    pub fn header(mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> CallOptions {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// The trace that calls are part of, in place of that of the body that makes them.
    #[must_use]
    pub fn trace(self, trace: TraceContext) -> CallOptions {
        CallOptions { trace: Some(trace), ..self }
    }

    /// But for waiting for a connection: that is over.
    pub(crate) fn connected(&self) -> CallOptions {
        CallOptions { timeout: self.timeout, ..CallOptions::default() }
    }

    /// Waits for a call, as long as it may take, since it was first made.
    pub(crate) async fn limit<T>(
        &self,
        began: Instant,
        mut connected: watch::Receiver<Connected>,
        call: Pin<&mut impl Future<Output = Result<T, CallError>>>,
    ) -> Result<T, CallError> {
        let connecting = async {
            match self.connect_timeout {
                Some(limit) if timeout(limit, connected.wait_for(|state| *state == Connected::Yes)).await.is_err() => limit,
                _ => std::future::pending().await,
            }
        };
        let running = async {
            match self.timeout {
                Some(limit) => {
                    // A time that no clock reaches is none.
                    match began.checked_add(limit) {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                    limit
                }
                None => std::future::pending().await,
            }
        };
        // The call first: its time begins when it is made, and a result that has come is one.
        tokio::select! {
            biased;
            result = call => result,
            limit = connecting => Err(CallError::NotConnected(limit)),
            limit = running => Err(CallError::TimedOut(limit)),
        }
    }
}

/// The headers that a call is sent with, and sent again.
#[derive(Default)]
pub(crate) struct Sent(Box<[Header]>);

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sent")
    }
}

impl Sent {
    /// What is to be sent with a call that is made just now.
    pub(crate) fn of(options: Option<&CallOptions>) -> Result<Sent, CallError> {
        let trace = options.and_then(|options| options.trace.clone()).or_else(TraceContext::current);
        let headers = options.map_or(&[][..], |options| &options.headers);
        if trace.is_none() && headers.is_empty() {
            return Ok(Sent::default());
        }
        let mut sent = Vec::with_capacity(headers.len() + 2);
        for (key, value) in headers {
            if key.is_empty() || key.starts_with(['~', '#']) || key == "v" {
                return Err(CallError::Unsendable(format!("the header `{key}` is the protocol's own")));
            }
            if key.len() > limits::HEADER_KEY || value.len() > limits::HEADER_VALUE {
                return Err(CallError::Unsendable(format!("the header `{key}` is too long")));
            }
            sent.push((key.clone(), value.clone()));
        }
        if let Some(trace) = trace {
            sent.push((Headers::TRACE_PARENT.into(), trace.parent().to_owned().into()));
            sent.extend(trace.state().map(|state| (Headers::TRACE_STATE.into(), state.to_owned().into())));
        }
        match sent.len() {
            count if count > limits::HEADERS => {
                Err(CallError::Unsendable(format!("a call has {count} headers, and may have {}", limits::HEADERS)))
            }
            _ => Ok(Sent(sent.into())),
        }
    }

    /// Also with the hash of the value that the caller has: then the other end need not send it again.
    pub(crate) fn knowing(self, known: Option<&Hash>) -> Sent {
        match known {
            // Without it the value comes whole, where a header too many would be refused.
            Some(_) if self.0.len() >= limits::HEADERS => self,
            None => self,
            Some(known) => {
                let mut sent = Vec::from(self.0);
                sent.push((Headers::HASH.into(), known.to_string().into()));
                Sent(sent.into())
            }
        }
    }

    /// As a message has them.
    pub(crate) fn borrowed(&self) -> Vec<(&str, &str)> {
        // Usually there are none, and nothing is allocated.
        self.0.iter().map(|(key, value)| (&**key, &**value)).collect()
    }
}
