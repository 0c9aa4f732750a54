//! How fast it is, for people to look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::follower::Follower;
use super::outbox::MemoryOutbox;
use super::suite::{StreamLog, relay};
use super::{NEVER, entry, until};

pub async fn report<L: StreamLog>(first: Arc<L>, second: Arc<L>) {
    let outbox = MemoryOutbox::new();
    for (count, per_message) in [(200_000_u64, 64), (20_000, 1)] {
        let there = outbox.rows().entries.len() as u64;
        outbox.rows().entries.extend((there + 1..=there + count).map(entry));
        let mut follower = Follower::at_head(second.clone()).await;
        let begun = Instant::now();
        let relay = relay(&outbox, &first).per_message(per_message).spawn();
        until("all sent", || outbox.all_sent()).await;
        let published = begun.elapsed();
        relay.stop().await;
        let begun = Instant::now();
        while follower.read().await.expect("read") {}
        let read = begun.elapsed();
        assert_eq!(follower.order.len() as u64, count);
        let rate = |time: Duration| (count as f64 / time.as_secs_f64()) as u64;
        println!("{per_message} per message: published {}/s, read {}/s", rate(published), rate(read));
    }
    let mut follower = Follower::at_head(second.clone()).await;
    let relay = relay(&outbox, &first).check_period(NEVER).spawn();
    until("a holder", || relay.stats().holding).await;
    let mut times = Vec::new();
    for round in 1..=500 {
        let begun = Instant::now();
        outbox.add_some(1);
        follower.follow(NEVER, |follower| follower.order.len() == round).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("from the outbox to another server: p50 {:?}, p99 {:?}", times[250], times[495]);
    drop(relay);
    let (_relay, before) = (super::suite::relay(&outbox, &first).check_period(Duration::from_secs(1)).spawn(), processor_time());
    let idle = tokio::time::timeout(Duration::from_secs(10), follower.follow(Duration::from_secs(1), |_| false)).await;
    assert!(idle.is_err());
    println!("idle: {:.3} % of a core", (processor_time() - before).as_secs_f64() * 10.0);
}

/// Of this process, in ticks of a hundredth of a second.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    Duration::from_millis(10 * fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
}
