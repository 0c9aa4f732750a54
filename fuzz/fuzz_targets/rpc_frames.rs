//! What carries frames, under a stranger's bytes: WebSockets of both ends, sockets, and how both begin. Nothing panics, no more is held than may be (which the
//! readers are asked at each pause), the same bytes come to the same however they are cut, and what one end writes the other reads.
//!
//! The first five bytes say what is done, how much room there is on the way, how the rest is cut (a seed, and the longest piece), and how often its
//! last byte follows: for a message that is larger than what is read at once.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{Corpus, fuzz_target};
use wellspring_rpc::socket::fuzzing as socket;
use wellspring_rpc::transport::{Close, Incoming};
use wellspring_rpc::web::fuzzing as web;
use wellspring_rpc::wire::limits;

/// What has come, and how it has ended.
type Come = (Vec<Incoming>, Result<(), std::io::ErrorKind>);

struct Case<'a> {
    room: usize,
    cut: u8,
    longest: usize,
    bytes: &'a [u8],
    long: usize,
}

impl Case<'_> {
    fn wire(&self) -> Vec<u8> {
        let mut wire = self.bytes.to_vec();
        wire.resize(wire.len() + self.long, wire.last().copied().unwrap_or(0));
        wire
    }

    fn cut<'w>(&self, mut wire: &'w [u8]) -> Vec<&'w [u8]> {
        let (mut random, mut pieces) = (fastrand::Rng::with_seed(u64::from(self.cut)), Vec::new());
        while !wire.is_empty() {
            let (piece, rest) = wire.split_at(random.usize(1..=self.longest.min(wire.len())));
            pieces.push(piece);
            wire = rest;
        }
        pieces
    }

    /// The same, whole and in pieces.
    fn same<T: PartialEq + std::fmt::Debug>(&self, wire: Vec<u8>, mut read: impl FnMut(Vec<Vec<u8>>) -> T) -> T {
        let pieces = self.cut(&wire).into_iter().map(<[u8]>::to_vec).collect();
        let whole = if wire.is_empty() { Vec::new() } else { vec![wire] };
        let (whole, cut) = (read(whole), read(pieces));
        assert_eq!(whole, cut);
        whole
    }

    /// What is written is read: pieces of the bytes, and then all of them.
    fn across(&self, of: fn(Bytes) -> Incoming, text: bool, go: impl Fn(&[Bytes], Close<'_>, usize) -> Come) {
        let wire = self.wire();
        let frame = |bytes: &[u8]| if text { String::from_utf8_lossy(bytes).into_owned().into() } else { Bytes::copy_from_slice(bytes) };
        let mut frames: Vec<_> = self.cut(&wire).into_iter().take(4).map(frame).collect();
        frames.push(frame(&wire));
        if frames[0].len() > limits::FIRST_FRAME {
            return;
        }
        let (code, reason) = (1_000 + u16::from(self.cut), String::from_utf8_lossy(self.bytes));
        let read = go(&frames, Close { code, reason: &reason }, self.room);
        let expected = frames.into_iter().map(of).chain([Incoming::Closed(code)]).collect();
        assert_eq!(read, (expected, Ok(())));
    }
}

fn web_frames(case: &Case<'_>, client: bool) {
    let _ = case.same(case.wire(), |pieces| {
        // By which answers are masked.
        fastrand::seed(0);
        web::read(client, pieces, case.room)
    });
    let (text, of): (_, fn(Bytes) -> Incoming) =
        if case.cut.is_multiple_of(2) { (true, Incoming::Text) } else { (false, Incoming::Binary) };
    case.across(of, text, |frames, close, room| web::across(client, frames, text, close, room));
}

fn socket_asked(case: &Case<'_>) {
    let whole = case.same(case.wire(), socket::asked);
    match whole {
        // Of who asks with what has to be written in more bytes than it was read in, that may be too much.
        Ok((query, _)) if query.len() <= 1_024 => {
            assert_eq!(socket::met(&query, None, case.room), (Some(query), None));
        }
        Ok(_) => {}
        Err((code, reason)) => {
            let heard = reason[..reason.floor_char_boundary(123)].to_owned();
            let (_, refusal) = socket::met("", Some(Close { code, reason: &reason }), case.room);
            assert_eq!(refusal, Some((code, heard)));
        }
    }
}

/// What stands for the answer to a client's key, which nobody can guess.
const KEY: &[u8] = b"KEY";

fn web_answered(case: &Case<'_>) {
    let mut wire = case.wire();
    if let Some(at) = wire.windows(KEY.len()).position(|here| here == KEY) {
        wire.splice(at..at + KEY.len(), web::accepts().bytes());
    }
    let _ = case.same(wire, web::answered);
}

fn web_asked(case: &Case<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    case.same(case.wire(), |pieces| runtime.block_on(web::asked(pieces)));
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([what, room, cut, longest, long], bytes)) = data.split_first_chunk() else { return Corpus::Reject };
    // Seldom, as it takes long; and then it does not go byte by byte.
    let long = if *long < 0xf0 { 0 } else { usize::from(*long - 0xf0) << 13 };
    let times = |byte: &u8| (1 + usize::from(*byte)) * (1 + long / 64);
    let case = Case { room: times(room), cut: *cut, longest: times(longest), bytes, long };
    match what % 7 {
        0 => web_frames(&case, false),
        1 => web_frames(&case, true),
        2 => {
            let _ = case.same(case.wire(), socket::read);
            case.across(Incoming::Frame, false, socket::across);
        }
        3 => socket_asked(&case),
        4 => _ = case.same(case.wire(), socket::answered),
        5 => web_asked(&case),
        _ => web_answered(&case),
    }
    Corpus::Keep
});
