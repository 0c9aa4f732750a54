//! A database server that goes away, and one that takes nothing.

use std::sync::Arc;
use std::time::Duration;

use wellspring_tests::cluster::{Answer, Ask, Job, OwnPostgres, Place, Setup, every_key, lane_key};

use crate::crowd::{Crowd, check, done, run, start, well};
use crate::seed;
use crate::storm::{Storm, storm};

async fn own() -> Option<(Arc<OwnPostgres>, Place)> {
    let own = Arc::new(tokio::task::spawn_blocking(OwnPostgres::start).await.expect("no panic")?);
    let place = Place::postgres_at(own.url()).await.expect("a place");
    Some((own, place))
}

#[tokio::test]
async fn a_database_that_crashes_and_comes_back_loses_nothing_and_leaves_nobody_stale() {
    let Some((own, place)) = own().await else { return };
    let restarts = async |storm: Arc<Storm>| {
        while !storm.is_over() {
            let own = own.clone();
            tokio::task::spawn_blocking(move || own.crash()).await.expect("no panic").expect("up again");
            storm.count("crashed");
            // Long enough for everybody to be at work again.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    };
    storm(&place, seed("restarts"), restarts).await;
}

#[tokio::test]
async fn a_database_that_may_only_be_read_says_so_and_nothing_is_half_done() {
    let Some((_own, place)) = own().await else { return };
    let crowd = Crowd::start(vec![Setup::of(&place.backend); 2]).await;
    let database = &place.backend.database;
    let member = crowd.member(0).await;
    let switch = async |on: &str| {
        database.execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}")).await.expect("set");
        database.execute("SELECT pg_reload_conf()").await.expect("reloaded");
    };
    done(&member, "first", &Job::put(lane_key(0), 0)).await;
    switch("on").await;
    // Sessions hear of it one by one.
    let mut number = 0;
    let (error, kind) = loop {
        number += 1;
        assert!(number < 1000, "it is never read-only");
        match run(&member, &format!("{number}"), &Job::put(lane_key(0), number)).await {
            Ok(Answer::Refused { error, kind, certain: true }) => break (error, kind),
            Ok(Answer::Done { .. }) => {}
            other => panic!("neither done nor refused: {other:?}"),
        }
    };
    assert!(error.contains("read-only"), "{error} ({kind:?})");
    let dump = database.dump().await.expect("dumped");
    assert!(!dump.done.iter().any(|done| done.id == format!("{number}")), "what was refused is there");
    assert_eq!(dump.rows.get(&lane_key(0)), Some(&(number - 1)));
    crowd.check("while it is read-only").await;
    switch("off").await;
    for number in 0.. {
        assert!(number < 1000, "it stays read-only");
        if let Ok(Answer::Done { .. }) = run(&member, &format!("again {number}"), &Job::put(lane_key(0), 5000)).await {
            break;
        }
    }
    crowd.check("when it can be written to again").await;
}

/// A crash takes back the ids of transactions of which nothing had reached the disk, and gives them out again.
#[tokio::test]
async fn an_operation_with_a_transaction_id_that_was_given_out_before_a_crash_is_applied() {
    let Some((own, place)) = own().await else { return };
    let database = &place.backend.database;
    // So that nothing reaches the disk which nobody waits for.
    database.execute("ALTER SYSTEM SET wal_writer_delay = '10s'").await.expect("set");
    database.execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let setup = Setup::of(&place.backend);
    let (writer, reader) = (start(&setup).await, start(&setup).await);
    let (_, before, _) = done(&writer, "before", &Job::put(lane_key(0), 1)).await;
    well(&reader, Ask::Wait { position: before }).await;
    for key in every_key() {
        reader.ask(Ask::Row { key }).await.expect("read");
    }
    database.execute(&"BEGIN; SELECT pg_current_xact_id(); ROLLBACK;".repeat(100)).await.expect("rolled back");
    // Whoever reads now sees that these have ended; that it has read is told by nothing, since nothing is there.
    tokio::time::sleep(Duration::from_millis(5 * setup.check_ms)).await;
    reader.stop();
    own.crash().expect("up again");
    let (_, first, _) = done(&writer, "2", &Job::put(lane_key(0), 2)).await;
    let gap = first.place.major - before.place.major;
    assert!(gap < 100, "no transaction id was given out again: {gap} later");
    let mut last = first;
    // Each of the first ones changes a row of its own, and the others go past all ids that were given out before.
    for (number, key) in (3..).zip(every_key().chain(std::iter::repeat_n(lane_key(0), 200))) {
        last = done(&writer, &format!("{number}"), &Job::put(key, number)).await.1;
    }
    reader.go_on();
    well(&reader, Ask::Wait { position: last }).await;
    check(&reader, "after the crash").await;
    place.remove().await.expect("removed");
}
