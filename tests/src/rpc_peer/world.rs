//! A server with its clients, and a client with its servers, all of which but the two peers are made of bytes.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use futures_util::stream;
use tokio::task::JoinHandle;
use wellspring::{AsyncFunction, Engine};
use wellspring_rpc::transport::{Connector, Incoming};
use wellspring_rpc::wire::{Format, MethodId, Raw, Secret};
use wellspring_rpc::{Remote, Remoted, RpcStream, Visitor};

use super::line::{Heard, Line, LineReader, LineWriter};
use super::offer::{BIG, Offer};
use super::say;

/// Who connects to the server. The last is never known again.
const CLIENTS: [&str; 3] = ["one", "two", ""];

/// What may wait to be sent on a connection of a server's, and what may be on its way besides.
const WAITING: usize = 3 << 20;

/// The way of the client's to its servers.
#[derive(Clone, Debug, Default)]
struct Way(Arc<Mutex<Found>>);

#[derive(Debug, Default)]
struct Found {
    down: bool,
    heard: Heard,
    lines: Vec<Line>,
}

impl Way {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for Way {
    type Reader = LineReader;
    type Writer = LineWriter;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(LineReader, LineWriter)> {
        let mut found = self.found();
        if found.down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (line, reader, writer) = Line::new(visitor.format, &found.heard);
        found.lines.push(line);
        Ok((reader, writer))
    }
}

pub(super) struct World {
    server: Offer,
    heard: [Heard; CLIENTS.len()],
    lines: Vec<Line>,
    serving: Vec<JoinHandle<()>>,
    proved: u64,
    /// What the client offers.
    client: Offer,
    near: Engine,
    function: AsyncFunction<(u8,), Remoted<i64>>,
    remote: Remote,
    way: Way,
    calls: Vec<JoinHandle<()>>,
}

fn method(name: &str) -> MethodId {
    MethodId::new(name).expect("short")
}

impl World {
    pub(super) fn new(u: &mut Unstructured<'_>) -> World {
        let (server, client, way) = (Offer::new(), Offer::new(), Way::default());
        let format = say::format(u).unwrap_or(Format::Msgpack6c);
        let (first, most) = (Duration::from_millis(10), Duration::from_secs(1));
        let remote = Remote::builder(way.clone()).format(format).hub(&client.hub).backoff(first, most).connect();
        let near = Engine::new();
        let function = remote.function(&near, "get", &method("I.Get:2")).expect("a free name");
        let heard = Default::default();
        let (lines, serving, calls) = Default::default();
        World { server, heard, lines, serving, proved: 0, client, near, function, remote, way, calls }
    }

    pub(super) async fn act(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=31)? {
            0 | 1 => self.connect(u).await?,
            2..=10 => self.on_a_line(u, say::frame)?,
            11..=17 => self.on_a_server(u, say::frame)?,
            18 => self.on_a_line(u, say::noise)?,
            19 => self.on_a_server(u, say::noise)?,
            20 | 21 => self.on_a_server(u, say::hello)?,
            22 => {
                let act = u.int_in_range(0..=4)?;
                let change = move |_: &mut Unstructured<'_>, line: &Line| {
                    match act {
                        0 => line.cut(),
                        1 => line.send_as(Incoming::Closed(1000)),
                        stalled => line.stall(stalled == 2),
                    }
                    Ok(())
                };
                if u.arbitrary()? { self.on_a_line(u, change)? } else { self.on_a_server(u, change)? }
            }
            23 => {
                let offer = if u.arbitrary()? { &self.server } else { &self.client };
                offer.values.set(&u.int_in_range(0..=3)?, u.int_in_range(0..=3)?);
            }
            24 => {
                let pause = *u.choose(&[1, 20, 150, 1_000, 2_000, 9_000, 12_000, 26_000, 130_000])?;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            25..=27 => self.call(u)?,
            28 if !self.calls.is_empty() => self.calls.swap_remove(u.choose_index(self.calls.len())?).abort(),
            29 => {
                let mut found = self.way.found();
                found.down = !found.down;
            }
            30 => {
                self.near.collect();
                self.server.engine.collect();
            }
            _ => {}
        }
        for _ in 0..u.int_in_range(0..=4)? {
            tokio::task::yield_now().await;
        }
        self.nothing_is_ahead();
        Ok(())
    }

    async fn connect(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (at, format) = (u.choose_index(CLIENTS.len())?, say::format(u)?);
        // One of another format is another client, of whom this has not heard.
        let heard = &self.heard[at];
        let mut visitor = Visitor::new(CLIENTS[at], format);
        if u.ratio(1, 4)?
            && let Some(secret) = heard.known().secret
        {
            self.proved += u.int_in_range(0..=2)?;
            visitor.proof = Some(Secret::new(secret).prove(CLIENTS[at], self.proved));
        }
        if self.server.hub.admit(&mut visitor).await.is_err() {
            return Ok(());
        }
        let (line, reader, writer) = Line::new(format, heard);
        if u.ratio(15, 16)? {
            say::hello(u, &line)?;
        }
        let hub = self.server.hub.clone();
        self.serving.push(tokio::spawn(async move { hub.serve(visitor, reader, writer).await }));
        self.lines.push(line);
        Ok(())
    }

    fn on_a_line(&self, u: &mut Unstructured<'_>, act: impl FnOnce(&mut Unstructured<'_>, &Line) -> Result<()>) -> Result<()> {
        on_one_of(u, &self.lines, act)
    }

    /// Of those that the client has found.
    fn on_a_server(&self, u: &mut Unstructured<'_>, act: impl FnOnce(&mut Unstructured<'_>, &Line) -> Result<()>) -> Result<()> {
        on_one_of(u, &self.way.found().lines, act)
    }

    /// A call of our own.
    fn call(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (remote, key) = (self.remote.clone(), u.int_in_range(0..=3_u8)?);
        let call = match u.int_in_range(0..=7)? {
            0 => tokio::spawn(async move { drop(remote.call::<Raw>(&method("I.Echo:2"), (key,)).await) }),
            1 => tokio::spawn(async move {
                if let Ok(replica) = remote.compute::<i64>(&method("I.Get:2"), (key,)).await {
                    replica.stale().await;
                }
            }),
            2 => tokio::spawn(async move { drop(remote.try_compute::<i64>(&method("I.GetOrFail:2"), (key,)).await) }),
            3 => tokio::spawn(async move {
                if let Ok(mut items) = remote.call::<RpcStream<i64>>(&method("I.Count:4"), (300, 5, 10)).await {
                    while items.next().await.is_some() {}
                }
            }),
            4 => tokio::spawn(async move {
                if let Ok(streams) = remote.call::<Vec<RpcStream<Raw>>>(&method("I.Echo:2"), (key,)).await {
                    for mut items in streams {
                        let _ = items.next().await;
                    }
                }
            }),
            5 => tokio::spawn(async move {
                let numbers = RpcStream::new(stream::iter(0..100_i64));
                drop(remote.call::<i64>(&method("I.Sum:2"), (numbers,)).await);
            }),
            6 => tokio::spawn(async move { remote.tell(&method("I.Ping:2"), (key,)).expect("a small call") }),
            _ => {
                let (near, function) = (self.near.clone(), self.function.clone());
                tokio::spawn(async move { drop(function.get(&near, &(key,)).await.expect("a value or none")) })
            }
        };
        self.calls.push(call);
        Ok(())
    }

    /// A server that nobody listens to does not go on answering.
    fn nothing_is_ahead(&self) {
        let answered = self.server.big.load(Ordering::SeqCst) * BIG;
        let heard: usize = self.heard.iter().map(|heard| heard.known().bytes).sum();
        assert!(answered <= heard + self.lines.len() * WAITING, "{answered} bytes are answered, and {heard} were heard");
    }

    pub(super) async fn end(self) {
        let World { server, lines, serving, client, near, function, remote, way, calls, .. } = self;
        // Nobody says anything any more, or takes it: connections end by that, and no new one is made.
        way.found().down = true;
        lines.iter().chain(&way.found().lines).for_each(|line| line.stall(true));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(lines.iter().all(Line::is_over), "a connection of the server's goes on without a sign of life");
        assert!(way.found().lines.iter().all(Line::is_over), "a connection of the client's goes on without a sign of life");
        for connection in serving {
            assert!(connection.is_finished(), "a connection is served that has ended");
            connection.await.expect("no panic");
        }
        for call in calls {
            call.abort();
            // Whether it was in time.
            assert!(call.await.err().is_none_or(|error| error.is_cancelled()), "no panic");
        }
        // What it has held goes with it.
        near.assert_consistent();
        drop((function, near));
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert_eq!(remote.open_calls(), 0, "calls of the client's");
        assert_eq!((server.hub.clients(), server.hub.open_calls(), server.hub.open_streams()), (0, 0, 0), "clients, calls and streams");
        assert_eq!(server.alive(), 0, "bodies and sources of the server's");
        drop(remote);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(client.alive(), 0, "bodies and sources of the client's");
        server.engine.assert_consistent();
        client.engine.assert_consistent();
    }
}

fn on_one_of(u: &mut Unstructured<'_>, lines: &[Line], act: impl FnOnce(&mut Unstructured<'_>, &Line) -> Result<()>) -> Result<()> {
    // Mostly the last one, which most likely lives.
    let back = if u.ratio(2, 3)? { 0 } else { u.int_in_range(0..=3)? };
    match lines.iter().rev().nth(back) {
        Some(line) => act(u, line),
        None => Ok(()),
    }
}
