//! The outbox as a queue.

use std::time::Duration;

use wellspring_commands::sqlite::{Sqlite, SqliteTx};
use wellspring_commands::{Claim, ClaimedEvent, CommitError, Duplicate, EventId, EventQueue, NewEvent, Store, StoreErrorKind};

use crate::{draft, folder, kind, with_clock};

const LEASE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn mail(payload: &str) -> NewEvent {
    NewEvent::new("mail", payload)
}

fn in_order(partition: &str, payload: &str) -> NewEvent {
    NewEvent { partition: Some(partition.into()), ..mail(payload) }
}

async fn emit(sqlite: &Sqlite, events: impl IntoIterator<Item = NewEvent>) -> Result<(), CommitError> {
    let mut draft = draft();
    events.into_iter().for_each(|event| draft.add_event(event));
    sqlite.commit(SqliteTx::default(), draft).await.map(drop)
}

async fn claim(sqlite: &Sqlite, most: usize) -> Claim {
    EventQueue::claim(sqlite, &["mail".into()], most, LEASE).await.expect("claimed")
}

async fn claim_all(sqlite: &Sqlite) -> Vec<ClaimedEvent> {
    claim(sqlite, 100).await.events
}

fn payloads(events: &[ClaimedEvent]) -> Vec<&str> {
    events.iter().map(|event| event.payload.as_str()).collect()
}

async fn done(sqlite: &Sqlite, event: &ClaimedEvent) {
    assert!(sqlite.complete(event).await.expect("completed"));
}

#[tokio::test]
async fn an_event_is_claimed_once_and_done_once() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let event = mail("1");
    let id = event.id;
    emit(&sqlite, [event]).await.expect("committed");
    let Claim { events, next } = claim(&sqlite, 10).await;
    assert_eq!((events.len(), events[0].id, events[0].attempt, events[0].partition.as_ref()), (1, id, 1, None));
    assert_eq!(next, Some(LEASE));
    clock.forward(SECOND);
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: Some(LEASE - SECOND) });
    done(&sqlite, &events[0]).await;
    assert!(!sqlite.complete(&events[0]).await.expect("asked"));
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: None });
}

#[tokio::test]
async fn a_queue_with_nothing_due_is_not_written_to() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    emit(&sqlite, [NewEvent { delay: SECOND, ..mail("later") }, NewEvent::new("report", "of another kind")]).await.expect("committed");
    let before = sqlite.transactions();
    for _ in 0..5 {
        assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: Some(SECOND) });
    }
    assert_eq!(sqlite.transactions(), before);
}

#[tokio::test]
async fn events_are_claimed_when_they_are_due_those_that_are_due_first_first() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let after = |seconds: u64, payload| NewEvent { delay: SECOND * seconds as u32, ..mail(payload) };
    emit(&sqlite, [after(3, "3"), after(1, "1"), after(2, "2"), after(9, "9")]).await.expect("committed");
    clock.forward(SECOND * 4);
    let Claim { events, next } = claim(&sqlite, 2).await;
    assert_eq!((payloads(&events), next), (vec!["1", "2"], Some(Duration::ZERO)));
    let Claim { events, next } = claim(&sqlite, 2).await;
    assert_eq!((payloads(&events), next), (vec!["3"], Some(SECOND * 5)));
}

#[tokio::test]
async fn several_kinds_are_claimed_together_and_others_are_left() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    emit(&sqlite, [mail("1"), NewEvent::new("report", "2"), NewEvent::new("other", "3"), mail("4")]).await.expect("committed");
    let kinds = ["report".into(), "mail".into(), "mail".into()];
    let Claim { events, next } = EventQueue::claim(&sqlite, &kinds, 2, LEASE).await.expect("claimed");
    assert_eq!((payloads(&events), next), (vec!["1", "2"], Some(Duration::ZERO)));
    let Claim { events, .. } = EventQueue::claim(&sqlite, &kinds, 2, LEASE).await.expect("claimed");
    assert_eq!(payloads(&events), ["4"]);
    assert_eq!(EventQueue::claim(&sqlite, &[], 2, LEASE).await.expect("claimed"), Claim { events: Vec::new(), next: None });
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_taken_over_and_the_old_one_is_worth_nothing() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [mail("1")]).await.expect("committed");
    let old = claim_all(&sqlite).await.remove(0);
    clock.forward(LEASE);
    let new = claim_all(&sqlite).await.remove(0);
    assert_eq!((new.id, new.attempt), (old.id, 2));
    assert!(!sqlite.renew(&old, LEASE).await.expect("asked"));
    assert!(!sqlite.fail(&old, "no", None).await.expect("asked"));
    assert!(!sqlite.complete(&old).await.expect("asked"));
    done(&sqlite, &new).await;
}

#[tokio::test]
async fn a_lease_that_is_renewed_lasts() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [mail("1")]).await.expect("committed");
    let event = claim_all(&sqlite).await.remove(0);
    for _ in 0..5 {
        clock.forward(LEASE - SECOND);
        assert!(sqlite.renew(&event, LEASE).await.expect("asked"));
        assert_eq!(claim_all(&sqlite).await, []);
    }
    done(&sqlite, &event).await;
}

#[tokio::test]
async fn who_was_late_but_not_replaced_has_done_the_event() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [mail("1")]).await.expect("committed");
    let event = claim_all(&sqlite).await.remove(0);
    clock.forward(LEASE * 2);
    done(&sqlite, &event).await;
    assert_eq!(claim_all(&sqlite).await, []);
}

#[tokio::test]
async fn an_event_that_failed_comes_again_after_a_while() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [mail("1")]).await.expect("committed");
    let first = claim_all(&sqlite).await.remove(0);
    assert!(sqlite.fail(&first, "the server is down", Some(SECOND)).await.expect("failed"));
    assert!(!sqlite.fail(&first, "again", Some(SECOND)).await.expect("asked"));
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: Some(SECOND) });
    clock.forward(SECOND);
    assert_eq!(claim_all(&sqlite).await.remove(0).attempt, 2);
    assert_eq!(sqlite.dead(10).await.expect("listed"), []);
}

#[tokio::test]
async fn a_dead_event_is_listed_and_can_be_requeued_with_all_its_attempts() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [mail("1"), mail("2")]).await.expect("committed");
    for event in claim_all(&sqlite).await {
        assert!(sqlite.fail(&event, &format!("no {}", event.payload), None).await.expect("failed"));
    }
    clock.forward(SECOND * 1000);
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: None });
    let dead = sqlite.dead(10).await.expect("listed");
    assert_eq!(dead.iter().map(|event| (event.attempts, event.error.as_str())).collect::<Vec<_>>(), [(1, "no 1"), (1, "no 2")]);
    assert_eq!(sqlite.dead(1).await.expect("listed").len(), 1);
    assert_eq!(EventQueue::trim(&sqlite, Duration::ZERO).await.expect("trimmed"), 0);
    assert!(sqlite.requeue(dead[1].id).await.expect("requeued"));
    assert!(!sqlite.requeue(dead[1].id).await.expect("asked"));
    assert!(!sqlite.requeue(EventId::new()).await.expect("asked"));
    let again = claim_all(&sqlite).await;
    assert_eq!((payloads(&again), again[0].attempt), (vec!["2"], 1));
    assert_eq!(sqlite.dead(10).await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_lease_of_before_a_requeue_is_worth_nothing() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    emit(&sqlite, [mail("1")]).await.expect("committed");
    let old = claim_all(&sqlite).await.remove(0);
    assert!(sqlite.fail(&old, "no", None).await.expect("failed"));
    assert!(sqlite.requeue(old.id).await.expect("requeued"));
    let new = claim_all(&sqlite).await.remove(0);
    assert!(!sqlite.complete(&old).await.expect("asked"));
    done(&sqlite, &new).await;
}

#[tokio::test]
async fn events_of_a_partition_are_done_one_after_the_other_in_the_order_of_their_commits() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    let late = NewEvent { delay: SECOND * 5, ..in_order("a", "a1") };
    emit(&sqlite, [late, in_order("a", "a2"), in_order("b", "b1"), mail("free"), in_order("b", "b2")]).await.expect("committed");
    let Claim { events, next } = claim(&sqlite, 10).await;
    assert_eq!(payloads(&events), ["b1", "free"]);
    assert_eq!(next, Some(SECOND * 5), "the first of `a` is not due, and holds up the second");
    done(&sqlite, &events[0]).await;
    let b = claim_all(&sqlite).await;
    assert_eq!(payloads(&b), ["b2"]);
    clock.forward(SECOND * 5);
    let a = claim_all(&sqlite).await;
    assert_eq!(payloads(&a), ["a1"]);
    assert!(sqlite.fail(&a[0], "no", Some(SECOND)).await.expect("failed"));
    assert_eq!(claim_all(&sqlite).await, []);
    clock.forward(SECOND);
    let a = claim_all(&sqlite).await;
    assert_eq!(payloads(&a), ["a1"]);
    assert!(sqlite.fail(&a[0], "no", None).await.expect("failed"));
    assert_eq!(payloads(&claim_all(&sqlite).await), ["a2"], "a dead one holds up nobody");
}

#[tokio::test]
async fn a_partition_is_one_over_all_kinds() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    let first = NewEvent { kind: "report".into(), ..in_order("a", "1") };
    emit(&sqlite, [first, in_order("a", "2")]).await.expect("committed");
    assert_eq!(claim_all(&sqlite).await, []);
    let report = EventQueue::claim(&sqlite, &["report".into()], 10, LEASE).await.expect("claimed").events.remove(0);
    assert_eq!(claim_all(&sqlite).await, []);
    done(&sqlite, &report).await;
    assert_eq!(payloads(&claim_all(&sqlite).await), ["2"]);
}

#[tokio::test]
async fn an_expired_lease_in_a_partition_is_taken_over_before_what_follows() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [in_order("a", "1"), in_order("a", "2")]).await.expect("committed");
    assert_eq!(payloads(&claim_all(&sqlite).await), ["1"]);
    clock.forward(LEASE);
    assert_eq!(payloads(&claim_all(&sqlite).await), ["1"]);
}

#[tokio::test]
async fn a_requeued_event_comes_first_in_its_partition_but_not_beside_one_that_is_being_done() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [in_order("a", "1"), in_order("a", "2"), in_order("a", "3")]).await.expect("committed");
    let first = claim_all(&sqlite).await.remove(0);
    assert!(sqlite.fail(&first, "no", None).await.expect("failed"));
    let second = claim_all(&sqlite).await.remove(0);
    assert!(sqlite.requeue(first.id).await.expect("requeued"));
    clock.forward(SECOND);
    // It is due, and must not make anybody ask again at once.
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: Some(LEASE - SECOND) });
    done(&sqlite, &second).await;
    let first = claim_all(&sqlite).await;
    assert_eq!(payloads(&first), ["1"]);
    done(&sqlite, &first[0]).await;
    assert_eq!(payloads(&claim_all(&sqlite).await), ["3"]);
}

#[tokio::test]
async fn a_requeued_event_goes_before_an_expired_lease_of_its_partition() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [in_order("a", "1"), in_order("a", "2")]).await.expect("committed");
    let first = claim_all(&sqlite).await.remove(0);
    assert!(sqlite.fail(&first, "no", None).await.expect("failed"));
    assert_eq!(payloads(&claim_all(&sqlite).await), ["2"]);
    assert!(sqlite.requeue(first.id).await.expect("requeued"));
    clock.forward(LEASE);
    let first = claim_all(&sqlite).await;
    assert_eq!(payloads(&first), ["1"]);
    done(&sqlite, &first[0]).await;
    assert_eq!(payloads(&claim_all(&sqlite).await), ["2"]);
}

fn named(duplicate: Duplicate, payload: &str) -> NewEvent {
    NewEvent { key: Some("daily".into()), duplicate, ..mail(payload) }
}

#[tokio::test]
async fn a_second_event_of_one_name_fails_is_skipped_or_takes_the_place_of_the_first() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [named(Duplicate::Fail, "1")]).await.expect("committed");
    let error = emit(&sqlite, [named(Duplicate::Fail, "2"), mail("free")]).await.expect_err("there is one");
    assert_eq!(kind(&error), StoreErrorKind::Constraint);
    emit(&sqlite, [named(Duplicate::Skip, "3")]).await.expect("committed");
    emit(&sqlite, [NewEvent { kind: "report".into(), ..named(Duplicate::Fail, "of another kind") }]).await.expect("committed");
    let update = NewEvent { delay: SECOND, ..named(Duplicate::Update, "4") };
    let id = update.id;
    emit(&sqlite, [update]).await.expect("committed");
    assert_eq!(claim(&sqlite, 10).await, Claim { events: Vec::new(), next: Some(SECOND) });
    clock.forward(SECOND);
    let events = claim_all(&sqlite).await;
    assert_eq!((payloads(&events), events[0].id), (vec!["4"], id));
}

#[tokio::test]
async fn an_event_that_was_started_is_not_replaced_and_one_that_was_done_stays_known_until_it_is_trimmed() {
    let folder = folder();
    let (sqlite, clock) = with_clock(&folder);
    emit(&sqlite, [named(Duplicate::Update, "1")]).await.expect("committed");
    let event = claim_all(&sqlite).await.remove(0);
    assert_eq!(kind(&emit(&sqlite, [named(Duplicate::Update, "2")]).await.expect_err("leased")), StoreErrorKind::Constraint);
    assert!(sqlite.fail(&event, "no", Some(Duration::ZERO)).await.expect("failed"));
    assert_eq!(kind(&emit(&sqlite, [named(Duplicate::Update, "2")]).await.expect_err("started")), StoreErrorKind::Constraint);
    let event = claim_all(&sqlite).await.remove(0);
    done(&sqlite, &event).await;
    for duplicate in [Duplicate::Fail, Duplicate::Update] {
        assert_eq!(kind(&emit(&sqlite, [named(duplicate, "2")]).await.expect_err("done")), StoreErrorKind::Constraint);
    }
    emit(&sqlite, [named(Duplicate::Skip, "2")]).await.expect("committed");
    assert_eq!(claim_all(&sqlite).await, []);
    clock.forward(SECOND * 10);
    assert_eq!(EventQueue::trim(&sqlite, SECOND * 11).await.expect("trimmed"), 0);
    assert_eq!(EventQueue::trim(&sqlite, SECOND * 9).await.expect("trimmed"), 1);
    emit(&sqlite, [named(Duplicate::Fail, "2")]).await.expect("committed");
    assert_eq!(payloads(&claim_all(&sqlite).await), ["2"]);
}

#[tokio::test]
async fn an_event_that_replaces_another_takes_its_own_turn_in_the_partition() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    let named = |payload: &str| NewEvent { key: Some("k".into()), duplicate: Duplicate::Update, ..in_order("a", payload) };
    emit(&sqlite, [named("1"), in_order("a", "2")]).await.expect("committed");
    emit(&sqlite, [named("3")]).await.expect("committed");
    for expected in ["2", "3"] {
        let events = claim_all(&sqlite).await;
        assert_eq!(payloads(&events), [expected]);
        done(&sqlite, &events[0]).await;
    }
    assert_eq!(claim_all(&sqlite).await, []);
}

#[tokio::test]
async fn an_event_far_away_stays_there() {
    let folder = folder();
    let (sqlite, _clock) = with_clock(&folder);
    emit(&sqlite, [NewEvent { delay: Duration::MAX, ..mail("never") }]).await.expect("committed");
    let Claim { events, next } = claim(&sqlite, 10).await;
    assert!(events.is_empty() && next > Some(SECOND * 1_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_servers_never_get_one_event_at_the_same_time() {
    let folder = folder();
    let (first, clock) = with_clock(&folder);
    let events: Vec<_> =
        (0..200).map(|n| if n % 2 == 0 { mail(&n.to_string()) } else { in_order(&(n % 7).to_string(), &n.to_string()) }).collect();
    emit(&first, events).await.expect("committed");
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let sqlite = clock.open(&folder);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let Claim { events, next } = claim(&sqlite, 3).await;
                    if events.is_empty() && next.is_none() {
                        return mine;
                    }
                    for event in events {
                        done(&sqlite, &event).await;
                        mine.push(event);
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("no panic"));
    }
    assert!(all.iter().all(|event| event.attempt == 1));
    let mut numbers: Vec<u32> = all.iter().map(|event| event.payload.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}
