//! User code that panics must not take with it the task that has called it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs what makes a future, and the future; an `Err` is what a panic in either said.
///
/// Nothing of either is used again after a panic, so that nothing half-done can be seen.
pub(crate) async fn caught<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, String> {
    let mut future = pin!(catch_unwind(AssertUnwindSafe(make)).map_err(said)?);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(panic) => Poll::Ready(Err(said(panic))),
    })
    .await
}

/// What a panic said. Its payload is the user's, and so is its destructor.
pub(crate) fn said(panic: Box<dyn Any + Send>) -> String {
    let words = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "not in words".to_owned(),
    };
    if catch_unwind(AssertUnwindSafe(move || drop(panic))).is_err() {
        tracing::error!(target: "wellspring", "the payload of a panic panicked when it was dropped");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_wherever_it_happens() {
        assert_eq!(caught(|| async { 7 }).await, Ok(7));
        let made = caught(|| -> std::future::Ready<()> { panic!("while it was made") });
        assert_eq!(made.await, Err("while it was made".to_owned()));
        let polled = caught(|| async {
            tokio::task::yield_now().await;
            panic!("at poll {}", 2);
        });
        assert_eq!(polled.await, Err("at poll 2".to_owned()) as Result<(), String>);
    }
}
