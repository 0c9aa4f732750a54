//! What a client does once more: calls of values that were stale before they had come, and connections.

mod support;

use std::time::Duration;

use support::near::soon;
use support::recorded::Said;
use support::script::{Link, Links, Script};
use tokio::time::Instant;
use wellspring_rpc::wire::{Format, Frame, Head, MethodId, System};
use wellspring_rpc::{CallError, Connected, Remote, Replica};

const GET: &str = "ICounter.Get:2";

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

/// A client that is connected, and the server that it is connected to.
async fn connected() -> (Remote, Links, Link) {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).connect();
    let mut link = links.next().await;
    link.names = vec![GET.to_owned(), "IDemo.Add:3".to_owned()];
    link.greet(1, 1).await;
    (remote, links, link)
}

fn get(remote: &Remote) -> tokio::task::JoinHandle<Result<Replica<i64>, CallError>> {
    let remote = remote.clone();
    tokio::spawn(async move { remote.compute(&method(GET), ("k",)).await })
}

fn ends(link: &Link, call: &Said) {
    link.say(&Head::system(System::Invalidate, call.id), |_| Ok(()));
}

fn answers(link: &Link, call: &Said, value: i64) {
    link.say(&Head::system(System::Ok, call.id), |out| out.value(&value));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_stale_before_it_has_come_is_asked_for_again() {
    let (remote, _links, mut link) = connected().await;
    let asking = get(&remote);
    let first = link.call(GET).await;
    ends(&link, &first);
    let second = link.call(GET).await;
    assert!(first.id < second.id, "it is another call");
    assert_eq!((second.call_type, &second.arguments), (first.call_type, &first.arguments), "of the same value");
    ends(&link, &second);
    let third = link.call(GET).await;
    // Too late: nobody waits for those any more.
    answers(&link, &first, 1);
    answers(&link, &second, 2);
    answers(&link, &third, 3);
    let replica = soon(asking).await.expect("no panic").expect("a value");
    assert_eq!((*replica.value(), replica.is_stale(), remote.open_calls()), (3, false, 1));
    assert_eq!(link.hear_all(), [], "of what the server itself has ended it is told nothing");
    ends(&link, &third);
    soon(replica.stale()).await;
    assert_eq!(remote.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_stale_before_it_has_come_three_times_in_a_row_is_given_up() {
    let (remote, _links, mut link) = connected().await;
    let asking = get(&remote);
    for _ in 0..3 {
        let call = link.call(GET).await;
        ends(&link, &call);
    }
    assert_eq!(soon(asking).await.expect("no panic").map(Replica::into_value), Err(CallError::Stale));
    assert_eq!((link.hear_all(), remote.open_calls()), ([].as_slice(), 0), "it is not asked for a fourth time");
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_end_comes_right_behind_it_is_given_and_is_stale() {
    let (remote, _links, mut link) = connected().await;
    let asking = get(&remote);
    let call = link.call(GET).await;
    let mut frame = Frame::new(Format::Msgpack6c);
    frame.push(&Head::system(System::Ok, call.id), |out| out.value(&7)).expect("written");
    frame.push(&Head::system(System::Invalidate, call.id), |_| Ok(())).expect("written");
    link.send(frame.take());
    let replica = soon(asking).await.expect("no panic").expect("a value");
    assert_eq!((*replica.value(), replica.is_stale(), remote.open_calls()), (7, true, 0));
    assert_eq!(link.hear_all(), []);
}

#[tokio::test(start_paused = true)]
async fn a_regular_call_has_no_end_that_it_would_be_made_again_for() {
    let (remote, _links, mut link) = connected().await;
    let add = method("IDemo.Add:3");
    let adding = tokio::spawn(async move { remote.call::<i64>(&add, (40, 2)).await });
    let call = link.call("IDemo.Add:3").await;
    ends(&link, &call);
    answers(&link, &call, 42);
    assert_eq!(soon(adding).await.expect("no panic"), Ok(42));
    assert_eq!(link.hear_all(), []);
}

#[tokio::test(start_paused = true)]
async fn pauses_double_after_connections_that_were_short_and_begin_anew_after_one_that_was_not() {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).connect();
    let mut state = remote.connected();
    // How long a connection lasts, and the pause after it, give or take a quarter.
    let table =
        [(14, 1), (14, 2), (0, 4), (14, 8), (15, 1), (14, 2), (14, 4), (20, 1), (0, 2), (0, 4), (0, 8), (0, 16), (0, 32), (0, 60), (0, 60)];
    for (at, (lasts, pause)) in table.into_iter().enumerate() {
        let mut link = links.next().await;
        link.greet(1, 1).await;
        soon(state.wait_for(|state| *state == Connected::Yes)).await.expect("it lives");
        tokio::time::sleep(Duration::from_secs(lasts)).await;
        link.cut();
        let again = soon(state.wait_for(|state| matches!(state, Connected::Again(_)))).await.map(|state| *state);
        let Ok(Connected::Again(next)) = again else { panic!("{again:?}") };
        let waits = (next - Instant::now()).as_secs_f64();
        let pause = f64::from(pause);
        assert!((0.75 * pause..=1.25 * pause).contains(&waits), "connection {at} of {lasts} s: {waits} s, and not about {pause} s");
        tokio::time::sleep_until(next).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_nobody_says_who_is_there_is_a_failed_attempt_after_ten_seconds() {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).connect();
    let mut state = remote.connected();
    for pause in [1.0, 2.0, 4.0] {
        let mut link = links.next().await;
        let since = Instant::now();
        assert_eq!(link.gone().await, Some(1000));
        assert_eq!(since.elapsed().as_secs(), 10);
        let again = soon(state.wait_for(|state| matches!(state, Connected::Again(_)))).await.map(|state| *state);
        let Ok(Connected::Again(next)) = again else { panic!("{again:?}") };
        let waits = (next - Instant::now()).as_secs_f64();
        assert!((0.75 * pause..=1.25 * pause).contains(&waits), "{waits} s, and not about {pause} s");
    }
}
