//! What a reader of a stream takes, whatever the other end sends: the peer's cases of its window.

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use support::PATIENCE;
use support::pipe::Wire;
use support::recorded::Said;
use support::script::{Link, Script};
use support::services::World;
use wellspring_rpc::wire::{Arguments, Format, Guid, Head, MethodId, StreamRef, System};
use wellspring_rpc::{Failure, Remote, RpcStream};

const FORMAT: Format = Format::Msgpack6c;

/// The number of the server in the handshake, which is that of the streams' owner.
const SERVER: u128 = 7;

/// A stream of a server that the test plays, on which reading has begun.
struct Begun {
    remote: Remote,
    link: Link,
    stream: RpcStream<u64>,
}

async fn begun(ack_period: u32, ack_advance: u32) -> Begun {
    let (script, mut links) = Script::new();
    let remote = Remote::builder(script).format(FORMAT).connect();
    let mut link = links.next().await;
    link.greet(SERVER, 1).await;
    let method = MethodId::new("IStreams.Numbers:1").expect("short");
    link.names = vec![method.name().to_owned()];
    let stream = StreamRef { ack_period, ack_advance, ..StreamRef::new(Guid::from_u128(SERVER), 1) };
    let call = remote.call::<RpcStream<u64>>(&method, ());
    let answer = async {
        let call = link.call("IStreams.Numbers:1").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&stream));
        link
    };
    let (stream, mut link) = tokio::join!(call, answer);
    let mut stream = stream.expect("a stream");
    assert!(tokio::time::timeout(Duration::from_millis(1), stream.next()).await.is_err(), "nothing was sent");
    assert_eq!(acknowledged(&link.system(System::Ack).await), (0, Guid::from_u128(SERVER)));
    Begun { remote, link, stream }
}

/// To where a reader has read, or from where it asks to be sent again.
fn acknowledged(said: &Said) -> (u64, Guid) {
    let mut arguments = Arguments::new(FORMAT, &said.arguments);
    (arguments.read().expect("an index"), arguments.read().expect("a host"))
}

impl Begun {
    fn item(&self, index: u64) {
        self.link.say(&Head::system(System::Item, 1), |out| {
            out.value(&index)?;
            out.value(&(index * 10))
        });
    }

    fn batch(&self, from: u64, count: u64) {
        let items: Vec<u64> = (from..from + count).map(|index| index * 10).collect();
        self.link.say(&Head::system(System::Batch, 1), |out| {
            out.value(&from)?;
            out.value(&items)
        });
    }

    async fn reads(&mut self, from: u64, to: u64) {
        for index in from..to {
            let item = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("an item");
            assert_eq!(item, Some(Ok(index * 10)));
        }
    }

    /// The reader has had enough: it says so here and there, and has kept nothing.
    async fn refuses(mut self) {
        self.link.system(System::AckEnd).await;
        let rest: Vec<Result<u64, Failure>> = tokio::time::timeout(PATIENCE, self.stream.collect()).await.expect("it ends");
        assert!(matches!(rest.as_slice(), [Err(_)]), "{rest:?}");
        assert_eq!(self.remote.open_streams(), 0);
    }
}

/// More than twice what is sent ahead and once what is said at a time, beyond what was read, no owner sends.
const MOST: u64 = 2 * 10 + 5;

#[tokio::test(start_paused = true)]
async fn as_much_as_an_owner_may_ever_send_is_taken_in_items_and_in_batches() {
    for in_batches in [false, true] {
        let mut begun = begun(5, 10).await;
        match in_batches {
            true => begun.batch(0, MOST),
            false => (0..MOST).for_each(|index| begun.item(index)),
        }
        begun.reads(0, MOST).await;
        // And as much again, of which all that was read is not counted.
        begun.batch(MOST, MOST);
        begun.reads(MOST, 2 * MOST).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_slides_with_what_is_read() {
    let mut begun = begun(5, 10).await;
    let (mut sent, mut told) = (0, 0);
    for _ in 0..20 {
        while sent < told + 10 {
            begun.item(sent);
            sent += 1;
        }
        begun.reads(told, told + 5).await;
        told += 5;
        assert_eq!(acknowledged(&begun.link.system(System::Ack).await), (told, Guid::NONE));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_refused() {
    let begun = begun(5, 10).await;
    (0..10_000).for_each(|index| begun.item(index));
    begun.refuses().await;
}

#[tokio::test(start_paused = true)]
async fn to_ask_again_is_no_leave_to_send_more() {
    let mut begun = begun(5, 10).await;
    let mut expected = 0;
    for _ in 0..200 {
        // Something is missing, time and again, and each time a little more is sent.
        begun.item(expected + 3);
        let asked = begun.link.expect("an ack or an end", |said| matches!(said.system(), Some(System::Ack | System::AckEnd))).await;
        if asked.system() == Some(System::AckEnd) {
            break;
        }
        assert_eq!(acknowledged(&asked), (expected, Guid::from_u128(SERVER)));
        begun.item(expected);
        expected += 1;
        if expected > MOST {
            break;
        }
    }
    assert_eq!(expected, MOST + 1, "the bound is the same");
    begun.refuses().await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_never_filled_costs_nothing() {
    let mut begun = begun(5, 10).await;
    for _ in 0..200 {
        begun.item(1_000);
        assert_eq!(acknowledged(&begun.link.system(System::Ack).await), (0, Guid::from_u128(SERVER)));
    }
    begun.batch(0, 10);
    begun.reads(0, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_past_the_window_is_refused() {
    let begun = begun(5, 10).await;
    begun.batch(0, MOST + 1);
    begun.refuses().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_1024_is_taken_and_one_of_1025_is_not() {
    for (count, is_taken) in [(1_024, true), (1_025, false), (100_000, false)] {
        let mut begun = begun(1, 1_000).await;
        begun.batch(0, count);
        match is_taken {
            true => begun.reads(0, count).await,
            false => begun.refuses().await,
        }
    }
}

/// A .NET server marks items whose types are not declared, before the item or the batch.
#[tokio::test(start_paused = true)]
async fn items_that_are_marked_as_of_some_type_fail_their_stream() {
    for call in [System::Item, System::Batch] {
        let begun = begun(5, 10).await;
        begun.link.say(&Head::system(call, 1), |out| {
            out.value(&0)?;
            // The mark of a value that is what was declared.
            out.value(&0)?;
            out.value(&0)?;
            if call == System::Batch { out.value(&[5, 6]) } else { out.value(&5) }
        });
        let rest: Vec<Result<u64, Failure>> = tokio::time::timeout(PATIENCE, begun.stream.collect()).await.expect("it ends");
        assert!(matches!(rest.as_slice(), [Err(_)]), "{rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_every_item() {
    let world = World::new();
    let remote = Remote::builder(Wire::to(&world.hub)).format(FORMAT).connect();
    let count = MethodId::new("IDemo.Count:4").expect("short");
    let mut stream: RpcStream<i64> = remote.call(&count, (250, 5, 10)).await.expect("a stream");
    for index in 0..250 {
        assert_eq!(stream.next().await, Some(Ok(index * 10)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_server_does_not_know_after_a_cut_is_over() {
    let (script, mut links) = Script::new();
    let pause = Duration::from_millis(100);
    let remote = Remote::builder(script).format(FORMAT).backoff(pause, pause).connect();
    let mut link = links.next().await;
    link.greet(SERVER, 1).await;
    let method = MethodId::new("IStreams.Numbers:1").expect("short");
    link.names = vec![method.name().to_owned()];
    let call = remote.call::<RpcStream<u64>>(&method, ());
    let answer = async {
        let call = link.call("IStreams.Numbers:1").await;
        link.say(&Head::system(System::Ok, call.id), |out| out.value(&StreamRef::new(Guid::from_u128(SERVER), 1)));
    };
    let (stream, ()) = tokio::join!(call, answer);
    let mut stream = stream.expect("a stream");
    link.say(&Head::system(System::Item, 1), |out| {
        out.value(&0)?;
        out.value(&0)
    });
    assert_eq!(stream.next().await, Some(Ok(0)));
    link.cut();
    let mut link = links.next().await;
    link.greet(SERVER, 2).await;
    assert_eq!(acknowledged(&link.system(System::Ack).await), (1, Guid::from_u128(SERVER)));
    link.say(&Head::system(System::Disconnect, 0), |out| out.value(&[1]));
    let rest: Vec<Result<u64, Failure>> = tokio::time::timeout(PATIENCE, stream.collect()).await.expect("it ends");
    assert!(matches!(rest.as_slice(), [Err(_)]), "{rest:?}");
}
