//! Named consumers.

use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::timeout;
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::{Consumers, Cursor, StoreErrorKind};

use crate::{database, folder};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_name_is_held_by_one_at_a_time_and_free_again_when_it_is_dropped() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let held = one.try_hold("Relay/1").await.expect("asked").expect("free");
    assert!(one.try_hold("Relay/1").await.expect("asked").is_none());
    assert!(other.try_hold("Relay/1").await.expect("asked").is_none());
    let second = other.try_hold("relay/1").await.expect("asked").expect("another name");
    drop(held);
    let third = other.try_hold("Relay/1").await.expect("asked").expect("free again");
    drop((second, third));
}

#[tokio::test]
async fn a_cursor_outlives_its_holder() {
    let folder = folder();
    let sqlite = database(&folder);
    let held = sqlite.hold("relay").await.expect("held");
    assert_eq!(held.cursor().await.expect("read"), None);
    held.save(&Cursor::new("one")).await.expect("saved");
    held.save(&Cursor::new("two")).await.expect("saved");
    assert_eq!(held.cursor().await.expect("read"), Some(Cursor::new("two")));
    let path = sqlite.path().to_owned();
    drop((held, sqlite));
    let sqlite = Sqlite::open(path).expect("opened");
    let held = sqlite.hold("relay").await.expect("held");
    assert_eq!(held.cursor().await.expect("read"), Some(Cursor::new("two")));
    let stranger = sqlite.hold("other").await.expect("held");
    assert_eq!(stranger.cursor().await.expect("read"), None);
}

#[tokio::test]
async fn who_waits_for_a_name_gets_it_when_it_is_given_up() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    for waiting in [one.clone(), other] {
        let held = one.hold("relay").await.expect("held");
        let next = tokio::spawn(async move { waiting.hold("relay").await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!next.is_finished());
        drop(held);
        timeout(SOON, next).await.expect("in time").expect("no panic").expect("held");
    }
}

#[tokio::test]
async fn who_stops_waiting_for_a_name_never_ends_up_holding_it() {
    let folder = folder();
    let sqlite = database(&folder);
    // Dropped after each number of polls there is, each at a time when the name may be free.
    for polls in 1..40 {
        let held = (polls % 2 == 0).then(|| sqlite.try_hold("relay"));
        let held = match held {
            Some(held) => held.await.expect("asked"),
            None => None,
        };
        let mut hold = sqlite.hold("relay");
        for poll in 0..polls {
            if hold.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
            if poll % 4 == 3 {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        }
        drop((held, hold));
        let next = timeout(SOON, sqlite.hold("relay")).await.expect("free").expect("held");
        drop(next);
    }
}

#[tokio::test]
async fn a_holder_whose_name_was_taken_over_cannot_save() {
    let folder = folder();
    let sqlite = database(&folder);
    let held = sqlite.hold("relay").await.expect("held");
    held.save(&Cursor::new("mine")).await.expect("saved");
    // Somebody removes the lock file, which is how a lock is lost that nobody gave up.
    for entry in std::fs::read_dir(folder.path()).expect("listed") {
        let path = entry.expect("listed").path();
        if path.extension().is_some_and(|extension| extension == "consumer") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let thief = sqlite.try_hold("relay").await.expect("asked").expect("free");
    thief.save(&Cursor::new("theirs")).await.expect("saved");
    assert_eq!(held.save(&Cursor::new("mine again")).await.expect_err("fenced").kind(), StoreErrorKind::Fenced);
    assert_eq!(thief.cursor().await.expect("read"), Some(Cursor::new("theirs")));
}

#[tokio::test]
async fn a_held_name_is_not_lost_while_the_process_lives() {
    let folder = folder();
    let sqlite = database(&folder);
    let held = sqlite.hold("relay").await.expect("held");
    timeout(Duration::from_millis(20), held.lost()).await.expect_err("not lost");
}

#[cfg(unix)]
#[tokio::test]
async fn two_paths_to_one_file_are_one_consumer() {
    let (folder, elsewhere) = (crate::folder(), crate::folder());
    let one = database(&folder);
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(one.path(), &link).expect("linked");
    let other = Sqlite::open(&link).expect("opened");
    let _held = one.try_hold("relay").await.expect("asked").expect("free");
    assert!(other.try_hold("relay").await.expect("asked").is_none());
}

#[tokio::test]
async fn a_name_that_is_held_while_the_database_cannot_be_written_to_is_given_up_again() {
    let folder = folder();
    let path = database(&folder).path().to_owned();
    let sqlite = Sqlite::builder(&path).busy_timeout(Duration::from_millis(20)).open().expect("opened");
    let other = Connection::open(&path).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    assert_eq!(sqlite.try_hold("relay").await.expect_err("busy").kind(), StoreErrorKind::Conflict);
    other.execute_batch("ROLLBACK").expect("rolled back");
    assert!(sqlite.try_hold("relay").await.expect("asked").is_some());
}

#[tokio::test]
async fn who_gave_up_while_it_was_being_given_a_name_does_not_fence_the_next_holder() {
    let folder = folder();
    let one = database(&folder);
    let other = Sqlite::open(one.path()).expect("opened");
    let busy = Connection::open(one.path()).expect("opened");
    busy.execute_batch("BEGIN IMMEDIATE").expect("begun");
    timeout(Duration::from_millis(500), one.try_hold("relay")).await.expect_err("nobody can write");
    // Its write is still to come.
    let refused = timeout(Duration::from_secs(5), other.try_hold("relay")).await.expect("at once").expect("asked");
    assert!(refused.is_none());
    busy.execute_batch("ROLLBACK").expect("rolled back");
    let held = timeout(SOON, other.hold("relay")).await.expect("in time").expect("held");
    held.save(&Cursor::new("mine")).await.expect("saved");
}
