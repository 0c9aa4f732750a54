//! A client that has said who it is, and what it says and hears then.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wellspring_rpc::Visitor;
use wellspring_rpc::wire::{Arguments, ErrorInfo, Format, Guid, Handshake, Head, MethodId, Packed, System, pack};

use super::pipe::{Client, Received};
use super::services::World;

pub const FORMAT: Format = Format::Msgpack6c;
pub const NONE: [u64; 0] = [];

pub fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

pub fn hello(peer: u128, index: i32) -> Handshake<'static> {
    let (peer, hub) = (Guid::from_u128(peer), Guid::from_u128(9));
    Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index, secret: None }
}

/// A client that has said who it is, with what the server has said.
pub async fn greeted(world: &World, peer: u128) -> (Client, Received) {
    let mut client = Client::connect(&world.hub, Visitor::new("client", FORMAT));
    client.say(&Head::system(System::Handshake, 0), |out| out.value(&hello(peer, 1)));
    let theirs = client.expect("a handshake", |got| got.call == System::Handshake).await;
    (client, theirs)
}

pub fn call(client: &Client, kind: u8, id: u64, name: &str, arguments: &[&dyn Fn(&mut wellspring_rpc::wire::Writer<'_>)]) {
    client.say(&Head::call(kind, id, &method(name)), |out| {
        arguments.iter().for_each(|argument| argument(out));
        Ok(())
    });
}

/// Arguments of a call.
#[allow(unused_macros, reason = "each test uses a part of it")]
macro_rules! args {
    ($($value:expr),*) => {
        &[$(&|out: &mut wellspring_rpc::wire::Writer<'_>| out.value(&$value).expect("written")),*]
    };
}

#[allow(unused_imports, reason = "as above")]
pub(crate) use args;

pub fn read<T: serde::de::DeserializeOwned>(got: &Received) -> T {
    Arguments::new(FORMAT, &got.arguments).read().unwrap_or_else(|error| panic!("{error}: {got:?}"))
}

pub fn index(theirs: &Received) -> i32 {
    Arguments::new(FORMAT, &theirs.arguments).read::<Handshake<'_>>().expect("a handshake").index
}

/// Which of the calls the server does not know, by stage.
pub async fn reconnect(client: &mut Client, id: u64, index: i32, stages: &[(u32, &[u64])]) -> Vec<u64> {
    let stages: BTreeMap<u32, Packed<'_>> =
        stages.iter().map(|(stage, ids)| (*stage, Packed(Cow::Owned(pack(ids.iter().copied()))))).collect();
    client.say(&Head::system(System::Reconnect, id), |out| {
        out.value(&index)?;
        out.value(&stages)
    });
    let answer = client.expect("which are not known", |got| got.id == id).await;
    assert_eq!(answer.call, System::Ok, "{answer:?}");
    let unknown: Packed<'_> = Arguments::new(FORMAT, &answer.arguments).read().expect("packed");
    unknown.ids().collect::<Result<_, _>>().expect("ids")
}

pub async fn ok(client: &mut Client, id: u64) -> Received {
    let got = client.expect("an answer", |got| got.id == id).await;
    assert_eq!(got.call, System::Ok, "{got:?}");
    got
}

pub async fn failure(client: &mut Client, id: u64) -> ErrorInfo<'static> {
    let got = client.expect("a failure", |got| got.id == id).await;
    assert_eq!(got.call, System::Error, "{got:?}");
    let error: ErrorInfo<'_> = Arguments::new(FORMAT, &got.arguments).read().expect("a failure");
    ErrorInfo::new(error.type_ref.into_owned(), error.message.into_owned())
}

pub async fn stale(client: &mut Client, id: u64) {
    let got = client.expect("a notice", |got| got.id == id).await;
    assert_eq!(got.call, System::Invalidate, "{got:?}");
}

pub fn nothing(client: &mut Client) {
    client.hear_all();
    assert_eq!(client.pool, []);
}
