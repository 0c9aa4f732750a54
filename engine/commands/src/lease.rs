//! Keeping a lease by renewing it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::spread;
use crate::consumer::{Consumers, Hold};
use crate::log::BoxFuture;
use crate::store_error::StoreError;

/// How often somebody who waits for a name asks for it, at most.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Takes a name by asking for it until it is free: nothing tells when a lease runs out.
pub(crate) async fn hold_by_trying(consumers: &impl Consumers, name: &str, lease: Duration) -> Result<Box<dyn Hold>, StoreError> {
    let pause = (lease / 8).min(ASK_AGAIN);
    loop {
        if let Some(hold) = consumers.try_hold(name).await? {
            return Ok(hold);
        }
        tokio::time::sleep(spread(pause)).await;
    }
}

/// A name that is held for a while in a server, as its holder sees it.
pub(crate) trait Lease: fmt::Debug + Send + Sync + 'static {
    /// Holds it for the whole time again; whether it was still held.
    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Gives it up, as well as that can be done now.
    fn release(&self) -> BoxFuture<'_, ()>;
}

/// Renews a lease at a third of its time until it is dropped or lost. It counts as lost as soon as the server may have given it to
/// somebody else, by this process' clock and counted from before the last renewal was asked for: so the holder is the first to know.
#[derive(Debug)]
pub(crate) struct Kept<L: Lease> {
    lease: Arc<L>,
    lost: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl<L: Lease> Kept<L> {
    /// Of a lease that was asked for at a moment.
    pub(crate) fn new(lease: L, asked: Instant, time: Duration) -> Kept<L> {
        let lease = Arc::new(lease);
        let (losing, lost) = watch::channel(false);
        let task = tokio::spawn(keep(lease.clone(), asked, time, losing));
        Kept { lease, lost, task }
    }

    pub(crate) fn lease(&self) -> &L {
        &self.lease
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    pub(crate) async fn lost(&self) {
        // The task ends only by saying so.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }
}

impl<L: Lease> Drop for Kept<L> {
    fn drop(&mut self) {
        self.task.abort();
        // Outside a runtime nothing can be sent any more: the lease runs out by itself. Also when it is lost: a renewal may have come
        // through whose answer did not, and what is another's by now is not given up.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let lease = self.lease.clone();
            runtime.spawn(async move { lease.release().await });
        }
    }
}

async fn keep(lease: Arc<impl Lease>, mut good: Instant, time: Duration, losing: watch::Sender<bool>) {
    let mut next = good + time / 3;
    loop {
        tokio::time::sleep_until(next).await;
        let asked = Instant::now();
        // The process stood still, or the machine did: somebody else may have it by now, and must not be asked for it back.
        if asked >= good + time {
            break;
        }
        match tokio::time::timeout_at(good + time, lease.renew()).await {
            Ok(Ok(true)) => {
                good = asked;
                next = good + time / 3;
            }
            Ok(Err(error)) if Instant::now() + time / 12 < good + time => {
                tracing::debug!(%error, "a lease could not be renewed: trying again");
                next = Instant::now() + time / 12;
            }
            Ok(_) | Err(_) => break,
        }
    }
    tracing::warn!(?lease, "a lease is lost");
    losing.send_replace(true);
    // What is lost stays lost: whoever waits finds the value, and nobody else changes it.
    losing.closed().await;
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::store_error::StoreErrorKind;

    #[derive(Debug, Clone, Copy)]
    enum Answer {
        Hangs,
        HeldAfter(Duration),
        Fails,
        Gone,
    }

    /// A lease whose renewals are answered as told; the last answer stays.
    #[derive(Debug)]
    struct Fake {
        answers: Mutex<VecDeque<Answer>>,
        asked: Mutex<Vec<Instant>>,
        released: Mutex<u32>,
    }

    const TIME: Duration = Duration::from_secs(3);

    fn kept(answers: &[Answer]) -> Kept<Fake> {
        let answers = Mutex::new(answers.iter().copied().collect());
        Kept::new(Fake { answers, asked: Mutex::default(), released: Mutex::default() }, Instant::now(), TIME)
    }

    impl Lease for Fake {
        fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
            Box::pin(async {
                self.asked.lock().expect("no panic").push(Instant::now());
                let answer = {
                    let mut answers = self.answers.lock().expect("no panic");
                    if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() }
                };
                match answer.expect("an answer") {
                    Answer::Hangs => std::future::pending().await,
                    Answer::HeldAfter(time) => {
                        tokio::time::sleep(time).await;
                        Ok(true)
                    }
                    Answer::Fails => Err(StoreError::new(StoreErrorKind::Unavailable, "renewing")),
                    Answer::Gone => Ok(false),
                }
            })
        }

        fn release(&self) -> BoxFuture<'_, ()> {
            Box::pin(async { *self.released.lock().expect("no panic") += 1 })
        }
    }

    fn asked(kept: &Kept<Fake>) -> usize {
        kept.lease().asked.lock().expect("no panic").len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_loses_the_lease_when_its_time_is_over_and_not_later() {
        let began = Instant::now();
        let kept = kept(&[Answer::Hangs]);
        kept.lost().await;
        assert_eq!((began.elapsed().as_millis() / 10, asked(&kept)), (300, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_when_it_was_asked_for() {
        let began = Instant::now();
        let kept = kept(&[Answer::HeldAfter(Duration::from_millis(1_900)), Answer::Hangs]);
        kept.lost().await;
        assert_eq!((began.elapsed().as_millis() / 10, asked(&kept)), (400, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_is_tried_again_while_there_is_time() {
        let began = Instant::now();
        let kept = kept(&[Answer::Fails]);
        kept.lost().await;
        assert!(began.elapsed() <= TIME && asked(&kept) > 3, "{:?}, asked {} times", began.elapsed(), asked(&kept));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_anothers_is_lost_at_once() {
        let kept = kept(&[Answer::Gone]);
        kept.lost().await;
        assert_eq!(asked(&kept), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_for_longer_than_the_lease_does_not_ask_for_it_back() {
        let kept = kept(&[Answer::HeldAfter(Duration::ZERO)]);
        // Its task waits for its next renewal by now, and the clock goes on without it.
        tokio::task::yield_now().await;
        tokio::time::advance(TIME * 4).await;
        kept.lost().await;
        assert_eq!(asked(&kept), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_lets_go_while_a_renewal_hangs_releases_once() {
        let kept = kept(&[Answer::Hangs]);
        tokio::time::sleep(TIME / 2).await;
        let lease = kept.lease.clone();
        drop(kept);
        tokio::time::sleep(TIME * 2).await;
        assert_eq!(*lease.released.lock().expect("no panic"), 1);
    }
}
