//! Databases that cannot be written to.

use std::path::PathBuf;
use std::sync::Arc;

use wellspring_tests::cluster::{Answer, Ask, Database, Job, Ledger, Member, Place, Put, Setup, lane_key};

use crate::crowd::{Crowd, check, done, run, well};

/// A server that is hindered, another that is not, and what their callers were told.
struct Pair {
    place: Place,
    crowd: Crowd,
    ledger: Ledger,
    number: i64,
}

/// A file that makes new connections of the hindered member ones that cannot write.
fn read_only(place: &Place) -> PathBuf {
    let Database::Sqlite(path) = &place.backend.database else { panic!("no file") };
    path.with_extension("read-only")
}

impl Pair {
    async fn start() -> Pair {
        let place = Place::sqlite().await.expect("a place");
        let setup = Setup::of(&place.backend);
        let hindered = Setup { read_only_while: Some(read_only(&place)), ..setup.clone() };
        let crowd = Crowd::start(vec![hindered, setup]).await;
        Pair { place, crowd, ledger: Ledger::default(), number: 0 }
    }

    async fn hindered(&self) -> Arc<Member> {
        self.crowd.member(0).await
    }

    fn next(&mut self, bulk: usize) -> (String, Job) {
        self.number += 1;
        let put = Put { key: lane_key(0), value: self.number, bulk };
        (format!("{}", self.number), Job::Put(put))
    }

    /// A command that is done by a member, and seen by the other.
    async fn done(&mut self, by: usize, job: Option<Job>) {
        let (id, put) = self.next(0);
        let job = job.unwrap_or(put);
        let (token, position, _) = done(&*self.crowd.member(by).await, &id, &job).await;
        self.ledger.done(&id, token);
        let other = self.crowd.member(1 - by).await;
        well(&other, Ask::Wait { position }).await;
        for key in job.keys() {
            well(&other, Ask::Until { key, value: Some(self.number) }).await;
        }
    }

    /// A command that the hindered member refuses; how.
    async fn refused(&mut self, bulk: usize) -> (String, Option<String>) {
        let (id, job) = self.next(bulk);
        let answer = run(&*self.hindered().await, &id, &job).await;
        let Ok(Answer::Refused { error, kind, certain: true }) = answer else { panic!("{job:?} was not refused: {answer:?}") };
        self.ledger.refused(&id);
        (error, kind)
    }

    async fn compare(&self) {
        let dump = self.place.backend.database.dump().await.expect("dumped");
        assert_eq!(self.ledger.compare(&dump, false), [""; 0]);
        for index in 0..2 {
            check(&*self.crowd.member(index).await, "compared").await;
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_leaves_nothing_half_done_and_is_over_when_there_is_room() {
    let mut pair = Pair::start().await;
    pair.done(0, None).await;
    // Never fewer pages than there are: what is small may still fit.
    let (id, _) = pair.next(0);
    pair.ledger.asked(&id);
    let _ = run(&*pair.hindered().await, &id, &Job::setting("PRAGMA max_page_count = 1")).await;
    for _ in 0..5 {
        let (error, kind) = pair.refused(60_000).await;
        assert_eq!(kind.as_deref(), Some("Full"), "{error}");
        assert!(error.contains("the disk is full"), "{error}");
    }
    pair.compare().await;
    // Another process has room, and the one that has none follows it.
    pair.done(1, None).await;
    pair.compare().await;
    pair.done(0, Some(Job::setting("PRAGMA max_page_count = 1000000"))).await;
    pair.done(0, None).await;
    pair.compare().await;
}

#[tokio::test]
async fn a_server_that_may_only_read_says_so_and_follows_those_that_may_write() {
    let mut pair = Pair::start().await;
    pair.done(0, None).await;
    let file = read_only(&pair.place);
    std::fs::write(&file, "").expect("written");
    // The connection that is there already.
    let (id, _) = pair.next(0);
    let setting = run(&*pair.hindered().await, &id, &Job::setting("PRAGMA query_only = 1")).await;
    assert!(matches!(setting, Ok(Answer::Refused { certain: true, .. })), "{setting:?}");
    pair.ledger.refused(&id);
    for _ in 0..5 {
        let (error, kind) = pair.refused(0).await;
        assert_eq!(kind.as_deref(), Some("ReadOnly"), "{error}");
        assert!(error.contains("the database is read-only"), "{error}");
        pair.done(1, None).await;
    }
    pair.compare().await;
    std::fs::remove_file(&file).expect("removed");
    pair.done(0, None).await;
    pair.compare().await;
}
