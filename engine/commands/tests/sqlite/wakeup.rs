//! Hints.

use std::time::Duration;

use tokio::time::timeout;
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::{Consumers, Hints, NewEvent, Store, Wakeup};

use crate::{commit, database, draft, folder, start};

const SOON: Duration = Duration::from_secs(20);

/// A listener that has heard what there was when the poll began.
async fn listen(sqlite: &Sqlite) -> Hints {
    let mut hints = sqlite.hints();
    commit(sqlite, &[]).await.expect("committed");
    timeout(SOON, hints.next()).await.expect("a hint");
    settle(&mut hints).await;
    hints
}

/// Waits until nothing comes any more: for many periods of the poll.
async fn settle(hints: &mut Hints) {
    while timeout(Duration::from_millis(250), hints.next()).await.is_ok() {}
}

#[tokio::test]
async fn a_commit_is_hinted_at_in_its_own_process_and_to_other_handles() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let (mut here, mut there) = (listen(&one).await, listen(&other).await);
    for id in 0..20 {
        commit(&one, &[id]).await.expect("committed");
        timeout(SOON, here.next()).await.expect("a hint here");
        timeout(SOON, there.next()).await.expect("a hint there");
    }
}

#[tokio::test]
async fn what_was_committed_before_somebody_listened_is_in_the_log_and_what_comes_after_is_hinted_at() {
    let folder = folder();
    let one = database(&folder);
    for id in 0..20 {
        let other = Sqlite::open(one.path()).expect("opened");
        let mut hints = other.hints();
        let cursor = start(&other).await;
        commit(&one, &[id]).await.expect("committed");
        while crate::entries(&other, &cursor).await.0.is_empty() {
            timeout(SOON, hints.next()).await.expect("a hint");
        }
    }
}

#[tokio::test]
async fn what_is_neither_an_operation_nor_an_event_wakes_nobody() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let mut there = listen(&other).await;
    settle(&mut there).await;
    let held = one.try_hold("relay").await.expect("asked").expect("free");
    held.save(&start(&one).await).await.expect("saved");
    Connection::open(one.path()).expect("opened").execute("INSERT INTO price VALUES (1, 1)", []).expect("written");
    timeout(Duration::from_millis(100), there.next()).await.expect_err("a hint for nothing");
    commit(&one, &[2]).await.expect("committed");
    timeout(SOON, there.next()).await.expect("a hint");
}

#[tokio::test]
async fn a_poll_that_has_fallen_asleep_wakes_up_for_a_commit() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let mut there = listen(&other).await;
    for id in 0..3 {
        timeout(Duration::from_millis(700), there.next()).await.expect_err("a hint for nothing");
        commit(&one, &[id]).await.expect("committed");
        timeout(SOON, there.next()).await.expect("a hint");
    }
}

#[tokio::test]
async fn an_event_that_is_requeued_wakes_other_handles() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let mut draft = draft();
    draft.add_event(NewEvent::new("mail", "1"));
    one.commit(Default::default(), draft).await.expect("committed");
    let queue = one.events();
    let claim = queue.claim(&["mail".into()], 1, SOON).await.expect("claimed");
    assert!(queue.fail(&claim.events[0], "no", None).await.expect("failed"));
    let mut there = listen(&other).await;
    assert!(queue.requeue(claim.events[0].id).await.expect("requeued"));
    timeout(SOON, there.next()).await.expect("a hint");
}

#[tokio::test]
async fn hints_end_quietly_with_the_last_handle() {
    let folder = folder();
    let sqlite = database(&folder);
    let mut hints = listen(&sqlite).await;
    drop(sqlite);
    settle(&mut hints).await;
    timeout(Duration::from_millis(20), hints.next()).await.expect_err("nobody is there to hint");
}

#[tokio::test]
async fn notifying_wakes_the_listeners_of_the_process() {
    let folder = folder();
    let sqlite = database(&folder);
    let mut hints = listen(&sqlite).await;
    sqlite.notify();
    timeout(SOON, hints.next()).await.expect("a hint");
}
