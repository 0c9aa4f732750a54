//! The log on NATS JetStream, against real servers.
#![cfg(feature = "nats")]

mod streams;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use streams::follower::{Follower, operations};
use streams::outbox::{LOG, MemoryOutbox};
use streams::proxy::Proxy;
use streams::server::{own_nats, url};
use streams::suite::{self, relay, until_older};
use streams::until;
use wellspring_commands::nats::{NatsLog, NatsOptions};
use wellspring_commands::{LogId, OperationLog, ServerId, StoreErrorKind};

const PERIOD: Duration = Duration::from_millis(100);

/// A stream of its own, which is removed in the end.
struct Name {
    url: String,
    name: String,
    id: LogId,
    lease: Duration,
}

impl Name {
    fn at(url: String) -> Name {
        Name { url, name: format!("wellspring-test-{}", ServerId::random()), id: LogId::from_u128(LOG), lease: Duration::from_millis(600) }
    }

    fn here() -> Option<Name> {
        url("WELLSPRING_NATS_URL", "nats", 4222).map(Name::at)
    }

    async fn open(&self) -> Arc<NatsLog> {
        let mut options = NatsOptions::new(&self.url, &self.name);
        options.lease = self.lease;
        options.timeout = Duration::from_secs(2);
        Arc::new(NatsLog::open(options, self.id).await.expect("a log"))
    }

    async fn context(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(&self.url).await.expect("a connection"))
    }

    async fn remove(&self) {
        let context = self.context().await;
        let _ = context.delete_stream(&self.name).await;
        let _ = context.delete_stream(format!("KV_{}-consumers", self.name)).await;
    }
}

macro_rules! suite {
    ($($name:ident($($log:ident),+);)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(name) = Name::here() else { return };
            $(let $log = name.open().await;)+
            suite::$name($($log),+).await;
            name.remove().await;
        }
    )*};
}

suite! {
    every_entry_arrives_in_order_although_relays_are_killed(first, second);
    of_two_relays_one_relays_and_the_other_takes_over(first, second);
    a_hint_comes_with_what_is_published(first, second);
    without_hints_there_is_nothing_but_delay(first, second);
    a_head_knows_what_is_settled_and_what_is_not(log);
    a_head_goes_by_what_follows_the_last_loss(log);
    a_reading_has_about_as_much_as_was_asked_for(log);
    a_reader_that_slept_while_the_log_was_trimmed_finds_out(first, second);
    an_entry_too_large_for_the_stream_is_a_loss_for_all(first, second);
    what_is_published_after_the_wrong_message_is_refused(log);
    a_cursor_of_another_log_is_a_loss(log);
    a_stream_of_another_log_is_refused(log);
    what_follows_a_loss_is_read_from_where_it_says(log);
    an_outbox_that_has_gone_back_is_a_loss_for_all(first, second);
    what_the_outbox_was_not_told_of_is_published_again(first, second);
    a_name_is_held_by_one_and_then_by_the_next(first, second);
}

#[tokio::test]
async fn a_holder_that_lives_keeps_its_name() {
    let Some(name) = Name::here() else { return };
    suite::a_holder_that_lives_keeps_its_name(name.open().await, name.open().await, name.lease).await;
    name.remove().await;
}

#[test]
fn a_holder_that_stood_still_is_fenced() {
    let Some(name) = Name::here() else { return };
    suite::a_holder_that_stood_still_is_fenced(async || name.open().await);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(name.remove());
}

#[tokio::test]
async fn a_stream_that_never_had_a_message_is_read_as_nothing_and_without_an_error() {
    let Some(name) = Name::here() else { return };
    let log = name.open().await;
    let mut follower = Follower::at_head(log).await;
    assert!(!follower.read().await.expect("read"), "there is more of nothing");
    assert_eq!(follower.log.trim(Duration::ZERO).await.expect("trimmed"), 0);
    name.remove().await;
}

/// The numbers of the messages that are in the stream.
async fn numbers(stream: &async_nats::jetstream::stream::Stream) -> Vec<u64> {
    let state = stream.get_info().await.expect("asked").state;
    let mut numbers = Vec::new();
    for number in state.first_sequence..=state.last_sequence {
        numbers.extend(stream.get_raw_message(number).await.map(|message| message.sequence));
    }
    numbers
}

/// A stream of so many messages, and one of them in each.
async fn with_messages(name: &Name, count: u64) -> (Arc<NatsLog>, async_nats::jetstream::stream::Stream) {
    let (log, outbox) = (name.open().await, MemoryOutbox::new());
    let relay = relay(&outbox, &log).per_message(1).batch(1).spawn();
    for number in 1..=count {
        outbox.add_some(1);
        until("sent", || relay.stats().messages == number && outbox.all_sent()).await;
    }
    relay.stop().await;
    let stream = name.context().await.get_stream(&name.name).await.expect("a stream");
    (log, stream)
}

#[tokio::test]
async fn a_message_that_somebody_deleted_does_not_make_those_before_it_old() {
    let Some(name) = Name::here() else { return };
    let (log, stream) = with_messages(&name, 10).await;
    for deleted in [3, 5, 6, 7] {
        stream.delete_message(deleted).await.expect("deleted");
    }
    assert_eq!(log.trim(Duration::from_secs(60)).await.expect("trimmed"), 0);
    assert_eq!(numbers(&stream).await, [1, 2, 4, 8, 9, 10]);
    name.remove().await;
}

#[tokio::test]
async fn what_is_old_is_trimmed_across_deleted_messages_and_the_last_one_that_is_there_stays() {
    let Some(name) = Name::here() else { return };
    let (log, stream) = with_messages(&name, 10).await;
    for deleted in [5, 6, 7, 10] {
        stream.delete_message(deleted).await.expect("deleted");
    }
    until_older(&log).await;
    assert_eq!(numbers(&stream).await, [9]);
    assert_eq!(log.head().await.expect("a head").horizon.major, 10, "the last message says how far it is");
    name.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_trim_at_once_do_not_fail_each_other() {
    let Some(name) = Name::here() else { return };
    let (log, stream) = with_messages(&name, 30).await;
    let mut trims = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let log = name.open().await;
        trims.spawn(async move {
            let mut trimmed = 0;
            for _ in 0..10 {
                trimmed += log.trim(Duration::ZERO).await.expect("trimmed");
            }
            trimmed
        });
    }
    let trimmed: u64 = trims.join_all().await.into_iter().sum();
    assert_eq!(trimmed, 29, "each message is counted once");
    assert_eq!(numbers(&stream).await, [30]);
    assert_eq!(log.head().await.expect("a head").horizon.major, 31);
    name.remove().await;
}

enum Harm {
    Purge,
    DeleteMessage,
    MakeAnew,
}

/// Somebody does something to the stream while one reader has read everything and another nothing; how often each found a loss.
async fn losses_after(harm: Harm) -> Option<(usize, usize)> {
    let name = Name::here()?;
    let harm = async || {
        let context = name.context().await;
        let stream = context.get_stream(&name.name).await.expect("a stream");
        match harm {
            Harm::Purge => drop(stream.purge().keep(3).await.expect("purged")),
            Harm::DeleteMessage => drop(stream.delete_message(5).await.expect("deleted")),
            Harm::MakeAnew => drop(context.delete_stream(&name.name).await.expect("deleted")),
        }
    };
    let losses = suite::losses_after(name.open().await, harm).await;
    name.remove().await;
    Some(losses)
}

#[tokio::test]
async fn a_purged_stream_is_a_loss_for_who_had_not_read_it() {
    let Some(losses) = losses_after(Harm::Purge).await else { return };
    assert_eq!(losses, (1, 0));
}

#[tokio::test]
async fn a_deleted_message_is_a_loss_for_who_had_not_read_it() {
    let Some(losses) = losses_after(Harm::DeleteMessage).await else { return };
    assert_eq!(losses, (1, 0));
}

#[tokio::test]
async fn a_stream_made_anew_is_a_loss_for_all() {
    let Some((behind, current)) = losses_after(Harm::MakeAnew).await else { return };
    assert!(behind >= 1 && current >= 1, "{behind} {current}");
}

#[tokio::test]
async fn a_message_of_a_stranger_stops_nobody() {
    let Some(name) = Name::here() else { return };
    let log = name.open().await;
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(log.clone()).await;
    let _relay = relay(&outbox, &log).spawn();
    outbox.add_some(1);
    until("all sent", || outbox.all_sent()).await;
    let context = name.context().await;
    context.publish(format!("{}.log", name.name), "hello".into()).await.expect("sent").await.expect("stored");
    outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.losses == 1).await;
    let more = outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.covers(&more[0])).await;
    name.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_it_had_written() {
    let Some(mut server) = own_nats().await else { return };
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    let (log, outbox) = (name.open().await, MemoryOutbox::new());
    let mut follower = Follower::at_head(name.open().await).await;
    let relay = relay(&outbox, &log).batch(50).spawn();
    let mut added = Vec::new();
    for _ in 0..3 {
        added.extend(outbox.add_some(2000));
        follower.follow(PERIOD, |follower| follower.order.len() * 2 >= added.len()).await;
        server.kill();
        let error = log.head().await.expect_err("nobody is there");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        added.extend(outbox.add_some(10));
        server.start_again().await;
    }
    follower.follow(PERIOD, |follower| follower.covers(&added[added.len() - 1])).await;
    // What a server writes last before it is killed may be cut: then it has to be said.
    let losses = relay.stats().losses;
    if losses == 0 {
        assert_eq!(follower.order, operations(&added));
        assert_eq!(follower.losses, 0);
    } else {
        println!("the server has forgotten something, and {losses} losses were published");
        assert!(follower.losses > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_everything_is_noticed_by_all() {
    let Some(mut server) = own_nats().await else { return };
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    let (log, outbox) = (name.open().await, MemoryOutbox::new());
    let other = name.open().await;
    let mut current = Follower::at_head(other.clone()).await;
    let mut behind = Follower::at_head(other.clone()).await;
    let relay = relay(&outbox, &log).spawn();
    outbox.add_some(100);
    current.follow(PERIOD, |current| current.order.len() == 100).await;
    server.kill();
    std::fs::remove_dir_all(server.directory.path().join("jetstream")).expect("removed");
    server.start_again().await;
    until("the relay to say so", || relay.stats().losses == 1).await;
    for follower in [&mut current, &mut behind] {
        // The stream is another one, and the relay says so too: who has looked between is told twice.
        follower.follow(PERIOD, |follower| follower.losses > 0 && follower.horizon.major == 101).await;
        assert!(follower.losses <= 2);
    }
    let added = outbox.add_some(100);
    for follower in [&mut current, &mut behind] {
        follower.follow(PERIOD, |follower| follower.covers(&added[99])).await;
    }
    assert_eq!(other.head().await.expect("a head").horizon.major, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_again_when_the_server_was_away() {
    let Some(mut server) = own_nats().await else { return };
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    suite::hints_come_again_when_the_server_was_away(name.open().await, name.open().await, &mut server).await;
}

/// The stream goes back to a backup, and those who had not read what it forgot find no gap in the sequence numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_the_last_messages_is_noticed_although_a_relay_restarted_meanwhile() {
    let Some(mut server) = own_nats().await else { return };
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    let (log, outbox) = (name.open().await, MemoryOutbox::new());
    let mut behind = Follower::at_head(log.clone()).await;
    let first = relay(&outbox, &log).per_message(1).spawn();
    let kept = outbox.add_some(10);
    until("all sent", || outbox.all_sent()).await;
    let (store, backup) = (server.directory.path().join("jetstream"), server.directory.path().join("backup"));
    server.kill();
    copy(&store, &backup);
    server.start_again().await;
    let mut current = Follower::at_head(name.open().await).await;
    let forgotten = outbox.add_some(10);
    current.follow(PERIOD, |current| current.covers(&forgotten[9])).await;
    first.stop().await;
    server.kill();
    std::fs::remove_dir_all(&store).expect("removed");
    std::fs::rename(&backup, &store).expect("restored");
    server.start_again().await;
    let _second = relay(&outbox, &log).per_message(1).spawn();
    let added = outbox.add_some(20);
    for follower in [&mut behind, &mut current] {
        follower.follow(PERIOD, |follower| follower.covers(&added[19]) && follower.losses > 0).await;
    }
    assert_eq!(behind.order[..10], operations(&kept));
    assert!(forgotten.iter().all(|entry| !behind.seen.contains(&entry.operation)));
}

/// The outbox keeps no mark, and the new messages take more numbers than were forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_forgotten_messages_is_told_although_no_relay_noticed() {
    forgotten(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_told_also_if_the_stream_has_come_to_just_the_message_that_it_had_read() {
    forgotten(10).await;
}

/// A reader has read ten messages, the server forgets them, and so many others come.
async fn forgotten(others: u64) {
    let Some(mut server) = own_nats().await else { return };
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    let (log, outbox) = (name.open().await, MemoryOutbox::new());
    let (store, backup) = (server.directory.path().join("jetstream"), server.directory.path().join("backup"));
    server.kill();
    copy(&store, &backup);
    server.start_again().await;
    let mut current = Follower::at_head(log.clone()).await;
    let first = relay(&outbox, &log).per_message(1).spawn();
    outbox.add_some(10);
    current.follow(PERIOD, |current| current.order.len() == 10).await;
    first.stop().await;
    server.kill();
    std::fs::remove_dir_all(&store).expect("removed");
    std::fs::rename(&backup, &store).expect("restored");
    server.start_again().await;
    outbox.rows().told = None;
    let second = relay(&outbox, &log).per_message(1).spawn();
    outbox.add_some(others);
    until("all sent", || outbox.all_sent()).await;
    assert_eq!(second.stats().losses, 0);
    current.follow(PERIOD, |current| current.losses == 1).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_dead_without_a_word_is_made_anew() {
    let Some(server) = own_nats().await else { return };
    let (proxy, ping) = (Proxy::to(server.port).await, Duration::from_millis(250));
    let name = Name::at(format!("nats://127.0.0.1:{}", server.port));
    let options = NatsOptions { ping, timeout: ping, ..NatsOptions::new(format!("nats://127.0.0.1:{}", proxy.port), &name.name) };
    let first = Arc::new(NatsLog::open(options, name.id).await.expect("a log"));
    suite::a_connection_that_went_dead_without_a_word_is_made_anew(first, name.open().await, &proxy, ping).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let error = NatsLog::open(NatsOptions::new("nats://127.0.0.1:1", "none"), LogId::random()).await.expect_err("nobody is there");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
}
