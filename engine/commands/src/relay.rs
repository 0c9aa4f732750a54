//! From an outbox to a stream, at least once and in order.
//!
//! One relay at a time holds the outbox. It publishes what is unsent in batches, several messages under way at once, and only then
//! lets the outbox forget them: a relay that dies between leaves them to be published again, and followers drop what they have seen.
//! On a failure everything since the last acknowledged batch is published again.
//!
//! A stream that acknowledges before its data is on disk may forget what it acknowledged. The relay remembers where the stream ended,
//! durably if the outbox can, and looks at it every period: when the stream has gone back, or is another one, it publishes a loss, upon
//! which every follower drops what it holds. Publishing the last seconds again was rejected: how many seconds is a guess.
//!
//! An outbox may go back as well, when its database is restored from a backup. Then its next operations have places at which followers
//! believe to have seen everything. A relay that takes over therefore asks the stream what it has since the outbox was last told:
//! what a relay died over is [unsent](crate::OutboxHold::unsent) still, and what is not there any more shows that the outbox has gone
//! back, which is a loss like the others.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backoff::spread;
use crate::catch::caught;
use crate::id::OperationId;
use crate::message::{Limits, Message, loss, moved, pack};
use crate::outbox::{Outbox, OutboxHold, Outgoing, Sent};
use crate::position::Place;
use crate::sink::{Mark, Sink};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::wakeup::{Hints, Wakeup};

/// Messages that are published at once.
const IN_FLIGHT: usize = 32;
/// At which size a message is not added to, if the stream takes that much: what a reader gets in one piece.
const WANTED_BYTES: usize = 128 << 10;
/// Messages that relays may have left in the stream without telling the outbox: a batch each, and more if publishing failed again and
/// again. Above that, and above some batches, it counts as a loss. So does an operation of theirs that is not among four times as many of
/// the outbox's first.
const MOST_UNTOLD: usize = 1 << 14;

/// A task that relays. Dropping it ends the task wherever it is: what was under way is published again by the next.
#[derive(Debug)]
pub struct Relay {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    counts: Arc<Counts>,
}

/// What a relay has done since it was spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RelayStats {
    /// Whether it holds the outbox.
    pub holding: bool,
    /// Messages that were acknowledged.
    pub messages: u64,
    /// Operations in them; those that were published again are counted again.
    pub entries: u64,
    /// Rounds that failed and were tried again.
    pub retries: u64,
    /// Losses that were published, for whatever reason.
    pub losses: u64,
    /// Operations that were too large for the stream, and became a loss.
    pub oversized: u64,
}

#[derive(Debug, Default)]
struct Counts {
    holding: AtomicBool,
    messages: AtomicU64,
    entries: AtomicU64,
    retries: AtomicU64,
    losses: AtomicU64,
    oversized: AtomicU64,
}

/// How a relay works.
#[derive(Debug)]
pub struct RelayBuilder {
    outbox: Arc<dyn Outbox>,
    sink: Arc<dyn Sink>,
    wakeup: Option<Arc<dyn Wakeup>>,
    period: Duration,
    batch: usize,
    message: usize,
    backoff: (Duration, Duration),
}

impl Relay {
    /// From an outbox to a stream.
    pub fn builder(outbox: Arc<dyn Outbox>, sink: Arc<dyn Sink>) -> RelayBuilder {
        let backoff = (Duration::from_millis(50), Duration::from_secs(5));
        RelayBuilder { outbox, sink, wakeup: None, period: Duration::from_secs(1), batch: 1024, message: 64, backoff }
    }

    /// What it has done so far.
    pub fn stats(&self) -> RelayStats {
        let Counts { holding, messages, entries, retries, losses, oversized } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RelayStats {
            holding: holding.load(Ordering::Relaxed),
            messages: read(messages),
            entries: read(entries),
            retries: read(retries),
            losses: read(losses),
            oversized: read(oversized),
        }
    }

    /// Ends it after the batch that is under way, and gives up the outbox.
    ///
    /// Dropping this future ends it at once, as dropping the relay does.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // The only other end is a panic of a user's outbox or sink, which ends the relay just as well.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RelayBuilder {
    /// Who hints that something was committed; without one the relay only looks every period.
    pub fn wakeup(mut self, wakeup: Arc<dyn Wakeup>) -> RelayBuilder {
        self.wakeup = Some(wakeup);
        self
    }

    /// How often to look without a hint, give or take a tenth: one second if not set. At least a millisecond.
    pub fn check_period(mut self, period: Duration) -> RelayBuilder {
        self.period = period.max(Duration::from_millis(1));
        self
    }

    /// How many operations to take from the outbox at once: 1024 if not set.
    pub fn batch(mut self, most: usize) -> RelayBuilder {
        self.batch = most.max(1);
        self
    }

    /// How many operations to put into one message: 64 if not set.
    pub fn per_message(mut self, most: usize) -> RelayBuilder {
        self.message = most.max(1);
        self
    }

    /// How long to wait after a first failure and after many, give or take a quarter: 50 ms and 5 s if not set.
    pub fn backoff(mut self, first: Duration, last: Duration) -> RelayBuilder {
        let first = first.max(Duration::from_millis(1));
        self.backoff = (first, last.max(first));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(self) -> Relay {
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::new(Counts::default());
        let hints = self.wakeup.as_ref().map(|wakeup| wakeup.hints());
        let task = tokio::spawn(Task { hints, stopped, counts: counts.clone(), failures: 0, how: self }.run());
        Relay { task, stop, counts }
    }
}

/// Why a round ended the holding.
enum End {
    Stopped,
    HoldLost,
}

struct Task {
    how: RelayBuilder,
    hints: Option<Hints>,
    stopped: watch::Receiver<bool>,
    counts: Arc<Counts>,
    failures: u32,
}

/// What is known of the stream while the outbox is held.
#[derive(Default)]
struct Stream {
    /// Where it ended when something was last acknowledged: it must never be found before that.
    known: Option<Mark>,
    /// Where to append; none when it has to be asked.
    at: Option<Mark>,
    /// A loss to be published before anything else.
    lost: Option<String>,
    /// Somebody who starts to read now would learn no horizon.
    silent: bool,
    /// The largest horizon that was published since the last loss.
    horizon: Place,
    /// The largest place that was published or is lost: a horizon above it is worth a message of its own, one above that is not.
    last: Option<Place>,
    /// What the outbox has to be told before anything else.
    untold: Option<Sent>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let hold = tokio::select! {
                () = stopped(&mut self.stopped) => return,
                hold = self.how.outbox.hold() => hold,
            };
            match hold {
                Ok(hold) => {
                    tracing::debug!("relaying");
                    self.counts.holding.store(true, Ordering::Relaxed);
                    let end = self.serve(&*hold).await;
                    self.counts.holding.store(false, Ordering::Relaxed);
                    match end {
                        End::Stopped => return,
                        End::HoldLost => tracing::warn!("the outbox is held by somebody else now: waiting for it"),
                    }
                }
                Err(error) => tracing::warn!(%error, "the outbox cannot be held: trying again"),
            }
            // Also after a hold was lost: an outbox that loses each one at once must not be asked without a pause.
            if self.back_off(None).await.is_some() {
                return;
            }
        }
    }

    async fn serve(&mut self, hold: &dyn OutboxHold) -> End {
        let mut stream: Option<Stream> = None;
        // Hints that bring nothing do not put off the look at the stream.
        let mut look = Instant::now() + spread(self.how.period);
        loop {
            let round = async {
                // A user's outbox or sink that panics ends a round and not the relay.
                let panicked = |message| {
                    Err(StoreError::with(StoreErrorKind::Other, "relaying", format!("the outbox or the stream panicked: {message}")))
                };
                let round = caught(|| async {
                    let stream = match &mut stream {
                        Some(stream) => stream,
                        None => stream.insert(self.take_over(hold).await?),
                    };
                    self.round(hold, stream).await
                });
                round.await.unwrap_or_else(panicked)
            };
            let round = tokio::select! {
                biased;
                () = hold.lost() => return End::HoldLost,
                round = round => round,
            };
            let more = match round {
                Ok(more) => more,
                Err(error) if error.kind() == StoreErrorKind::Fenced => return End::HoldLost,
                Err(error) => {
                    self.counts.retries.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "nothing could be relayed: trying again");
                    look_again(&mut stream);
                    match self.back_off(Some(hold)).await {
                        Some(end) => return end,
                        None => continue,
                    }
                }
            };
            self.failures = 0;
            if *self.stopped.borrow() {
                return End::Stopped;
            }
            if more {
                continue;
            }
            tokio::select! {
                biased;
                () = hold.lost() => return End::HoldLost,
                () = stopped(&mut self.stopped) => return End::Stopped,
                () = hinted(&mut self.hints) => {}
                // It is time to see whether the stream is still there.
                () = tokio::time::sleep_until(look) => {
                    look_again(&mut stream);
                    look = Instant::now() + spread(self.how.period);
                }
            }
        }
    }

    /// Goes on where the last relay has stopped.
    async fn take_over(&self, hold: &dyn OutboxHold) -> Result<Stream, StoreError> {
        let Some(Sent { mark, horizon, last }) = hold.last_sent().await? else { return Ok(Stream::default()) };
        let mut stream = Stream { known: Some(mark.clone()), horizon, last, ..Stream::default() };
        let end = self.look(&mut stream).await?;
        if stream.lost.is_none() && end != mark {
            let most = MOST_UNTOLD.max(16 * self.how.batch);
            match self.how.sink.published_since(&mark, most).await? {
                Some(operations) => self.confirm(hold, &mut stream, operations.into_iter().collect(), 4 * most).await?,
                None => lose(&mut stream, "nobody can say what was published since the outbox was last told".to_owned()),
            }
        }
        stream.at = Some(end);
        Ok(stream)
    }

    /// Whether the outbox still has what it was not told of. Before anything is published: what a relay publishes, the outbox is told of,
    /// and the next relay would ask no more.
    async fn confirm(
        &self,
        hold: &dyn OutboxHold,
        stream: &mut Stream,
        mut untold: HashSet<OperationId>,
        limit: usize,
    ) -> Result<(), StoreError> {
        let mut most = self.how.batch.max(2 * untold.len());
        while !untold.is_empty() {
            // A loss is found by the first round as well.
            let Outgoing::Entries { entries, more, .. } = hold.unsent(most).await? else { return Ok(()) };
            for entry in &entries {
                untold.remove(&entry.operation);
            }
            if !untold.is_empty() && (!more || most >= limit) {
                lose(stream, format!("the outbox has gone back: it lacks {} operations that the stream has", untold.len()));
                // They are of places that do not count any more.
                stream.last = None;
                return Ok(());
            }
            most = most.saturating_mul(2).min(limit);
        }
        Ok(())
    }

    /// Where the stream ends, and whether what was there still is.
    async fn look(&self, stream: &mut Stream) -> Result<Mark, StoreError> {
        let end = self.how.sink.end(stream.known.as_ref()).await?;
        if let Some(reason) = end.lost {
            lose(stream, reason);
        }
        stream.silent |= end.empty;
        Ok(end.mark)
    }

    /// Relays one batch; whether there is more at once.
    async fn round(&self, hold: &dyn OutboxHold, stream: &mut Stream) -> Result<bool, StoreError> {
        self.tell(hold, stream).await?;
        let at = match stream.at.take() {
            Some(at) => at,
            None => self.look(stream).await?,
        };
        let log = self.how.outbox.id();
        let limits = Limits {
            entries: self.how.message,
            wanted_bytes: WANTED_BYTES.min(self.how.sink.most_bytes()),
            most_bytes: self.how.sink.most_bytes(),
        };
        let (mut messages, horizon, last, oversized, more) = match hold.unsent(self.how.batch).await? {
            Outgoing::Entries { entries, horizon, more } => {
                let last = entries.iter().map(|entry| entry.place).max();
                let first = entries.iter().map(|entry| entry.place).min();
                let (mut messages, oversized) = pack(log, entries, horizon, limits);
                if let Some(reason) = &stream.lost {
                    messages.insert(0, loss(log, reason, first.map_or(horizon, |first| first.min(horizon))));
                }
                (messages, horizon, last, oversized, more)
            }
            Outgoing::Lost { reason, horizon, recent } => {
                tracing::warn!(reason, "operations will never be in the stream: every follower drops all it holds");
                stream.last = None;
                let last = recent.iter().map(|(place, _)| *place).max();
                // A loss covers any other that is to be said.
                (vec![loss(log, &reason, horizon)], horizon, last, 0, true)
            }
        };
        let settles = stream.last.is_some_and(|last| stream.horizon <= last && last < horizon);
        if messages.is_empty() && (settles || (stream.silent && horizon > Place::default())) {
            messages.push(moved(log, horizon));
        }
        if messages.is_empty() {
            stream.at = Some(at);
            return Ok(more);
        }
        // The log may have gone back with a loss: what was said before it does not count any more.
        let anew = messages.first().is_some_and(|message| message.lost.is_some());
        let at = self.publish(at, &messages, stream).await?;
        stream.lost = None;
        stream.silent = false;
        stream.horizon = if anew { horizon } else { stream.horizon.max(horizon) };
        // What is lost may have been at the horizon or above it, which is worth saying when it comes free.
        stream.last = stream.last.max(last).max(anew.then_some(horizon));
        self.counts.oversized.fetch_add(oversized, Ordering::Relaxed);
        stream.untold = Some(Sent { mark: at.clone(), horizon: stream.horizon, last: stream.last });
        stream.at = Some(at);
        self.tell(hold, stream).await?;
        Ok(more)
    }

    /// Tells the outbox what it has not been told yet. Publishing the same once more, because it could not be told, was rejected: a disk
    /// that is full for hours would fill the stream as well.
    async fn tell(&self, hold: &dyn OutboxHold, stream: &mut Stream) -> Result<(), StoreError> {
        if let Some(sent) = &stream.untold {
            hold.sent(sent).await?;
            stream.untold = None;
        }
        Ok(())
    }

    async fn publish(&self, mut at: Mark, messages: &[Message], stream: &mut Stream) -> Result<Mark, StoreError> {
        for part in messages.chunks(IN_FLIGHT) {
            at = self.how.sink.publish(&at, part).await?;
            stream.known = Some(at.clone());
            let entries: usize = part.iter().map(|message| message.entries.len()).sum();
            let losses = part.iter().filter(|message| message.lost.is_some()).count();
            self.counts.messages.fetch_add(part.len() as u64, Ordering::Relaxed);
            self.counts.entries.fetch_add(entries as u64, Ordering::Relaxed);
            self.counts.losses.fetch_add(losses as u64, Ordering::Relaxed);
            tracing::trace!(messages = part.len(), entries, "relayed");
        }
        Ok(at)
    }

    /// Waits before the next attempt, unless everything ends meanwhile.
    async fn back_off(&mut self, hold: Option<&dyn OutboxHold>) -> Option<End> {
        let (first, last) = self.how.backoff;
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(last).mul_f64(0.75 + 0.5 * fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        let lost = async {
            match hold {
                Some(hold) => hold.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lost => Some(End::HoldLost),
            () = stopped(&mut self.stopped) => Some(End::Stopped),
            () = tokio::time::sleep(pause) => None,
        }
    }
}

/// It is said before anything else, upon which everybody drops what it holds.
fn lose(stream: &mut Stream, reason: String) {
    tracing::error!(reason, "operations that were acknowledged are gone: every follower drops all it holds");
    stream.lost = Some(reason);
}

/// The end of the stream is not known any more.
fn look_again(stream: &mut Option<Stream>) {
    if let Some(stream) = stream {
        stream.at = None;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The handle is gone: the task is aborted anyway.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn hinted(hints: &mut Option<Hints>) {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}
