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
    let mut future = pin!(catch_unwind(AssertUnwindSafe(make)).map_err(|panic| said(&*panic))?);
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(panic) => Poll::Ready(Err(said(&*panic))),
    })
    .await
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something that is not text".to_owned())
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
