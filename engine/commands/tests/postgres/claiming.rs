//! The outbox as a queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring_commands::{Claim, NewEvent, Store};

use crate::database::{Database, draft, on_database};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

fn kinds() -> Vec<String> {
    vec!["e".into()]
}

async fn emit(db: &Database, events: impl IntoIterator<Item = NewEvent>) {
    let mut draft = draft();
    for event in events {
        draft.add_event(event);
    }
    db.commit_draft(draft).await;
}

fn event(payload: &str) -> NewEvent {
    NewEvent::new("e", payload)
}

fn in_partition(payload: &str) -> NewEvent {
    NewEvent { partition: Some("p".into()), ..event(payload) }
}

async fn claim(db: &Database, lease: Duration) -> Claim {
    db.store.events().claim(&kinds(), 10, lease).await.expect("claimed")
}

fn payloads(claim: &Claim) -> Vec<&str> {
    claim.events.iter().map(|event| event.payload.as_str()).collect()
}

/// Lets the time come for an event: for its lease to end, its delay, or the wait for its next attempt.
async fn let_time_come(db: &Database, payload: &str) {
    let sql = format!("UPDATE {}.events SET due = clock_timestamp() WHERE payload = $1 AND state = 0", db.quoted());
    assert_eq!(db.other.execute(&sql, &[&payload]).await.expect("moved"), 1);
}

#[tokio::test]
async fn an_event_is_leased_to_one_and_done_once() {
    on_database(async |db| {
        emit(db, [event("1"), NewEvent::new("other", "2"), event("3")]).await;
        let first = claim(db, LONG).await;
        assert_eq!(payloads(&first), ["1", "3"]);
        assert!(first.events.iter().all(|event| event.attempt == 1));
        let second = claim(db, LONG).await;
        assert_eq!(payloads(&second), [] as [&str; 0]);
        let next = second.next.expect("the lease's end");
        assert!(next > LONG / 2 && next <= LONG, "{next:?}");
        let queue = db.store.events();
        assert!(queue.complete(&first.events[0]).await.expect("completed"));
        assert!(!queue.complete(&first.events[0]).await.expect("completed"));
        assert!(queue.renew(&first.events[1], LONG * 2).await.expect("renewed"));
        assert!(claim(db, LONG).await.next.expect("the lease's end") > LONG);
    })
    .await;
}

#[tokio::test]
async fn there_is_more_at_once_when_the_most_was_claimed() {
    on_database(async |db| {
        emit(db, [event("1"), event("2")]).await;
        let queue = db.store.events();
        assert_eq!(queue.claim(&kinds(), 1, LONG).await.expect("claimed").next, Some(Duration::ZERO));
        assert_eq!(queue.claim(&[], 1, LONG).await.expect("claimed"), Claim { events: Vec::new(), next: None });
    })
    .await;
}

#[tokio::test]
async fn an_event_with_a_delay_is_due_by_the_databases_clock() {
    on_database(async |db| {
        emit(db, [NewEvent { delay: LONG, ..event("1") }]).await;
        let early = claim(db, LONG).await;
        assert_eq!(payloads(&early), [] as [&str; 0]);
        let next = early.next.expect("it is known");
        assert!(next > LONG / 2 && next <= LONG, "{next:?}");
        let_time_come(db, "1").await;
        assert_eq!(payloads(&claim(db, LONG).await), ["1"]);
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_ran_out_is_somebody_elses_and_the_first_is_told() {
    on_database(async |db| {
        emit(db, [event("1")]).await;
        let first = claim(db, LONG).await;
        let_time_come(db, "1").await;
        let second = claim(db, LONG).await;
        assert_eq!((payloads(&second), second.events[0].attempt), (vec!["1"], 2));
        let queue = db.store.events();
        assert!(!queue.renew(&first.events[0], LONG).await.expect("asked"));
        assert!(!queue.complete(&first.events[0]).await.expect("asked"));
        assert!(!queue.fail(&first.events[0], "late", None).await.expect("asked"));
        assert!(queue.complete(&second.events[0]).await.expect("asked"));
    })
    .await;
}

#[tokio::test]
async fn an_event_that_failed_is_due_again_or_dead_and_can_be_requeued() {
    on_database(async |db| {
        emit(db, [event("1")]).await;
        let queue = db.store.events();
        let first = claim(db, LONG).await;
        assert!(queue.fail(&first.events[0], "no\0pe", Some(Duration::ZERO)).await.expect("failed"));
        let second = claim(db, LONG).await;
        assert_eq!(second.events[0].attempt, 2);
        assert!(queue.fail(&second.events[0], &"x".repeat(100_000), None).await.expect("failed"));
        assert_eq!(claim(db, LONG).await, Claim { events: Vec::new(), next: None });
        let dead = queue.dead(10).await.expect("listed");
        assert_eq!((dead.len(), dead[0].attempts, dead[0].payload.as_str()), (1, 2, "1"));
        assert!(dead[0].error.starts_with("xxx"));
        assert_eq!(queue.trim(Duration::ZERO).await.expect("trimmed"), 0);
        assert!(queue.requeue(dead[0].id).await.expect("requeued"));
        assert!(!queue.requeue(dead[0].id).await.expect("requeued"));
        let again = claim(db, LONG).await;
        assert_eq!((payloads(&again), again.events[0].attempt), (vec!["1"], 1));
        assert!(queue.complete(&again.events[0]).await.expect("completed"));
        assert_eq!(queue.trim(LONG).await.expect("trimmed"), 0);
        assert_eq!(queue.trim(Duration::ZERO).await.expect("trimmed"), 1);
        assert_eq!(db.count("events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn events_of_a_partition_are_claimed_one_after_the_other_in_their_order() {
    on_database(async |db| {
        emit(db, [in_partition("1"), in_partition("2"), event("free")]).await;
        emit(db, [in_partition("3")]).await;
        let queue = db.store.events();
        let first = claim(db, LONG).await;
        assert_eq!(payloads(&first), ["1", "free"]);
        assert_eq!(payloads(&claim(db, LONG).await), [] as [&str; 0]);
        // Waiting for its next attempt, it still stands before the others.
        assert!(queue.fail(&first.events[0], "again", Some(LONG)).await.expect("failed"));
        assert_eq!(payloads(&claim(db, LONG).await), [] as [&str; 0]);
        let_time_come(db, "1").await;
        let again = claim(db, LONG).await;
        assert_eq!(payloads(&again), ["1"]);
        // Dead, it lets the next one pass, and requeued, it comes last.
        assert!(queue.fail(&again.events[0], "dead", None).await.expect("failed"));
        let second = claim(db, LONG).await;
        assert_eq!(payloads(&second), ["2"]);
        assert!(queue.requeue(again.events[0].id).await.expect("requeued"));
        assert_eq!(payloads(&claim(db, LONG).await), [] as [&str; 0]);
        assert!(queue.complete(&second.events[0]).await.expect("completed"));
        let third = claim(db, LONG).await;
        assert_eq!(payloads(&third), ["3"]);
        assert!(queue.complete(&third.events[0]).await.expect("completed"));
        assert_eq!(payloads(&claim(db, LONG).await), ["1"]);
    })
    .await;
}

#[tokio::test]
async fn many_that_wait_behind_one_of_their_partition_hide_nothing_that_is_due_after_them() {
    on_database(async |db| {
        let crowd: Vec<_> = (0..300).map(|number| in_partition(&number.to_string())).collect();
        emit(db, crowd).await;
        emit(db, [event("free")]).await;
        let queue = db.store.events();
        for expected in ["0", "free"] {
            let one = queue.claim(&kinds(), 1, LONG).await.expect("claimed");
            assert_eq!(payloads(&one), [expected]);
        }
        assert!(queue.claim(&kinds(), 1, LONG).await.expect("claimed").events.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_event_of_a_partition_that_is_not_due_holds_back_those_behind_it() {
    on_database(async |db| {
        emit(db, [NewEvent { delay: LONG, ..in_partition("1") }, in_partition("2")]).await;
        let nothing = claim(db, LONG).await;
        assert_eq!(payloads(&nothing), [] as [&str; 0]);
        assert!(nothing.next.expect("it is known") > LONG / 2);
    })
    .await;
}

#[tokio::test]
async fn who_appends_to_a_partition_waits_for_who_is_still_committing_to_it() {
    on_database(async |db| {
        let slow = db.slow_commits().await;
        let commit = async |payload: &'static str, with: &str| {
            let (store, tx) = (db.store.clone(), db.store.begin().await.expect("begun"));
            tx.batch_execute(with).await.expect("inserted");
            let pid = db.backend_of(&tx).await;
            let commit = tokio::spawn(async move {
                let mut draft = draft();
                draft.add_event(in_partition(payload));
                store.commit(tx, draft).await.expect("committed")
            });
            (pid, commit)
        };
        let (_, first) = commit("1", &slow.insert).await;
        db.until(&slow.waiting).await;
        let (pid, mut second) = commit("2", "").await;
        let waits = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND pid = {pid})");
        tokio::select! {
            _ = &mut second => panic!("it was committed first"),
            () = db.until(&waits) => {}
        }
        db.other.execute(&slow.release, &[]).await.expect("released");
        let (first, second) = (first.await.expect("ran"), second.await.expect("ran"));
        assert!(first.position.place.minor < second.position.place.minor);
        assert_eq!(payloads(&claim(db, LONG).await), ["1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_of_a_partition_are_done_at_once_whoever_emits_claims_and_requeues() {
    on_database(async |db| {
        // Partition to what is being done in it, and how many are done.
        let doing: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
        let count: Arc<AtomicUsize> = Arc::default();
        let emitters: Vec<_> = (0..3)
            .map(|emitter| {
                let store = db.store.clone();
                tokio::spawn(async move {
                    for n in 0..30 {
                        let mut draft = draft();
                        let partition = Some(format!("p{}", (n + emitter) % 2));
                        draft.add_event(NewEvent { partition, ..event(&format!("{emitter}:{n}")) });
                        let tx = store.begin().await.expect("begun");
                        store.commit(tx, draft).await.expect("committed");
                    }
                })
            })
            .collect();
        let servers = [db.server().await, db.server().await, db.server().await];
        let workers: Vec<_> = servers
            .into_iter()
            .map(|store| {
                let (doing, count) = (doing.clone(), count.clone());
                tokio::spawn(async move {
                    let queue = store.events();
                    let (mut done, mut n) = (Vec::new(), 0_u32);
                    while count.load(Ordering::SeqCst) < 90 {
                        let claim = queue.claim(&kinds(), 2, LONG).await.expect("claimed");
                        if claim.events.is_empty() {
                            // Nothing tells of what is emitted past the server.
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            continue;
                        }
                        for event in claim.events {
                            let partition = event.partition.clone().expect("a partition");
                            *doing.lock().expect("well").entry(partition.clone()).or_default() += 1;
                            tokio::task::yield_now().await;
                            n += 1;
                            {
                                let mut doing = doing.lock().expect("well");
                                let count = doing.get_mut(&partition).expect("this one");
                                assert_eq!(*count, 1, "two of {partition} at once");
                                *count -= 1;
                            }
                            if n % 5 == 0 && event.attempt == 1 {
                                assert!(queue.fail(&event, "dead", None).await.expect("failed"));
                                assert!(queue.requeue(event.id).await.expect("requeued"));
                            } else {
                                assert!(queue.complete(&event).await.expect("completed"));
                                done.push(event.payload);
                                count.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    done
                })
            })
            .collect();
        for emitter in emitters {
            emitter.await.expect("ran");
        }
        let mut done = Vec::new();
        for worker in workers {
            done.extend(tokio::time::timeout(Duration::from_secs(60), worker).await.expect("all in time").expect("ran"));
        }
        done.sort();
        let count = done.len();
        done.dedup();
        assert_eq!((count, done.len()), (90, 90));
    })
    .await;
}
