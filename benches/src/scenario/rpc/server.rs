//! The other process.

use std::io::{BufRead, BufReader, Read};
use std::process::{self, ChildStdin, Command, Stdio};

use axum::serve::ListenerExt;
use futures_util::stream;
use tokio::net::TcpListener;
use wellspring::Engine;
use wellspring_rpc::web::{self, WebAddress};
use wellspring_rpc::{Failure, Hub, Remote, RpcStream, Service};

use super::streams::Item;
use super::{COUNTED_SERVER, SERVER, User, echo, grpc, runtime, tarpc, text};
use crate::scenario::memory;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Wellspring,
    Echo,
    Tarpc,
    Tonic,
}

impl Kind {
    const ALL: [(&str, Kind); 4] = [("wellspring", Kind::Wellspring), ("echo", Kind::Echo), ("tarpc", Kind::Tarpc), ("tonic", Kind::Tonic)];

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// A server in a process of its own, until it is dropped.
pub(super) struct Other {
    process: process::Child,
    _input: Option<ChildStdin>,
    pub(super) port: u16,
}

impl Other {
    pub(super) fn start(kind: Kind) -> Result<Other, String> {
        Other::run(SERVER, kind)
    }

    /// One that can say how many bytes it has allocated.
    pub(super) fn counted(kind: Kind) -> Result<Other, String> {
        Other::run(COUNTED_SERVER, kind)
    }

    fn run(word: &str, kind: Kind) -> Result<Other, String> {
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.args([word, kind.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(text)?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        // Dropped on the way out if it does not say where it is.
        let mut other = Other { process, _input: input, port: 0 };
        let mut line = String::new();
        BufReader::new(output.ok_or("a child without pipes")?).read_line(&mut line).map_err(text)?;
        other.port = line.trim().parse().map_err(|_| format!("the server said `{}` instead of its port", line.trim()))?;
        Ok(other)
    }

    /// A client of it. To be called within a runtime.
    pub(super) fn remote(&self) -> Remote {
        Remote::builder(self.address()).connect()
    }

    pub(super) fn address(&self) -> WebAddress {
        WebAddress::new(format!("ws://127.0.0.1:{}/rpc/ws", self.port)).expect("an address of a WebSocket")
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is a server until its standard input ends.
pub(super) fn run(words: &[String]) -> Result<(), String> {
    let kind = words.first().and_then(|word| Kind::ALL.iter().find(|(name, _)| name == word));
    let &(_, kind) = kind.ok_or("which server?")?;
    let runtime = runtime()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).map_err(text)?;
    println!("{}", listener.local_addr().map_err(text)?.port());
    runtime.spawn(async move {
        match kind {
            Kind::Wellspring => wellspring(listener).await,
            Kind::Echo => echo::serve(listener).await,
            Kind::Tarpc => tarpc::serve(listener).await,
            Kind::Tonic => grpc::serve(listener).await,
        }
    });
    // Whoever has started this one may end in any way.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// Values that the fan-out's subscriptions are of.
pub(super) const VALUES: u32 = 100;

async fn wellspring(listener: TcpListener) {
    let engine = Engine::new();
    let source = engine.source("source", |(): &()| 0_u64).expect("the name is free");
    let read = source.clone();
    let values = engine.function("value", move |cx, key: &u32| read.get(cx, &()).map_or(0, |value| value + u64::from(*key)));
    let values = values.expect("the name is free");
    let read = source.clone();
    let sign = engine.define("sign").cut_off_eq().function(move |cx, _: &u32| read.get(cx, &()).map_or(0, |value| i64::from(value > 0)));
    let sign = sign.expect("the name is free");
    let signs = || {
        let (engine, sign) = (engine.clone(), sign.clone());
        move |(key,): (u32,)| std::future::ready(sign.computed(&engine, &key))
    };
    let (at_once, verified) = (signs(), signs());
    let service = Service::new("Bench")
        .method("Add:2", |(a, b): (i32, i32)| async move { Ok::<_, Failure>(a.wrapping_add(b)) })
        .method("User:1", |(id,): (u64,)| async move { Ok::<_, Failure>(User::with(id)) })
        .compute("Sign:1", at_once)
        .compute("VerifiedSign:1", verified)
        .verified()
        .compute("Value:1", move |(key,): (u32,)| {
            let (engine, values) = (engine.clone(), values.clone());
            async move { values.computed(&engine, &key) }
        })
        .method("Set:1", move |(value,): (u64,)| {
            source.set(&(), value);
            async { Ok::<_, Failure>(()) }
        })
        .method(
            "Items:1",
            |(count,): (u64,)| async move { Ok::<_, Failure>(RpcStream::new(stream::iter((0..count).map(|_| Item([7; 100]))))) },
        )
        .method("Allocated:0", |(): ()| async { Ok::<_, Failure>(memory::bytes_in_use().map(|count| count() as u64)) });
    let hub = Hub::builder().service(service).expect("names of their own").build();
    let listener = listener.tap_io(|socket| {
        // Slower without, but right.
        let _ = socket.set_nodelay(true);
    });
    if let Err(error) = axum::serve(listener, web::router(hub)).await {
        eprintln!("the server has ended: {error}");
    }
}
