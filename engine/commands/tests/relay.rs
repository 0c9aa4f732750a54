//! The relay, with an outbox and a stream in memory.

mod streams;

use std::sync::Arc;
use std::time::Duration;

use streams::log::MemoryLog;
use streams::outbox::MemoryOutbox;
use streams::sink::{Fault, MemorySink};
use streams::{NEVER, entry, entry_of, until};
use wellspring_commands::{LogOutbox, Outbox, Place, Relay, RelayBuilder, StoreErrorKind};

fn relay(outbox: &Arc<MemoryOutbox>, sink: &Arc<MemorySink>) -> RelayBuilder {
    let backoff = (Duration::from_millis(1), Duration::from_millis(5));
    Relay::builder(outbox.clone(), sink.clone()).wakeup(outbox.wakeup.clone()).check_period(NEVER).backoff(backoff.0, backoff.1)
}

/// A relay that lives for so many operations.
async fn relayed(outbox: &Arc<MemoryOutbox>, sink: &Arc<MemorySink>, count: u64) {
    let relay = relay(outbox, sink).spawn();
    outbox.add_some(count);
    until("all sent", || outbox.all_sent()).await;
    relay.stop().await;
}

#[tokio::test]
async fn whatever_fails_every_entry_is_in_the_stream_in_order() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
        for _ in 0..20 {
            let relay = relay(&outbox, &sink).batch(random.usize(1..100)).per_message(random.usize(1..20)).spawn();
            for _ in 0..random.usize(0..10) {
                let fault = if random.bool() { Fault::Nothing } else { Fault::Stored(random.usize(0..10)) };
                sink.stream().faults.push_back(fault);
            }
            outbox.add_some(random.u64(0..50));
            for _ in 0..random.usize(0..30) {
                tokio::task::yield_now().await;
            }
            if random.bool() {
                outbox.rows().fault = Some(StoreErrorKind::Fenced);
            }
            drop(relay);
        }
        sink.stream().faults.clear();
        outbox.rows().fault = None;
        let relay = relay(&outbox, &sink).spawn();
        until("all sent", || outbox.all_sent()).await;
        relay.stop().await;
        let all: Vec<u64> = (1..=outbox.rows().entries.len() as u64).collect();
        assert_eq!(sink.numbers(), all, "seed {seed}");
        assert_eq!(sink.losses(), Vec::<String>::new(), "seed {seed}");
        sink.check_horizons();
    }
}

#[tokio::test]
async fn what_a_relay_died_over_is_published_again() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.add_some(3);
    sink.acknowledging.send_replace(false);
    let first = relay(&outbox, &sink).spawn();
    until("a message", || sink.stream().messages.len() == 1).await;
    drop(first);
    sink.acknowledging.send_replace(true);
    let second = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.stream().messages.len(), 2);
    assert_eq!(sink.numbers(), [1, 2, 3]);
    assert_eq!(second.stats().entries, 3);
    assert_eq!(sink.losses(), Vec::<String>::new(), "the outbox still has it");
}

#[tokio::test]
async fn an_outbox_that_has_gone_back_is_a_loss_before_what_it_has_now() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    relayed(&outbox, &sink, 3).await;
    let backup = outbox.rows().clone();
    relayed(&outbox, &sink, 2).await;
    *outbox.rows() = backup;
    let added = outbox.add_some(1);
    let _third = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.losses(), ["the outbox has gone back: it lacks 2 operations that the stream has"]);
    let stream = sink.stream();
    let [.., loss, last] = &stream.messages[..] else { panic!("two messages at least") };
    assert_eq!((loss.lost.is_some(), loss.horizon), (true, Place::new(4, 0)), "no place of the earlier history counts");
    assert_eq!(last.entries, added);
}

#[tokio::test]
async fn an_outbox_that_has_gone_back_is_found_out_before_anything_is_published_however_much_is_unsent() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    relayed(&outbox, &sink, 3).await;
    let backup = outbox.rows().clone();
    relayed(&outbox, &sink, 9).await;
    *outbox.rows() = backup;
    outbox.add_some(30);
    let before = sink.stream().messages.len();
    // It may end after any round.
    for _ in 0..40 {
        let relay = relay(&outbox, &sink).batch(1).spawn();
        until("a message more, or none to be had", || relay.stats().messages > 0 || outbox.all_sent()).await;
        relay.stop().await;
    }
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.losses().len(), 1);
    assert!(sink.stream().messages[before].lost.is_some(), "something came before the loss");
}

#[tokio::test]
async fn a_horizon_that_comes_free_after_a_loss_is_said() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.rows().horizon = Some(Place::new(2, 0));
    let _relay = relay(&outbox, &sink).check_period(Duration::from_millis(2)).spawn();
    outbox.add_some(3);
    until("all sent", || outbox.all_sent()).await;
    sink.stream().messages.clear();
    until("a loss", || sink.losses().len() == 1).await;
    outbox.rows().horizon = None;
    until("the horizon", || sink.stream().messages.last().is_some_and(|message| message.horizon == Place::new(4, 0))).await;
    assert_eq!(sink.stream().messages.len(), 2);
}

#[tokio::test]
async fn an_outbox_that_cannot_be_told_is_told_again_and_nothing_is_published_twice() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.rows().fault = Some(StoreErrorKind::Full);
    outbox.add_some(3);
    let relay = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    outbox.add_some(1);
    until("all sent", || outbox.all_sent()).await;
    assert_eq!((sink.stream().messages.len(), relay.stats().retries), (2, 1));
}

#[tokio::test]
async fn a_relay_says_a_horizon_that_was_held_back_when_it_took_over() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.rows().horizon = Some(Place::new(2, 0));
    outbox.add_some(3);
    let first = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    first.stop().await;
    let _second = relay(&outbox, &sink).check_period(Duration::from_millis(2)).spawn();
    let asked = sink.stream().asked;
    until("more looks", || sink.stream().asked > asked + 5).await;
    outbox.rows().horizon = None;
    until("the horizon", || sink.stream().messages.len() == 2).await;
    let asked = sink.stream().asked;
    until("more looks", || sink.stream().asked > asked + 5).await;
    let horizons: Vec<_> = sink.stream().messages.iter().map(|message| message.horizon.major).collect();
    assert_eq!(horizons, [2, 4]);
}

#[tokio::test]
async fn a_relay_that_is_stopped_finishes_what_is_under_way() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.add_some(3);
    sink.acknowledging.send_replace(false);
    let relay = relay(&outbox, &sink).spawn();
    until("a message", || sink.stream().messages.len() == 1).await;
    let stopping = tokio::spawn(relay.stop());
    tokio::task::yield_now().await;
    sink.acknowledging.send_replace(true);
    stopping.await.expect("no panic");
    assert!(outbox.all_sent());
    outbox.hold().await.expect("given up");
}

#[tokio::test]
async fn a_relay_that_waits_for_its_outbox_can_be_stopped() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let _held = outbox.hold().await.expect("held");
    let waiting = relay(&outbox, &sink).spawn();
    tokio::task::yield_now().await;
    waiting.stop().await;
}

#[tokio::test]
async fn a_relay_whose_stream_is_away_can_be_stopped() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    sink.stream().faults.extend([Fault::Stored(0); 1000]);
    outbox.add_some(1);
    let relay = relay(&outbox, &sink).backoff(NEVER, NEVER).spawn();
    until("a failure", || relay.stats().retries == 1).await;
    relay.stop().await;
    assert!(!outbox.all_sent());
}

#[tokio::test]
async fn a_relay_that_is_fenced_holds_the_outbox_again() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.rows().fault = Some(StoreErrorKind::Fenced);
    outbox.add_some(3);
    let _relay = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.numbers(), [1, 2, 3]);
    assert_eq!(sink.stream().messages.len(), 2);
}

#[tokio::test]
async fn a_stream_that_has_gone_back_gets_a_loss_before_anything_else() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let relay = relay(&outbox, &sink).per_message(1).spawn();
    outbox.add_some(5);
    until("all sent", || outbox.all_sent()).await;
    sink.stream().messages.truncate(3);
    outbox.add_some(2);
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.losses(), ["from 5 to 3"]);
    assert_eq!(sink.numbers(), [1, 2, 3, 6, 7]);
    let loss = sink.stream().messages[3].clone();
    assert_eq!((loss.lost.is_some(), loss.horizon), (true, Place::new(6, 0)));
    assert_eq!(relay.stats().losses, 1);
}

#[tokio::test]
async fn a_stream_that_has_gone_back_is_noticed_when_nothing_happens() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let _relay = relay(&outbox, &sink).check_period(Duration::from_millis(2)).spawn();
    outbox.add_some(5);
    until("all sent", || outbox.all_sent()).await;
    sink.stream().messages.clear();
    until("a loss", || sink.losses().len() == 1).await;
    let asked = sink.stream().asked;
    until("more looks", || sink.stream().asked > asked + 10).await;
    assert_eq!(sink.stream().messages.len(), 1, "it is said once");
    assert_eq!(sink.stream().messages[0].horizon, Place::new(6, 0), "who waits for an old place need not wait for ever");
}

#[tokio::test]
async fn a_stream_that_has_gone_back_is_noticed_by_the_next_relay() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let first = relay(&outbox, &sink).per_message(1).spawn();
    outbox.add_some(5);
    until("all sent", || outbox.all_sent()).await;
    first.stop().await;
    sink.stream().messages.truncate(3);
    let _second = relay(&outbox, &sink).spawn();
    until("a loss", || sink.losses().len() == 1).await;
}

#[tokio::test]
async fn a_loss_that_could_not_be_published_is_published_later() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let _relay = relay(&outbox, &sink).per_message(1).spawn();
    outbox.add_some(5);
    until("all sent", || outbox.all_sent()).await;
    {
        let mut stream = sink.stream();
        stream.messages.truncate(3);
        // The second time the loss is stored and not acknowledged, so it is said twice.
        stream.faults.extend([Fault::Stored(0), Fault::Stored(1), Fault::Stored(0)]);
    }
    outbox.add_some(1);
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(sink.losses().len(), 2);
    assert_eq!(sink.numbers(), [1, 2, 3, 6]);
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_a_loss_at_its_place() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.add_some(2);
    outbox.add(entry_of(3, "x".repeat(sink.most_bytes)));
    outbox.add(entry(4));
    let relay = relay(&outbox, &sink).spawn();
    until("all sent", || outbox.all_sent()).await;
    let messages: Vec<_> = sink.stream().messages.iter().map(|message| (message.entries.len(), message.lost.is_some())).collect();
    assert_eq!(messages, [(2, false), (0, true), (1, false)]);
    assert_eq!((relay.stats().oversized, relay.stats().losses), (1, 1));
    sink.check_horizons();
}

#[tokio::test]
async fn a_horizon_that_comes_free_is_said_once() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    outbox.rows().horizon = Some(Place::new(2, 0));
    outbox.add_some(3);
    let _relay = relay(&outbox, &sink).check_period(Duration::from_millis(2)).spawn();
    until("all sent", || outbox.all_sent()).await;
    for held in [Some(3), None] {
        outbox.rows().horizon = held.map(|held| Place::new(held, 0));
        let asked = sink.stream().asked;
        until("more looks", || sink.stream().asked > asked + 5).await;
    }
    let horizons: Vec<_> = sink.stream().messages.iter().map(|message| message.horizon.major).collect();
    assert_eq!(horizons, [2, 4]);
}

#[tokio::test]
async fn without_hints_a_relay_looks_every_period() {
    let (outbox, sink) = (MemoryOutbox::new(), Arc::new(MemorySink::new()));
    let relay = Relay::builder(outbox.clone(), sink.clone()).check_period(Duration::from_millis(5)).spawn();
    until("a holder", || relay.stats().holding).await;
    outbox.add_some(3);
    until("all sent", || outbox.all_sent()).await;
}

fn over(log: &Arc<MemoryLog>, sink: &Arc<MemorySink>) -> RelayBuilder {
    let outbox = LogOutbox::new(log.clone(), log.clone(), "relay");
    Relay::builder(Arc::new(outbox), sink.clone()).check_period(Duration::from_millis(2))
}

#[tokio::test]
async fn the_first_relay_of_a_log_says_that_it_starts_here() {
    let (log, sink) = (Arc::new(MemoryLog::default()), Arc::new(MemorySink::new()));
    log.add(1..=5);
    let first = over(&log, &sink).spawn();
    until("a loss", || sink.losses().len() == 1).await;
    assert_eq!(sink.stream().messages[0].horizon, Place::new(6, 0));
    log.add(6..=8);
    until("entries", || sink.numbers() == [6, 7, 8]).await;
    first.stop().await;
    log.add(9..=10);
    let _second = over(&log, &sink).spawn();
    until("entries", || sink.numbers() == [6, 7, 8, 9, 10]).await;
    assert_eq!(sink.losses().len(), 1, "the second goes on where the first was");
}

#[tokio::test]
async fn what_was_trimmed_before_it_was_relayed_is_a_loss() {
    let (log, sink) = (Arc::new(MemoryLog::default()), Arc::new(MemorySink::new()));
    let first = over(&log, &sink).spawn();
    until("a loss", || sink.losses().len() == 1).await;
    log.add(1..=2);
    until("entries", || sink.numbers() == [1, 2]).await;
    first.stop().await;
    log.add(3..=9);
    log.tables().trimmed = 6;
    let _second = over(&log, &sink).spawn();
    until("another loss", || sink.losses().len() == 2).await;
    log.add(10..=10);
    until("entries", || sink.numbers() == [1, 2, 10]).await;
}

#[tokio::test]
async fn a_stream_that_has_gone_back_is_noticed_by_the_next_relay_of_a_log() {
    let (log, sink) = (Arc::new(MemoryLog::default()), Arc::new(MemorySink::new()));
    let first = over(&log, &sink).spawn();
    until("a loss", || sink.losses().len() == 1).await;
    log.add(1..=2);
    until("entries", || sink.numbers() == [1, 2]).await;
    first.stop().await;
    sink.stream().messages.truncate(1);
    let _second = over(&log, &sink).spawn();
    until("another loss", || sink.losses().len() == 2).await;
}

#[tokio::test]
async fn a_relay_that_cannot_read_where_one_of_another_version_was_starts_anew_with_a_loss() {
    let (log, sink) = (Arc::new(MemoryLog::default()), Arc::new(MemorySink::new()));
    log.add(1..=5);
    log.tables().cursors.insert("relay".to_owned(), wellspring_commands::Cursor::new(r#"{"c":"3","m":"2"}"#));
    let _relay = over(&log, &sink).spawn();
    until("a loss", || sink.losses().len() == 1).await;
    assert!(sink.losses()[0].contains("cannot be read"), "{:?}", sink.losses());
    log.add(6..=6);
    until("entries", || sink.numbers() == [6]).await;
}

#[tokio::test]
async fn a_cursor_that_no_relay_has_saved_is_an_error() {
    let log = Arc::new(MemoryLog::default());
    log.tables().cursors.insert("relay".to_owned(), wellspring_commands::Cursor::new("5"));
    let error = LogOutbox::new(log.clone(), log, "relay").hold().await.expect_err("not ours");
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}
