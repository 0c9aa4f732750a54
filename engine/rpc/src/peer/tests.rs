use std::collections::BTreeMap;
use std::time::Duration;

use wellspring::{Engine, Invalidated, Source};

use super::*;
use crate::calls::{End, Notice};
use crate::failure::Failure;
use crate::hub::Hub;
use crate::service::Service;
use crate::slots::Slots;
use crate::verified::{Given, Verified, Verifying};
use crate::wire::{Head, MethodId, Packed, WriteError, Writer, pack};

const FORMAT: Format = Format::Msgpack6;

/// A peer on its first connection, which nobody writes.
struct Bench {
    peer: Arc<Peer>,
    engine: Engine,
    number: Source<u8, i64>,
    free: Arc<Mutex<Vec<bool>>>,
}

/// What was given out. It sees when it is dropped whether what is the user's could ask about calls then.
struct Probe {
    peer: Arc<Peer>,
    free: Arc<Mutex<Vec<bool>>>,
    computed: wellspring::Computed<i64>,
    found: Found,
}

/// What comes of bringing it up to date.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Panic,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let is_free = self.peer.calls.try_lock().is_ok();
        self.free.lock().expect("no panic").push(is_free);
    }
}

impl Given for Probe {
    fn end(&self) -> Invalidated {
        self.computed.invalidated()
    }

    fn verify(&self) -> Verifying {
        match self.found {
            Found::Nothing => Box::pin(std::future::pending()),
            Found::Panic => panic!("on purpose"),
        }
    }
}

impl Bench {
    fn new() -> Bench {
        let service = Service::new("IDemo").method("Get:1", |()| async { Ok::<_, Failure>(1) });
        let peer = Hub::builder().service(service).expect("a service").build().client_peer(FORMAT);
        let engine = Engine::new();
        let number = engine.source("number", |_: &u8| 1_i64).expect("registered");
        let bench = Bench { peer, engine, number, free: Arc::default() };
        bench.connect();
        bench
    }

    fn connect(&self) {
        let _ = self.peer.greet();
        self.peer.out.open();
    }

    fn probe(&self, found: Found) -> Arc<dyn Given> {
        let computed = self.number.computed(&self.engine, &7).expect("computed");
        Arc::new(Probe { peer: self.peer.clone(), free: self.free.clone(), computed, found })
    }

    /// A value that was given out on an earlier connection.
    fn given(&self, id: u64, found: Found) {
        let (verified, over) = Verified::watch(self.probe(found), self.notice(id));
        assert!(!over);
        let end = End::Change(Box::new(verified));
        self.peer.calls().insert(id, Of { method: None, connection: 0 }, State::Live { end, answer: None });
    }

    fn notice(&self, id: u64) -> Notice {
        Notice { peer: Arc::downgrade(&self.peer), id }
    }

    fn hear(&self, head: &Head<'_>, write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) {
        for frame in frame(head, write) {
            for message in Messages::new(FORMAT, &frame) {
                self.peer.receive(&message.expect("a message"), &mut Slots::default());
            }
        }
    }

    /// The other end says which calls it waits for, each at a stage.
    fn is_waited_for(&self, listed: &[(u64, u32)]) {
        let mut stages = BTreeMap::<u32, Vec<u64>>::new();
        listed.iter().for_each(|(id, stage)| stages.entry(*stage).or_default().push(*id));
        let stages: BTreeMap<u32, Packed<'_>> = stages.into_iter().map(|(stage, ids)| (stage, Packed(Cow::Owned(pack(ids))))).collect();
        let index = i32::try_from(self.peer.connection()).expect("few");
        self.hear(&Head::system(System::Reconnect, 50), |out| {
            out.value(&index)?;
            out.value(&stages)
        });
    }

    /// What has gone out, in order.
    fn said(&self) -> Vec<(System, u64)> {
        let frames = self.peer.out.close();
        self.peer.out.open();
        let messages = frames.iter().flat_map(|frame| Messages::new(FORMAT, frame).flatten());
        messages.map(|message| (System::of(&message.method).expect("a system call"), message.related_id)).collect()
    }

    /// Whether so many values were dropped, each where the user's code may run.
    fn dropped(&self, count: usize) {
        let free = self.free.lock().expect("no panic").clone();
        assert_eq!(free, vec![true; count]);
    }
}

fn frame(head: &Head<'_>, write: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>) -> Vec<Vec<u8>> {
    let out = Outgoing::new(FORMAT);
    out.open();
    out.push(head, write).expect("written");
    out.close()
}

#[tokio::test]
async fn a_value_that_may_have_ended_without_a_connection_is_told_before_the_other_end_hears_that_it_knows_all() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    bench.given(2, Found::Nothing);
    bench.number.set(&7, 2);
    bench.given(3, Found::Nothing);
    bench.is_waited_for(&[(1, 1), (2, 1), (3, 1)]);
    let mut said = bench.said();
    assert_eq!(said.pop(), Some((System::Ok, 50)));
    // A commit tells them in any order.
    said.sort_unstable_by_key(|(_, id)| *id);
    assert_eq!(said, [(System::Invalidate, 1), (System::Invalidate, 2)]);
    assert_eq!(bench.peer.open_calls(), 1, "what holds is not told");
    bench.dropped(2);
}

#[tokio::test]
async fn a_value_that_is_being_brought_up_to_date_is_told_before_the_other_end_hears_that_it_knows_all() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    bench.number.set(&7, 2);
    bench.peer.tell_stale();
    assert_eq!(bench.said(), [], "nobody knows yet");
    bench.connect();
    bench.is_waited_for(&[(1, 1)]);
    assert_eq!(bench.said(), [(System::Invalidate, 1), (System::Ok, 50)]);
    assert_eq!(bench.peer.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_brought_up_to_date_for_a_panic_has_changed() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    bench.is_waited_for(&[(1, 1)]);
    assert_eq!(bench.said(), [(System::Ok, 50)]);
    bench.given(2, Found::Panic);
    bench.peer.is_stale(2);
    bench.peer.stale_come.notified().await;
    bench.peer.tell_stale();
    tokio::time::timeout(Duration::from_secs(30), bench.peer.stale_come.notified()).await.expect("somebody says so");
    bench.peer.tell_stale();
    assert_eq!(bench.said(), [(System::Invalidate, 2)]);
}

#[test]
fn what_is_not_listed_and_what_is_asked_for_anew_is_not_dropped_under_the_lock() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    bench.given(2, Found::Nothing);
    bench.is_waited_for(&[(2, 0)]);
    assert_eq!(bench.said(), [(System::Ok, 50)]);
    assert_eq!(bench.peer.open_calls(), 0);
    bench.dropped(2);
}

#[test]
fn what_is_called_again_is_not_dropped_under_the_lock() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    let method = MethodId::new("IDemo.Get:1").expect("short");
    bench.hear(&Head::call(0, 1, &method), |_| Ok(()));
    assert_eq!(bench.said(), [(System::Ok, 1)]);
    bench.dropped(1);
}

#[test]
fn a_value_of_whose_end_the_notice_is_lost_is_not_dropped_under_the_lock() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    bench.peer.lost(frame(&Head::system(System::Invalidate, 1), |_| Ok(())));
    assert_eq!(bench.peer.calls().stale().collect::<Vec<_>>(), [1]);
    bench.dropped(1);
}

#[test]
fn a_value_that_comes_too_late_for_its_call_is_not_dropped_under_the_lock() {
    let bench = Bench::new();
    bench.given(1, Found::Nothing);
    let of_another = bench.probe(Found::Nothing);
    bench.peer.verified(1, &of_another, Some(bench.probe(Found::Nothing)));
    bench.dropped(1);
}
