//! Which trace a call is part of, as the W3C writes it.
//!
//! A body's trace is at hand on the thread while the body is polled, so that what it calls passes it on without being told. It is swapped in and out
//! with each poll, and never held across an await.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use crate::wire::Headers;

/// Bytes of a `traceparent`.
const PARENT: usize = 55;
/// Bytes of a `tracestate`. A longer one is not passed on.
const STATE: usize = 512;

thread_local! {
    static CURRENT: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
    /// Whether there is one: it is asked for every call, and this has no destructor to be asked about.
    static ANY: Cell<bool> = const { Cell::new(false) };
}

/// A trace, and the span of it that a call is made from: `traceparent` and `tracestate` of the W3C's Trace Context. Clones are the same.
///
/// A call that comes with one has it in its [`Caller`](crate::Caller), and what its body calls goes on with it. This crate makes no spans of its own
/// in it: who records spans calls within the context of one, see [`scope`](TraceContext::scope).
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext(Arc<Texts>);

#[derive(PartialEq, Eq)]
struct Texts {
    parent: Box<str>,
    state: Option<Box<str>>,
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceContext").field(&self.parent()).finish()
    }
}

impl TraceContext {
    /// From both texts. None if the `traceparent` is not one, and then whatever comes with it is of no meaning; a `tracestate` of more than 512
    /// bytes, or of anything but printable ASCII, is left out.
    pub fn new(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        let state = state.filter(|state| (1..=STATE).contains(&state.len()) && state.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        is_parent(parent).then(|| TraceContext(Arc::new(Texts { parent: parent.into(), state: state.map(Box::from) })))
    }

    /// Of a message.
    pub(crate) fn of(headers: &Headers<'_>) -> Option<TraceContext> {
        TraceContext::new(headers.get(Headers::TRACE_PARENT)?, headers.get(Headers::TRACE_STATE))
    }

    /// The `traceparent`.
    pub fn parent(&self) -> &str {
        &self.0.parent
    }

    /// The `tracestate`, which is the tracing systems' own.
    pub fn state(&self) -> Option<&str> {
        self.0.state.as_deref()
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0.parent[3..35]
    }

    /// The id of the span that the call is made from: 16 hexadecimal digits.
    pub fn span_id(&self) -> &str {
        &self.0.parent[36..52]
    }

    /// Whether the caller may have recorded it.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.0.parent[53..], 16).is_ok_and(|flags| flags & 1 == 1)
    }

    /// The one of the body that is polled on this thread, if it has one.
    pub fn current() -> Option<TraceContext> {
        if !ANY.get() {
            return None;
        }
        // None at the end of a thread, in whose destructors calls may be made.
        CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
    }

    /// What is called from within a future goes on with this.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            let _current = self.enter();
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Until it is dropped, what is called on this thread goes on with this.
    pub(crate) fn enter(&self) -> Entered {
        ANY.set(true);
        Entered(CURRENT.replace(Some(self.clone())))
    }
}

/// See [`TraceContext::enter`].
#[derive(Debug)]
pub(crate) struct Entered(Option<TraceContext>);

impl Drop for Entered {
    fn drop(&mut self) {
        ANY.set(self.0.is_some());
        CURRENT.set(self.0.take());
    }
}

/// Of version 0, or of a later one as far as that says the same: nothing longer fits into a call.
fn is_parent(text: &str) -> bool {
    let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &str, length| digits(part, length) && part.bytes().any(|byte| byte != b'0');
    if text.len() != PARENT {
        return false;
    }
    let mut parts = text.split('-');
    let mut part = || parts.next().unwrap_or_default();
    let (version, trace, span, flags) = (part(), part(), part(), part());
    digits(version, 2) && version != "ff" && is_id(trace, 32) && is_id(span, 16) && digits(flags, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_taken_apart_and_one_that_is_none_is_not_taken() {
        let trace = TraceContext::new(PARENT, Some("vendor=1,other=2")).expect("well formed");
        assert_eq!((trace.trace_id(), trace.span_id()), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"));
        assert_eq!((trace.parent(), trace.state(), trace.is_sampled()), (PARENT, Some("vendor=1,other=2"), true));
        assert!(!TraceContext::new(&PARENT.replace("-01", "-02"), None).expect("well formed").is_sampled());
        for wrong in [
            "",
            "00",
            &PARENT[1..],
            &PARENT.to_uppercase(),
            &PARENT.replace("00-", "ff-"),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
            &PARENT.replace("c-b", "-cb"),
            &format!("{PARENT}-what"),
            &PARENT.replace("-01", "-0\u{e9}"),
            &PARENT.replace("7651916cd43", "7651916\u{1F600}"),
        ] {
            assert_eq!(TraceContext::new(wrong, None), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_passed_on_is_left_out() {
        for wrong in ["", "a=\u{e9}", "a=1\n", &"x".repeat(513)] {
            assert_eq!(TraceContext::new(PARENT, Some(wrong)).expect("well formed").state(), None, "{wrong}");
        }
    }

    #[test]
    fn there_is_none_outside_of_a_scope_also_after_a_panic() {
        let trace = TraceContext::new(PARENT, None).expect("well formed");
        let panicked = std::panic::catch_unwind(|| {
            let _current = trace.enter();
            drop(trace.enter());
            assert_eq!(TraceContext::current().as_ref(), Some(&trace));
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(TraceContext::current(), None);
    }
}
