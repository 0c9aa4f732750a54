//! What a connection holds while nothing happens.

mod support;

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use support::services::World;
use wellspring_rpc::web::Origins;
use wellspring_rpc::wire::{Format, Frame, Guid, Handshake, Head, MethodId, System};
use wellspring_rpc::{Listener, Serving, Timings};

/// Bytes of the heap that are in use.
static HELD: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: everything is done by the system's allocator, as it was asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { Heap.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CONNECTIONS: usize = 300;
/// The bar of an idle connection.
const BAR: isize = 10 << 10;

/// How a transport packs bytes, and unpacks them.
trait Speaks {
    fn ask(&self, number: usize) -> Vec<u8>;
    fn pack(&self, frame: &[u8]) -> Vec<u8>;
    fn welcomed(&self, stream: &mut TcpStream);
    fn hear(&self, stream: &mut TcpStream) -> usize;
}

struct Sockets;

impl Speaks for Sockets {
    fn ask(&self, number: usize) -> Vec<u8> {
        let query = format!("f=msgpack6c&clientId=c{number}");
        [&b"wsr1"[..], &[1, 0, 0, query.len() as u8], query.as_bytes()].concat()
    }

    fn pack(&self, frame: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = (frame.len() as u32).to_be_bytes();
        [&[3, high, middle, low], frame].concat()
    }

    fn welcomed(&self, stream: &mut TcpStream) {
        assert_eq!(self.hear(stream), 0);
    }

    fn hear(&self, stream: &mut TcpStream) -> usize {
        let mut head = [0; 4];
        stream.read_exact(&mut head).expect("a unit");
        head[0] = 0;
        u32::from_be_bytes(head) as usize
    }
}

struct Web;

impl Speaks for Web {
    fn ask(&self, number: usize) -> Vec<u8> {
        let request = format!(
            "GET /rpc/ws?f=msgpack6c&clientId=w{number} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        request.into_bytes()
    }

    fn pack(&self, frame: &[u8]) -> Vec<u8> {
        // Masked, by nothing.
        let mut packed = vec![0x82, 0xff];
        packed.extend_from_slice(&(frame.len() as u64).to_be_bytes());
        packed.extend_from_slice(&[0; 4]);
        packed.extend_from_slice(frame);
        packed
    }

    fn welcomed(&self, stream: &mut TcpStream) {
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).expect("an answer");
            seen.push(byte[0]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 101"));
    }

    fn hear(&self, stream: &mut TcpStream) -> usize {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a frame");
        match head[1] {
            126 => {
                stream.read_exact(&mut head).expect("a length");
                usize::from(u16::from_be_bytes(head))
            }
            127 => {
                let mut length = [0; 8];
                stream.read_exact(&mut length).expect("a length");
                u64::from_be_bytes(length) as usize
            }
            short => usize::from(short),
        }
    }
}

fn skip(stream: &mut TcpStream, bytes: usize) {
    std::io::copy(&mut stream.take(bytes as u64), &mut std::io::sink()).expect("a frame");
}

fn handshake() -> Vec<u8> {
    let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(2));
    let handshake = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
    let mut frame = Frame::new(Format::Msgpack6c);
    frame.push(&Head::system(System::Handshake, 0), |out| out.value(&handshake)).expect("written");
    frame.take()
}

fn echo(size: usize) -> Vec<u8> {
    let mut frame = Frame::new(Format::Msgpack6c);
    let method = MethodId::new("IDemo.EchoAny:2").expect("short");
    frame.push(&Head::call(0, 1, &method), |out| out.value(&"x".repeat(size))).expect("written");
    frame.take()
}

/// The least that is held in a while: whoever is at work just now is done then.
async fn settled() -> isize {
    let mut least = isize::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        least = least.min(HELD.load(Ordering::Relaxed));
    }
    least
}

/// Bytes that each of many connections holds: when it was made, after it has said a little, and after it has said a lot.
async fn held_by_each(world: &World, serving: &Serving, speaks: impl Speaks + Send + Sync + 'static) -> [isize; 3] {
    let to: SocketAddr = serving.local_addr().expect("a port");
    let speaks = std::sync::Arc::new(speaks);
    let mut streams: Vec<TcpStream> = Vec::with_capacity(CONNECTIONS);
    let before = settled().await;
    let mut held = Vec::new();
    for size in [0, 100, 300_000] {
        let speaks = speaks.clone();
        streams = tokio::task::spawn_blocking(move || {
            if streams.is_empty() {
                for number in 0..CONNECTIONS {
                    let mut stream = TcpStream::connect(to).expect("connected");
                    stream.write_all(&speaks.ask(number)).expect("asked");
                    speaks.welcomed(&mut stream);
                    stream.write_all(&speaks.pack(&handshake())).expect("said");
                    let length = speaks.hear(&mut stream);
                    skip(&mut stream, length);
                    streams.push(stream);
                }
            }
            for stream in streams.iter_mut().filter(|_| size > 0) {
                stream.write_all(&speaks.pack(&echo(size))).expect("said");
                // After signs of life, it may be.
                while {
                    let length = speaks.hear(stream);
                    skip(stream, length);
                    length < size
                } {}
            }
            streams
        })
        .await
        .expect("no panic");
        held.push((settled().await - before) / CONNECTIONS as isize);
    }
    assert!(world.hub.clients() >= CONNECTIONS);
    held.try_into().expect("three")
}

#[tokio::test]
async fn a_connection_that_waits_holds_little_whatever_it_has_done_before() {
    // Some room is given back with the next sign of life.
    let mut timings = Timings::default();
    timings.keep_alive = Duration::from_millis(400);
    let world = World::with(|builder| builder.timings(timings));
    let sockets = Listener::tcp("127.0.0.1:0").await.expect("a port").serve(&world.hub);
    let held = held_by_each(&world, &sockets, Sockets).await;
    println!("frames over TCP: {held:?} bytes");
    assert!(held.iter().all(|held| *held <= BAR), "frames over TCP: {held:?}");
    let web = Listener::tcp("127.0.0.1:0").await.expect("a port").web(Origins::Same).serve(&world.hub);
    let held = held_by_each(&world, &web, Web).await;
    println!("WebSockets: {held:?} bytes");
    assert!(held.iter().all(|held| *held <= BAR), "WebSockets: {held:?}");
}
