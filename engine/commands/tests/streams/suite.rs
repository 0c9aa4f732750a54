//! What every relayed log has to do, on a real server.

use std::sync::Arc;
use std::time::Duration;

use wellspring_commands::{
    Consumers, Cursor, LogId, Message, OperationLog, Place, Reading, Relay, RelayBuilder, Sink, StoreErrorKind, Wakeup,
};

use super::follower::{Follower, operations};
use super::outbox::{MemoryOutbox, Rows};
use super::proxy::Proxy;
use super::server::OwnServer;
use super::{NEVER, PATIENCE, entry, entry_of, until};

pub trait StreamLog: OperationLog + Wakeup + Consumers + Sink {}
impl<L: OperationLog + Wakeup + Consumers + Sink> StreamLog for L {}

const PERIOD: Duration = Duration::from_millis(200);

pub fn relay<L: StreamLog>(outbox: &Arc<MemoryOutbox>, log: &Arc<L>) -> RelayBuilder {
    Relay::builder(outbox.clone(), log.clone())
        .wakeup(outbox.wakeup.clone())
        .check_period(PERIOD)
        .backoff(Duration::from_millis(5), Duration::from_millis(200))
}

/// Two servers, each with its own connection.
pub async fn every_entry_arrives_in_order_although_relays_are_killed<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut near = Follower::at_head(first.clone()).await;
    let mut far = Follower::at_head(second.clone()).await;
    let mut random = fastrand::Rng::with_seed(7);
    let killing = async {
        let mut added = Vec::new();
        for _ in 0..40 {
            let relay = relay(&outbox, &first).batch(100).per_message(7).spawn();
            added.extend(outbox.add_some(random.u64(1..100)));
            tokio::time::sleep(Duration::from_micros(random.u64(0..6000))).await;
            drop(relay);
        }
        let relay = relay(&outbox, &second).spawn();
        added.extend(outbox.add_some(1));
        (added, relay)
    };
    let ((added, relay), ()) = tokio::join!(killing, far.follow(PERIOD, |far| far.horizon.major > 40));
    near.follow(PERIOD, |near| near.order.len() >= added.len()).await;
    far.follow(PERIOD, |far| far.order.len() >= added.len()).await;
    relay.stop().await;
    assert_eq!(near.order, operations(&added));
    assert_eq!(far.order, operations(&added));
    assert_eq!((near.losses, far.losses), (0, 0));
}

pub async fn of_two_relays_one_relays_and_the_other_takes_over<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second.clone()).await;
    let relays = [relay(&outbox, &first).spawn(), relay(&outbox, &second).spawn()];
    let mut added = outbox.add_some(100);
    until("all sent", || outbox.all_sent()).await;
    let [one, other] = relays;
    let (holder, waiter) = if one.stats().holding { (one, other) } else { (other, one) };
    assert!(holder.stats().holding && !waiter.stats().holding);
    drop(holder);
    added.extend(outbox.add_some(100));
    follower.follow(PERIOD, |follower| follower.order.len() >= 200).await;
    // The first may have relayed them before it was gone.
    until("another holder", || waiter.stats().holding).await;
    assert_eq!(follower.order, operations(&added));
}

pub async fn a_hint_comes_with_what_is_published<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second).await;
    let relay = relay(&outbox, &first).check_period(NEVER).spawn();
    until("a holder", || relay.stats().holding).await;
    for round in 1..=20 {
        outbox.add_some(1);
        follower.follow(NEVER, |follower| follower.order.len() == round).await;
    }
}

pub async fn without_hints_there_is_nothing_but_delay<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second).await;
    let _relay = Relay::builder(outbox.clone(), first).check_period(Duration::from_millis(20)).spawn();
    let added = outbox.add_some(300);
    // Hints of nobody.
    follower.hints = wellspring_commands::LocalWakeup::default().hints();
    follower.follow(Duration::from_millis(20), |follower| follower.order.len() >= 300).await;
    assert_eq!(follower.order, operations(&added));
}

pub async fn a_head_knows_what_is_settled_and_what_is_not<L: StreamLog>(log: Arc<L>) {
    let head = log.head().await.expect("a head");
    assert_eq!((head.horizon, head.recent), (Place::default(), vec![]));
    let outbox = MemoryOutbox::new();
    outbox.rows().horizon = Some(Place::new(8, 0));
    let added = outbox.add_some(10);
    let relay = relay(&outbox, &log).check_period(Duration::from_millis(5)).spawn();
    until("all sent", || outbox.all_sent()).await;
    let head = log.head().await.expect("a head");
    assert_eq!(head.horizon, Place::new(8, 0));
    let unsettled: Vec<_> = added[7..].iter().map(|entry| (entry.place, entry.operation)).collect();
    assert_eq!(head.recent, unsettled);
    // The long transaction ends, and with it nothing is committed.
    outbox.rows().horizon = None;
    until("a message for the horizon", || relay.stats().messages == 2).await;
    let later = log.head().await.expect("a head");
    assert_eq!((later.horizon, later.recent), (Place::new(11, 0), vec![]));
    let Reading::Entries { entries, horizon, more, .. } = log.read(&head.cursor, 10).await.expect("read") else { panic!("lost") };
    assert_eq!((entries, horizon, more), (vec![], Place::new(11, 0), false));
}

pub async fn a_head_goes_by_what_follows_the_last_loss<L: StreamLog>(log: Arc<L>) {
    let message =
        |number: u64, horizon: u64| Message { log: log.id(), entries: vec![entry(number)], horizon: Place::new(horizon, 0), lost: None };
    let lost = Message { entries: Vec::new(), lost: Some("the log went back".to_owned()), ..message(0, 3) };
    let messages = [message(900, 901), lost, message(5, 5), message(7, 6)];
    let end = log.end(None).await.expect("an end");
    log.publish(&end.mark, &messages).await.expect("published");
    let head = log.head().await.expect("a head");
    assert_eq!(head.horizon, Place::new(6, 0));
    let operation = messages[3].entries[0].operation;
    assert_eq!(head.recent.last(), Some(&(Place::new(7, 0), operation)));
    let Reading::Entries { entries, more, .. } = log.read(&head.cursor, 10).await.expect("read") else { panic!("lost") };
    assert_eq!((entries, more), (vec![], false), "the head is at the end");
}

pub async fn a_reading_has_about_as_much_as_was_asked_for<L: StreamLog>(log: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut cursor = log.head().await.expect("a head").cursor;
    let added = outbox.add_some(500);
    let _relay = relay(&outbox, &log).per_message(3).spawn();
    until("all sent", || outbox.all_sent()).await;
    let mut read = Vec::new();
    loop {
        let Reading::Entries { entries, cursor: next, more, .. } = log.read(&cursor, 40).await.expect("read") else { panic!("lost") };
        assert!(entries.len() <= 42);
        read.extend(entries);
        cursor = next;
        if !more {
            break;
        }
    }
    assert_eq!(read, added);
}

pub async fn a_reader_that_slept_while_the_log_was_trimmed_finds_out<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut sleeper = Follower::at_head(second.clone()).await;
    let mut awake = Follower::at_head(second.clone()).await;
    let relay = relay(&outbox, &first).per_message(5).spawn();
    outbox.add_some(50);
    awake.follow(PERIOD, |awake| awake.order.len() == 50).await;
    assert_eq!(second.trim(Duration::from_secs(60)).await.expect("trimmed"), 0);
    // What is older than now.
    until_older(&second).await;
    assert!(!sleeper.read().await.expect("a head instead") || sleeper.losses == 1);
    assert_eq!(sleeper.losses, 1);
    assert_eq!(sleeper.horizon, Place::new(51, 0), "the last message stays, so that a head says how far it is");
    let added = outbox.add_some(10);
    sleeper.follow(PERIOD, |sleeper| sleeper.order.len() == 10).await;
    awake.follow(PERIOD, |awake| awake.order.len() == 60).await;
    assert_eq!(sleeper.order, operations(&added));
    assert_eq!((sleeper.losses, awake.losses), (1, 0));
    assert_eq!(relay.stats().losses, 0, "what was trimmed is no loss to the relay");
}

/// The server's clock has to move on.
pub async fn until_older<L: StreamLog>(log: &Arc<L>) {
    let trimming = async {
        while log.trim(Duration::ZERO).await.expect("trimmed") == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trimming).await.expect("something is old enough");
}

pub async fn an_entry_too_large_for_the_stream_is_a_loss_for_all<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second.clone()).await;
    let mut added = outbox.add_some(3);
    outbox.add(entry_of(4, "x".repeat(first.most_bytes())));
    // As large as there may be, and no larger.
    added.push(outbox.add(entry_of(5, "y".repeat(first.most_bytes() - 2000))));
    let relay = relay(&outbox, &first).spawn();
    until("all sent", || outbox.all_sent()).await;
    assert_eq!((relay.stats().oversized, relay.stats().losses), (1, 1));
    while follower.read().await.expect("read") {}
    assert_eq!(follower.losses, 1);
    assert_eq!(follower.order, operations(&added[..3]));
    assert_eq!(follower.horizon, Place::new(6, 0));
    let last = outbox.add(entry(6));
    follower.follow(PERIOD, |follower| follower.seen.contains(&last.operation)).await;
    assert_eq!(follower.losses, 1);
}

pub async fn what_is_published_after_the_wrong_message_is_refused<L: StreamLog>(log: Arc<L>) {
    let start = log.end(None).await.expect("an end");
    assert!(start.empty && start.lost.is_none());
    let id = log.id();
    let message = |number: u64| Message { log: id, entries: vec![entry(number)], horizon: Place::new(number + 1, 0), lost: None };
    let after = log.publish(&start.mark, &[message(1), message(2)]).await.expect("published");
    let refused = log.publish(&start.mark, &[message(3), message(4)]).await.expect_err("somebody else was there");
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
    // Nor behind a message of another relay that has just the number of the first one, which is refused.
    let last = log.publish(&after, &[message(3)]).await.expect("published");
    let refused = log.publish(&after, &[message(4), message(5), message(6)]).await.expect_err("somebody else was there");
    assert_eq!(refused.kind(), StoreErrorKind::Conflict);
    let after = last;
    let end = log.end(Some(&after)).await.expect("an end");
    assert_eq!((end.mark, end.empty, end.lost), (after, false, None));
}

pub async fn a_stream_of_another_log_is_refused<L: StreamLog>(log: Arc<L>) {
    let mut cursor = log.head().await.expect("a head").cursor;
    let end = log.end(None).await.expect("an end");
    let ours = Message { log: log.id(), entries: vec![entry(1)], horizon: Place::default(), lost: None };
    let theirs = Message { log: LogId::random(), ..ours.clone() };
    log.publish(&end.mark, &[ours.clone(), theirs, ours]).await.expect("published");
    let Reading::Entries { entries, cursor: next, .. } = log.read(&cursor, 10).await.expect("read") else { panic!("lost") };
    assert_eq!(entries.len(), 1);
    cursor = next;
    let error = log.read(&cursor, 10).await.expect_err("not of this log");
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

pub async fn what_follows_a_loss_is_read_from_where_it_says<L: StreamLog>(log: Arc<L>) {
    let start = log.head().await.expect("a head").cursor;
    let message = |number: u64, lost: Option<&str>| Message {
        log: log.id(),
        entries: lost.is_none().then(|| entry(number)).into_iter().collect(),
        horizon: Place::new(number, 0),
        lost: lost.map(str::to_owned),
    };
    let end = log.end(None).await.expect("an end").mark;
    // The log has gone back with the loss.
    let messages = [message(8, None), message(9, None), message(2, Some("a disk")), message(3, None), message(2, Some("again"))];
    log.publish(&end, &messages).await.expect("published");
    let Reading::Entries { entries, cursor, horizon, .. } = log.read(&start, 10).await.expect("read") else { panic!("lost") };
    assert_eq!((entries.len(), horizon), (2, Place::new(9, 0)));
    let Reading::Lost { reason, next: Some(cursor) } = log.read(&cursor, 10).await.expect("read") else { panic!("no way on") };
    assert_eq!(reason, "a disk");
    let Reading::Entries { entries, cursor, horizon, .. } = log.read(&cursor, 10).await.expect("read") else { panic!("lost") };
    assert_eq!((&entries, horizon), (&messages[3].entries, Place::new(3, 0)));
    let Reading::Lost { next: Some(cursor), .. } = log.read(&cursor, 10).await.expect("read") else { panic!("no way on") };
    let Reading::Entries { entries, horizon, more, .. } = log.read(&cursor, 10).await.expect("read") else { panic!("lost") };
    assert_eq!((entries.len(), horizon, more), (0, Place::new(2, 0), false));
}

/// A relay that lives for so many operations, which are followed.
async fn relayed<L: StreamLog>(log: &Arc<L>, outbox: &Arc<MemoryOutbox>, follower: &mut Follower<L>, count: u64) {
    let relay = relay(outbox, log).per_message(1).spawn();
    let all = follower.order.len() + outbox.add_some(count).len();
    follower.follow(PERIOD, |follower| follower.order.len() == all).await;
    relay.stop().await;
}

pub async fn an_outbox_that_has_gone_back_is_a_loss_for_all<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second.clone()).await;
    relayed(&first, &outbox, &mut follower, 3).await;
    let backup = outbox.rows().clone();
    relayed(&first, &outbox, &mut follower, 200).await;
    *outbox.rows() = backup;
    let added = outbox.add_some(1);
    let later = relay(&outbox, &second).per_message(1).spawn();
    follower.follow(PERIOD, |follower| follower.seen.contains(&added[0].operation) || follower.losses > 0).await;
    until("all sent", || outbox.all_sent()).await;
    assert_eq!((follower.losses, later.stats().losses), (1, 1));
    let added = outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.seen.contains(&added[0].operation)).await;
    assert_eq!(follower.losses, 1);
}

pub async fn what_the_outbox_was_not_told_of_is_published_again<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second.clone()).await;
    relayed(&first, &outbox, &mut follower, 3).await;
    let backup = outbox.rows().clone();
    relayed(&first, &outbox, &mut follower, 200).await;
    let entries = std::mem::take(&mut outbox.rows().entries);
    *outbox.rows() = Rows { entries, ..backup };
    let later = relay(&outbox, &second).per_message(1).spawn();
    let added = outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.covers(&added[0])).await;
    until("all sent", || outbox.all_sent()).await;
    assert_eq!((follower.losses, later.stats().losses), (0, 0));
    assert!(later.stats().entries > 200);
}

/// Whoever is told that the server is away waits for it, and nobody looks by themselves.
pub async fn hints_come_again_when_the_server_was_away<L: StreamLog>(first: Arc<L>, second: Arc<L>, server: &mut OwnServer) {
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(second).await;
    let relay = relay(&outbox, &first).check_period(NEVER).spawn();
    until("a holder", || relay.stats().holding).await;
    outbox.add_some(1);
    follower.follow(NEVER, |follower| follower.order.len() == 1).await;
    server.kill();
    outbox.add_some(1);
    until("a failure", || relay.stats().retries > 0).await;
    server.start_again().await;
    follower.follow(NEVER, |follower| follower.order.len() == 2).await;
    until("all sent", || outbox.all_sent()).await;
    outbox.add_some(1);
    follower.follow(NEVER, |follower| follower.order.len() == 3).await;
}

/// The first is connected by the proxy and pings that often, the second is not.
pub async fn a_connection_that_went_dead_without_a_word_is_made_anew<L: StreamLog>(
    first: Arc<L>,
    second: Arc<L>,
    proxy: &Proxy,
    ping: Duration,
) {
    let mut hints = first.hints();
    second.notify();
    hints.next().await;
    first.head().await.expect("a head");
    proxy.swallow();
    // From here on: none of those that came before.
    let mut hints = first.hints();
    let mut reading = std::pin::pin!(async { while first.head().await.is_err() {} });
    let again = async {
        tokio::join!(hints.next(), &mut reading);
        // Not only the beginning of the new connection is heard, nor what was under way on the old one.
        for _ in 0..3 {
            while tokio::time::timeout(ping, hints.next()).await.is_err() {
                second.notify();
            }
        }
    };
    tokio::time::timeout(ping * 60, again).await.expect("both are noticed: there are hints, and there are answers");
}

pub async fn a_cursor_of_another_log_is_a_loss<L: StreamLog>(log: Arc<L>) {
    for text in ["", "nonsense", "1:2:3:4", "a:b:c:d:e", "1:1:-:1:1", "1:1:-:0-0:1:1"] {
        let reading = log.read(&Cursor::new(text), 10).await.expect("read");
        assert!(matches!(reading, Reading::Lost { .. }), "{text}: {reading:?}");
    }
}

pub async fn a_name_is_held_by_one_and_then_by_the_next<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let name = "näme of: a consumer*";
    let hold = first.try_hold(name).await.expect("asked").expect("free");
    assert_eq!(hold.cursor().await.expect("asked"), None);
    assert!(second.try_hold(name).await.expect("asked").is_none());
    assert!(first.try_hold(name).await.expect("asked").is_none());
    drop(first.try_hold("another").await.expect("asked").expect("free"));
    hold.save(&Cursor::new("one")).await.expect("saved");
    hold.save(&Cursor::new("two")).await.expect("saved");
    let waiting = tokio::spawn({
        let second = second.clone();
        async move { second.hold(name).await }
    });
    assert!(tokio::time::timeout(Duration::from_millis(100), hold.lost()).await.is_err());
    assert!(!waiting.is_finished());
    drop(hold);
    let next = tokio::time::timeout(PATIENCE, waiting).await.expect("given up").expect("no panic").expect("held");
    assert_eq!(next.cursor().await.expect("asked"), Some(Cursor::new("two")));
}

/// The lease of both has to be short.
pub async fn a_holder_that_lives_keeps_its_name<L: StreamLog>(first: Arc<L>, second: Arc<L>, lease: Duration) {
    let hold = first.try_hold("name").await.expect("asked").expect("free");
    let waiting = tokio::time::timeout(lease * 4, second.hold("name")).await;
    assert!(waiting.is_err(), "two hold the name");
    hold.save(&Cursor::new("still")).await.expect("saved");
}

/// The first log's runtime only runs when it is made to: a process that stands still.
pub fn a_holder_that_stood_still_is_fenced<L: StreamLog>(open: impl AsyncFn() -> Arc<L>) {
    let still = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let lively = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (_log, hold) = still.block_on(async {
        let log = open().await;
        let hold = log.try_hold("name").await.expect("asked").expect("free");
        hold.save(&Cursor::new("mine")).await.expect("saved");
        (log, hold)
    });
    let (other, next) = lively.block_on(async {
        let other = open().await;
        let next = tokio::time::timeout(PATIENCE, other.hold("name")).await.expect("it runs out").expect("held");
        assert_eq!(next.cursor().await.expect("asked"), Some(Cursor::new("mine")));
        next.save(&Cursor::new("theirs")).await.expect("saved");
        (other, next)
    });
    still.block_on(async {
        let error = hold.save(&Cursor::new("late")).await.expect_err("somebody else holds it");
        assert_eq!(error.kind(), StoreErrorKind::Fenced);
        tokio::time::timeout(PATIENCE, hold.lost()).await.expect("it says so");
        drop(hold);
        assert!(other.try_hold("name").await.expect("asked").is_none(), "a name was given up by who does not hold it");
    });
    lively.block_on(async {
        assert_eq!(next.cursor().await.expect("asked"), Some(Cursor::new("theirs")));
        drop(next);
    });
}

/// Does harm to a stream of which one reader has read everything and another nothing; how often each found a loss.
pub async fn losses_after<L: StreamLog>(log: Arc<L>, harm: impl AsyncFnOnce()) -> (usize, usize) {
    let outbox = MemoryOutbox::new();
    let mut behind = Follower::at_head(log.clone()).await;
    let mut current = Follower::at_head(log.clone()).await;
    let first = relay(&outbox, &log).per_message(1).spawn();
    outbox.add_some(10);
    current.follow(PERIOD, |current| current.order.len() == 10).await;
    first.stop().await;
    // What only moves the horizon may have come after the last operation: "everything" is that too.
    while current.read().await.expect("read") {}
    harm().await;
    let second = relay(&outbox, &log).per_message(1).spawn();
    // More than there were: the numbers of a stream made anew reach those of the old one.
    let added = outbox.add_some(20);
    for follower in [&mut behind, &mut current] {
        follower.follow(PERIOD, |follower| follower.covers(&added[19])).await;
    }
    second.stop().await;
    (behind.losses, current.losses)
}
