//! What calls cost the heap.

mod support;

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::cell::Cell;

use bytes::Bytes;
use support::pipe::{Client, Sent, Wire};
use support::services::World;
use wellspring_rpc::wire::{Format, Frame, Guid, Handshake, Head, Messages, MethodId, System};
use wellspring_rpc::{Failure, Remote, Service, Visitor};

const FORMAT: Format = Format::Msgpack6c;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is done by the system's allocator, as it was asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller says.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { Heap.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Of a frame. Making room for frames of answers is about a hundred allocations.
const CALLS: usize = 2_000;

fn calls(names: &[&str]) -> Bytes {
    let methods: Vec<_> = names.iter().map(|name| MethodId::new(*name).expect("short")).collect();
    let mut frame = Frame::new(FORMAT);
    for (id, method) in (1..=CALLS as u64).zip(methods.iter().cycle()) {
        frame.push(&Head::call(0, id, method), |out| out.value(&id)).expect("written");
    }
    frame.take().into()
}

/// How often a server allocates while it answers all calls of a frame.
async fn allocations(client: &mut Client, frame: &Bytes) -> usize {
    let before = ALLOCATIONS.get();
    client.send(frame.clone());
    let mut answered = 0;
    while answered < CALLS {
        let Sent::Frame(frame) = client.hear().await else { panic!("the connection is over") };
        answered +=
            Messages::new(FORMAT, &frame).filter(|message| System::of(&message.as_ref().expect("one").method) == Some(System::Ok)).count();
    }
    ALLOCATIONS.get() - before
}

/// The test and the server are one thread.
#[tokio::test]
async fn calls_that_are_over_at_once_do_not_allocate_whatever_order_their_methods_come_in() {
    async fn large<const N: usize>(number: u64) -> Result<u64, Failure> {
        let numbers = [number; N];
        std::future::ready(()).await;
        Ok(std::hint::black_box(numbers)[N - 1])
    }
    let sizes = Service::new("ISizes")
        .method("None:2", |(number,): (u64,)| async move { Ok::<_, Failure>(number) })
        .method("Some:2", |(number,): (u64,)| large::<10>(number))
        .method("More:2", |(number,): (u64,)| large::<100>(number));
    let world = World::with(|hub| hub.service(sizes).expect("a service"));
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(9));
    let hello = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello));
    client.expect("a handshake", |got| got.call == System::Handshake).await;
    let names = ["ISizes.None:2", "ISizes.Some:2", "ISizes.More:2"];
    for names in [&names[..1], &names[2..], &names[..2], &names] {
        let frame = calls(names);
        allocations(&mut client, &frame).await;
        let count = allocations(&mut client, &frame).await;
        assert!(count < CALLS / 10, "{count} allocations for {CALLS} calls of {names:?}");
    }
}

#[tokio::test]
async fn a_call_without_options_has_no_room_for_what_limits_need() {
    let world = World::new();
    let remote = Remote::builder(Wire::to(&world.hub)).connect();
    let method = MethodId::new("ICounter.Get:2").expect("short");
    let call = remote.call::<i64>(&method, ("a",));
    // It had 1,112 bytes; the exact number is the compiler's affair.
    assert!(size_of_val(&call) <= 400, "{}", size_of_val(&call));
    assert_eq!(call.await, Ok(0));
}
