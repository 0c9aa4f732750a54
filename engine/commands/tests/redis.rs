//! The log on Redis Streams, against real servers.
#![cfg(feature = "redis")]

mod streams;

use std::sync::Arc;
use std::time::Duration;

use streams::follower::{Follower, operations};
use streams::outbox::{LOG, MemoryOutbox};
use streams::proxy::Proxy;
use streams::server::{OwnServer, own_redis, url};
use streams::suite::{self, relay, until_older};
use streams::{entry, entry_of, until};
use wellspring_commands::redis::{RedisLog, RedisOptions};
use wellspring_commands::{LogId, Message, OperationLog, Place, Reading, ServerId, Sink, StoreErrorKind};

const PERIOD: Duration = Duration::from_millis(100);

/// Keys of its own, which are removed in the end.
struct Keys {
    url: String,
    prefix: String,
    id: LogId,
    lease: Duration,
}

impl Keys {
    fn at(url: String) -> Keys {
        Keys {
            url,
            prefix: format!("wellspring-test-{}", ServerId::random()),
            id: LogId::from_u128(LOG),
            lease: Duration::from_millis(600),
        }
    }

    fn here() -> Option<Keys> {
        url("WELLSPRING_REDIS_URL", "redis", 6379).map(Keys::at)
    }

    async fn open(&self) -> Arc<RedisLog> {
        let mut options = RedisOptions::new(&self.url, &self.prefix);
        options.lease = self.lease;
        options.timeout = Duration::from_secs(2);
        Arc::new(RedisLog::open(options, self.id).await.expect("a log"))
    }

    async fn command<T: redis::FromRedisValue>(&self, parts: &[&str]) -> T {
        let client = redis::Client::open(self.url.as_str()).expect("a client");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let mut command = redis::cmd(parts[0]);
        for part in &parts[1..] {
            command.arg(part.replace("LOG", &format!("{}:log", self.prefix)));
        }
        command.query_async(&mut connection).await.expect("an answer")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let Ok(mut connection) = redis::Client::open(self.url.as_str()).and_then(|client| client.get_connection()) else { return };
        let found: Vec<String> = redis::cmd("KEYS").arg(format!("{}*", self.prefix)).query(&mut connection).unwrap_or_default();
        for key in found {
            let _: Result<u64, _> = redis::cmd("DEL").arg(key).query(&mut connection);
        }
    }
}

macro_rules! suite {
    ($($name:ident($($log:ident),+);)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(keys) = Keys::here() else { return };
            $(let $log = keys.open().await;)+
            suite::$name($($log),+).await;
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
    let Some(keys) = Keys::here() else { return };
    suite::a_holder_that_lives_keeps_its_name(keys.open().await, keys.open().await, keys.lease).await;
}

#[test]
fn a_holder_that_stood_still_is_fenced() {
    let Some(keys) = Keys::here() else { return };
    suite::a_holder_that_stood_still_is_fenced(async || keys.open().await);
}

/// Somebody does something to the keys while one reader has read everything and another nothing; how often each found a loss.
async fn losses_after(parts: &[&str]) -> Option<(usize, usize)> {
    let keys = Keys::here()?;
    let mut parts: Vec<_> = parts.iter().map(|part| (*part).to_owned()).collect();
    let harm = async || {
        if parts[0] == "XDEL" {
            let found: Vec<(String, Vec<String>)> = keys.command(&["XRANGE", "LOG", "-", "+"]).await;
            parts.push(found[4].0.clone());
        }
        let _: u64 = keys.command(&parts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    };
    Some(suite::losses_after(keys.open().await, harm).await)
}

#[tokio::test]
async fn a_stream_trimmed_by_somebody_is_a_loss_for_who_had_not_read_it() {
    let Some(losses) = losses_after(&["XTRIM", "LOG", "MAXLEN", "3"]).await else { return };
    assert_eq!(losses, (1, 0));
}

#[tokio::test]
async fn a_deleted_message_is_a_loss_for_who_had_not_read_it() {
    let Some(losses) = losses_after(&["XDEL", "LOG"]).await else { return };
    assert_eq!(losses, (1, 0));
}

#[tokio::test]
async fn a_deleted_stream_is_a_loss_for_who_had_not_read_it() {
    let Some(losses) = losses_after(&["DEL", "LOG"]).await else { return };
    assert_eq!(losses, (1, 0));
}

#[tokio::test]
async fn a_message_of_a_stranger_stops_nobody() {
    let Some(keys) = Keys::here() else { return };
    let log = keys.open().await;
    let outbox = MemoryOutbox::new();
    let mut follower = Follower::at_head(log.clone()).await;
    let _relay = relay(&outbox, &log).spawn();
    outbox.add_some(1);
    until("all sent", || outbox.all_sent()).await;
    let _: String = keys.command(&["XADD", "LOG", "*", "greeting", "hello"]).await;
    outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.losses == 1).await;
    let more = outbox.add_some(1);
    follower.follow(PERIOD, |follower| follower.covers(&more[0])).await;
}

#[tokio::test]
async fn an_answer_has_a_few_megabytes_however_much_was_asked_for() {
    let Some(keys) = Keys::here() else { return };
    let (log, outbox) = (keys.open().await, MemoryOutbox::new());
    let mut cursor = log.head().await.expect("a head").cursor;
    let added: Vec<_> = (1..=20).map(|number| outbox.add(entry_of(number, "x".repeat(900_000)))).collect();
    let _relay = relay(&outbox, &log).per_message(1).batch(4).spawn();
    until("all sent", || outbox.all_sent()).await;
    let mut read = Vec::new();
    loop {
        let Reading::Entries { entries, cursor: next, more, .. } = log.read(&cursor, 1000).await.expect("read") else { panic!("lost") };
        assert!(entries.len() <= 5, "{} of 0.9 MB each in one answer", entries.len());
        assert!(!(entries.is_empty() && more), "nothing, and yet there is more");
        read.extend(entries);
        cursor = next;
        if !more {
            break;
        }
    }
    assert_eq!(operations(&read), operations(&added));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_memory_is_full_can_be_read_and_trimmed() {
    let Some((_server, keys)) = a_server(&["--appendonly", "no", "--save", ""]).await else { return };
    let (log, outbox) = (keys.open().await, MemoryOutbox::new());
    let start = log.head().await.expect("a head").cursor;
    let sending = relay(&outbox, &log).per_message(1).spawn();
    let added = outbox.add_some(10);
    until("all sent", || outbox.all_sent()).await;
    sending.stop().await;
    let _: String = keys.command(&["CONFIG", "SET", "maxmemory", "100kb"]).await;
    let end = log.end(None).await.expect("an end");
    let message = Message { log: log.id(), entries: vec![entry(11)], horizon: Place::new(12, 0), lost: None };
    let refused = log.publish(&end.mark, &[message]).await.expect_err("there is no room");
    assert_eq!(refused.kind(), StoreErrorKind::Full);
    let other = keys.open().await;
    assert_eq!(other.head().await.expect("a head").horizon.major, 11);
    let Reading::Entries { entries, .. } = other.read(&start, 100).await.expect("read") else { panic!("lost") };
    assert_eq!(operations(&entries), operations(&added));
    until_older(&other).await;
    // What has no name yet cannot get one, and says why.
    let fresh = Keys::at(keys.url.clone());
    assert_eq!(fresh.open().await.head().await.expect_err("there is no room").kind(), StoreErrorKind::Full);
}

async fn a_server(persistence: &[&str]) -> Option<(OwnServer, Keys)> {
    let server = own_redis(persistence).await?;
    let keys = Keys::at(format!("redis://127.0.0.1:{}", server.port));
    Some((server, keys))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_with_its_data_on_disk_loses_nothing() {
    let Some((mut server, keys)) = a_server(&["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).await else { return };
    let (log, outbox) = (keys.open().await, MemoryOutbox::new());
    let mut follower = Follower::at_head(keys.open().await).await;
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
    follower.follow(PERIOD, |follower| follower.order.len() >= added.len()).await;
    assert_eq!(follower.order, operations(&added));
    assert_eq!((follower.losses, relay.stats().losses), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_everything_is_noticed_by_all() {
    let Some((mut server, keys)) = a_server(&["--appendonly", "no", "--save", ""]).await else { return };
    let (log, outbox) = (keys.open().await, MemoryOutbox::new());
    let other = keys.open().await;
    let mut current = Follower::at_head(other.clone()).await;
    let mut behind = Follower::at_head(other.clone()).await;
    let relay = relay(&outbox, &log).spawn();
    outbox.add_some(100);
    current.follow(PERIOD, |current| current.order.len() == 100).await;
    server.kill();
    server.start_again().await;
    until("the relay to say so", || relay.stats().losses == 1).await;
    for follower in [&mut current, &mut behind] {
        // The stream is another one, and the relay says so too: who has looked between is told twice.
        follower.follow(PERIOD, |follower| follower.losses > 0 && follower.horizon.major == 101).await;
        assert!(follower.losses <= 2);
    }
    let added = outbox.add_some(100);
    for follower in [&mut current, &mut behind] {
        follower.follow(PERIOD, |follower| follower.covers(&added[added.len() - 1])).await;
    }
    assert_eq!(current.order[100..], operations(&added));
    assert_eq!(other.head().await.expect("a head").horizon.major, 201);
}

/// The stream goes back to a backup, and those who had not read what it forgot find no gap in the ordinals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_the_last_messages_is_noticed_although_a_relay_restarted_meanwhile() {
    let Some((mut server, keys)) = a_server(&["--appendonly", "no", "--save", ""]).await else { return };
    let (log, outbox) = (keys.open().await, MemoryOutbox::new());
    let mut behind = Follower::at_head(log.clone()).await;
    let first = relay(&outbox, &log).per_message(1).spawn();
    let kept = outbox.add_some(10);
    until("all sent", || outbox.all_sent()).await;
    let _: String = keys.command(&["SAVE"]).await;
    let mut current = Follower::at_head(log.clone()).await;
    let forgotten = outbox.add_some(10);
    current.follow(PERIOD, |current| current.order.len() == 10).await;
    first.stop().await;
    server.kill();
    server.start_again().await;
    let _second = relay(&outbox, &log).per_message(1).spawn();
    let added = outbox.add_some(20);
    for follower in [&mut behind, &mut current] {
        follower.follow(PERIOD, |follower| follower.covers(&added[19]) && follower.losses == 1).await;
    }
    assert_eq!(behind.order[..10], operations(&kept));
    assert!(forgotten.iter().all(|entry| !behind.seen.contains(&entry.operation)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_again_when_the_server_was_away() {
    let Some((mut server, keys)) = a_server(&["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).await else { return };
    suite::hints_come_again_when_the_server_was_away(keys.open().await, keys.open().await, &mut server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_went_dead_without_a_word_is_made_anew() {
    let Some((server, keys)) = a_server(&["--appendonly", "no", "--save", ""]).await else { return };
    let (proxy, ping) = (Proxy::to(server.port).await, Duration::from_millis(250));
    let options = RedisOptions { ping, timeout: ping, ..RedisOptions::new(format!("redis://127.0.0.1:{}", proxy.port), &keys.prefix) };
    let first = Arc::new(RedisLog::open(options, keys.id).await.expect("a log"));
    suite::a_connection_that_went_dead_without_a_word_is_made_anew(first, keys.open().await, &proxy, ping).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_time() {
    let options = RedisOptions { timeout: Duration::from_millis(500), ..RedisOptions::new("redis://127.0.0.1:1", "none") };
    let error = RedisLog::open(options, LogId::random()).await.expect_err("nobody is there");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let options = RedisOptions::new("nonsense", "none");
    assert_eq!(RedisLog::open(options, LogId::random()).await.expect_err("no address").kind(), StoreErrorKind::Other);
}
