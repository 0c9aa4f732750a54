//! Notices that come only once a value has changed.

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::pipe::{Client, Wire};
use wellspring::{AsyncFunction, Cx, Engine, Source};
use wellspring_rpc::wire::{Arguments, Format, Guid, Handshake, Head, MethodId, Packed, System, pack};
use wellspring_rpc::{Failure, Hub, Remote, Remoted, Service, Visitor};

const FORMAT: Format = Format::Msgpack6c;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Below;

impl From<Below> for Failure {
    fn from(_: Below) -> Failure {
        Failure::new("below zero")
    }
}

/// A number, of which functions tell the sign.
struct Signs {
    engine: Engine,
    number: Source<u8, i64>,
    computed: Arc<AtomicUsize>,
    hub: Hub,
}

impl Signs {
    fn new() -> Signs {
        let engine = Engine::new();
        let number = engine.source("number", |_: &u8| 1_i64).expect("registered");
        let (read, computed) = (number.clone(), Arc::<AtomicUsize>::default());
        let counted = computed.clone();
        let sign = engine.define("sign").cut_off_eq().function(move |cx: &Cx, key: &u8| {
            counted.fetch_add(1, Ordering::SeqCst);
            read.get(cx, key).unwrap_or_default().signum()
        });
        let sign = sign.expect("registered");
        let read = number.clone();
        let checked =
            engine.define("checked").cut_off_eq().function(move |cx: &Cx, key: &u8| match read.get(cx, key).unwrap_or_default() {
                number @ 0.. => Ok(number),
                _ => Err(Below),
            });
        let checked = checked.expect("registered");
        let service = |name: &str, verified: bool| {
            let (engine, sign) = (engine.clone(), sign.clone());
            let service = Service::new(name).compute("Sign:2", move |(key,): (u8,)| std::future::ready(sign.computed(&engine, &key)));
            if verified { service.verified() } else { service }
        };
        let read = number.clone();
        let slow = engine.async_function("slow", move |cx: Cx, key: u8| {
            let read = read.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                read.get(&cx, &key).unwrap_or_default()
            }
        });
        let (asked, slow) = (engine.clone(), slow.expect("registered"));
        let slow = Service::new("ISlow").compute("Get:2", move |(key,): (u8,)| {
            let (slow, engine) = (slow.clone(), asked.clone());
            async move { slow.computed(&engine, &key).await }
        });
        let (asked, checked) = (engine.clone(), checked.clone());
        let checked = Service::new("IChecked")
            .try_compute("Get:2", move |(key,): (u8,)| std::future::ready(checked.computed(&asked, &key)))
            .verified()
            .method("Nothing:1", |()| async { Ok::<_, Failure>(()) });
        let hub = Hub::builder().service(service("IAtOnce", false)).and_then(|hub| hub.service(service("IVerified", true)));
        let hub = hub.and_then(|hub| hub.service(slow.verified()));
        let hub = hub.and_then(|hub| hub.service(checked)).expect("services").build();
        Signs { engine, number, computed, hub }
    }

    /// A client that has said who it is, on its connection of this number, and which number that is to the server.
    async fn greeted(&self, index: i32) -> (Client, i32) {
        let mut client = Client::connect(&self.hub, Visitor::new("client", FORMAT));
        let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
        let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index, secret: None };
        client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
        let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
        let theirs: Handshake<'_> = Arguments::new(FORMAT, &theirs.arguments).read().expect("a handshake");
        let index = theirs.index;
        (client, index)
    }

    async fn client(&self) -> Client {
        self.greeted(1).await.0
    }
}

async fn asked(client: &mut Client, id: u64, name: &str) -> System {
    let method = MethodId::new(name).expect("short");
    client.say(&Head::call(1, id, &method), |out| out.value(&7_u8));
    client.expect("an answer", |got| got.id == id).await.call
}

async fn stale(client: &mut Client, id: u64) {
    let got = client.expect("a notice", |got| got.id == id).await;
    assert_eq!(got.call, System::Invalidate, "{got:?}");
}

/// Whatever the server had to say is said, and it was nothing.
async fn nothing(client: &mut Client, id: u64) {
    let method = MethodId::new("IChecked.Nothing:1").expect("short");
    client.say(&Head::call(0, id, &method), |_| Ok(()));
    client.expect("an answer", |got| got.id == id).await;
    client.hear_all();
    assert_eq!(client.pool, []);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_found_to_be_equal_is_not_said_to_be_stale() {
    let signs = Signs::new();
    let mut client = signs.client().await;
    assert_eq!(asked(&mut client, 1, "IVerified.Sign:2").await, System::Ok);
    for (again, number) in [2, 3, 4].into_iter().enumerate() {
        signs.number.set(&7, number);
        nothing(&mut client, 100 + again as u64).await;
        assert_eq!(signs.computed.load(Ordering::SeqCst), again + 2, "the server has looked");
    }
    signs.number.set(&7, -1);
    stale(&mut client, 1).await;
    nothing(&mut client, 200).await;
    assert_eq!(signs.hub.open_calls(), 0);
    signs.engine.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn without_verification_the_notice_comes_at_the_first_mark() {
    let signs = Signs::new();
    let mut client = signs.client().await;
    assert_eq!(asked(&mut client, 1, "IAtOnce.Sign:2").await, System::Ok);
    signs.number.set(&7, 2);
    stale(&mut client, 1).await;
    assert_eq!(signs.computed.load(Ordering::SeqCst), 1, "nobody has computed it again");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_becomes_a_value_is_a_change_and_one_that_stays_is_none() {
    let signs = Signs::new();
    let mut client = signs.client().await;
    signs.number.set(&7, -5);
    assert_eq!(asked(&mut client, 1, "IChecked.Get:2").await, System::Error);
    signs.number.set(&7, -6);
    nothing(&mut client, 100).await;
    signs.number.set(&7, 6);
    stale(&mut client, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_given_up_hears_of_no_change() {
    let signs = Signs::new();
    let mut client = signs.client().await;
    asked(&mut client, 1, "IVerified.Sign:2").await;
    asked(&mut client, 2, "IVerified.Sign:2").await;
    client.say(&Head::system(System::Cancel, 1), |_| Ok(()));
    nothing(&mut client, 100).await;
    assert_eq!(signs.hub.open_calls(), 1);
    signs.number.set(&7, -1);
    stale(&mut client, 2).await;
    nothing(&mut client, 101).await;
    assert_eq!(signs.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_changes_without_a_connection_is_told_on_the_next() {
    let signs = Signs::new();
    let mut client = signs.client().await;
    asked(&mut client, 1, "IVerified.Sign:2").await;
    client.leave().await;
    signs.number.set(&7, -1);
    let (mut client, index) = signs.greeted(2).await;
    let waits = Packed(Cow::Owned(pack([1])));
    client.say(&Head::system(System::Reconnect, 50), |out| {
        out.value(&index)?;
        out.value(&BTreeMap::from([(1_u32, waits)]))
    });
    let first = client.expect("an answer", |got| got.id == 50 || got.id == 1).await;
    assert_eq!(first.call, System::Invalidate, "before it is said that all is said");
    client.expect("an answer", |got| got.id == 50).await;
    assert_eq!(signs.hub.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_in_sync_after_an_outage_is_what_has_changed_meanwhile() {
    let signs = Signs::new();
    let wire = Wire::to(&signs.hub);
    let (engine, remote) = (Engine::new(), Remote::builder(wire.clone()).connect());
    let slow = remote.define("slow", &MethodId::new("ISlow.Get:2").expect("short")).function(&engine);
    let slow: AsyncFunction<(u8,), Remoted<i64>> = slow.expect("registered");
    assert_eq!(*slow.get(&engine, &(7,)).await.expect("read"), Ok(1));
    wire.set_down(true);
    // Both have noticed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    signs.number.set(&7, -1);
    wire.set_down(false);
    let read = remote.synchronized(support::PATIENCE, || slow.get(&engine, &(7,))).await;
    assert_eq!(*read.expect("in time").expect("read"), Ok(-1));
}
