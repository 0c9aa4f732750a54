use futures_util::FutureExt;

use super::*;
use crate::inbox::CHUNK;
use crate::pieces::Pieces;
use crate::taking::Taking;

fn frames(sizes: &[usize]) -> Vec<Bytes> {
    sizes.iter().enumerate().map(|(at, size)| vec![(at as u8 ^ 0x55) & 0x7f; *size].into()).collect()
}

/// What an end writes.
fn written(end: End, frames: &[Bytes], text: bool) -> Vec<u8> {
    let (_reader, mut writer) = over(end, Pieces::default(), Taking::new());
    writer.write(frames, text).now_or_never().expect("no pause").expect("written");
    writer.close(Close { code: 4001, reason: "because" }).now_or_never().expect("no pause");
    let mut outbox = lock(&writer.outbox);
    assert!(outbox.stream.over);
    std::mem::take(&mut outbox.stream.taken)
}

/// What an end reads of it, how the stream ends, and what it has answered. At each pause the future is dropped and begun again.
fn read(end: End, pieces: Pieces) -> (Vec<Incoming>, io::Result<()>, Vec<u8>) {
    let (mut reader, writer) = over(end, pieces, Taking::new());
    let mut all = Vec::new();
    let end = loop {
        match reader.read().now_or_never() {
            None => {}
            Some(Ok(Some(incoming))) => all.push(incoming),
            Some(Ok(None)) => break Ok(()),
            Some(Err(error)) => break Err(error),
        }
    };
    let answered = std::mem::take(&mut lock(&writer.outbox).stream.taken);
    (all, end, answered)
}

/// A frame of a server's.
fn frame(code: u8, last: bool, said: &[u8]) -> Vec<u8> {
    let (mut head, size) = head(code, said.len(), 0);
    head[0] = code | if last { LAST } else { 0 };
    [&head[..size], said].concat()
}

fn all_of(frames: &[Bytes], text: bool) -> Vec<Incoming> {
    let of = if text { Incoming::Text } else { Incoming::Binary };
    frames.iter().cloned().map(of).chain([Incoming::Closed(4001)]).collect()
}

#[test]
fn messages_are_whole_wherever_the_stream_is_cut() {
    for (from, to) in [(End::Server, End::Client), (End::Client, End::Server)] {
        for text in [true, false] {
            let frames = frames(&[3, 0, 126, 1]);
            let wire = written(from, &frames, text);
            for at in 0..wire.len() {
                for second in (at..wire.len()).step_by(7) {
                    let pieces = [&wire[..at], &wire[at..second], &wire[second..]].into_iter().filter(|piece| !piece.is_empty());
                    let (read, end, _) = read(to, Pieces::of(pieces.map(<[u8]>::to_vec)));
                    assert_eq!((read, end.is_ok()), (all_of(&frames, text), true), "{from:?}, cut at {at} and {second}");
                }
            }
            let (read, end, _) = read(to, Pieces::of(wire.iter().map(|byte| vec![*byte])));
            assert_eq!((read, end.is_ok()), (all_of(&frames, text), true), "{from:?}, byte for byte");
        }
    }
}

#[test]
fn messages_of_all_sizes_and_masks_are_whole_however_they_come() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (from, to) = if random.bool() { (End::Server, End::Client) } else { (End::Client, End::Server) };
        let mut sizes = vec![random.usize(0..limits::FIRST_FRAME)];
        sizes.extend((0..random.usize(0..30)).map(|_| match random.u8(0..4) {
            0 => *random.choice(&[125, 126, 127, 0xffff, 0x1_0000, CHUNK]).expect("one"),
            1 => random.usize(0..4 * CHUNK),
            _ => random.usize(0..200),
        }));
        let frames = frames(&sizes);
        let wire = written(from, &frames, false);
        let (mut rest, mut pieces) = (&wire[..], Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(3 * CHUNK)));
            pieces.push(piece.to_vec());
            rest = after;
        }
        let (read, end, _) = read(to, Pieces::of(pieces));
        assert!(read == all_of(&frames, false) && end.is_ok(), "seed {seed}, sizes {sizes:?}");
    }
}

#[test]
fn a_message_may_come_in_many_frames_with_pings_between_them() {
    let wire = [
        frame(TEXT, false, "\u{1F600}".as_bytes().split_at(2).0),
        frame(PING, true, b"are you there"),
        frame(CONTINUED, false, b""),
        frame(PONG, true, b"nobody asked"),
        frame(CONTINUED, true, "\u{1F600}".as_bytes().split_at(2).1),
        frame(BINARY, true, b"\xff"),
        frame(CLOSE, true, b""),
    ];
    let (read, end, answered) = read(End::Client, Pieces::of(wire));
    let expected = [Incoming::Text("\u{1F600}".into()), Incoming::Binary(Bytes::from_static(b"\xff")), Incoming::Closed(1005)];
    assert_eq!((&read[..], end.is_ok()), (&expected[..], true));
    // The answer is masked, and says the same.
    assert_eq!(answered[..2], [LAST | PONG, MASKED | 13]);
    let mut said = answered[6..].to_vec();
    xor(&mut said, [answered[2], answered[3], answered[4], answered[5]]);
    assert_eq!(said, b"are you there");
}

#[test]
fn pings_are_answered_between_messages_and_not_without_end() {
    let (mut reader, mut writer) = over(End::Client, Pieces { open: true, ..Pieces::default() }, Taking { most: 3, ..Taking::new() });
    let frames = frames(&[9]);
    let mut writing = Box::pin(writer.write(&frames, false));
    assert!((&mut writing).now_or_never().is_none(), "it waits in the middle");
    for _ in 0..1_000 {
        reader.inbox.stream.pieces.push_back(frame(PING, true, b"?"));
    }
    while !reader.inbox.stream.pieces.is_empty() {
        assert!(reader.read().now_or_never().is_none());
    }
    assert_eq!(lock(&reader.outbox).stream.taken.len(), 3);
    lock(&reader.outbox).stream.most = usize::MAX;
    writing.now_or_never().expect("no pause").expect("written");
    let wire = std::mem::take(&mut lock(&reader.outbox).stream.taken);
    assert!(wire.len() <= 2 + 4 + 9 + PONGS + 7 && wire.len() >= PONGS, "{}", wire.len());
    let (read, end, _) = read(End::Server, Pieces::of([wire]));
    assert_eq!((read, end.is_ok()), (all_of(&frames, false)[..1].to_vec(), true));
}

#[test]
fn what_nobody_says_who_speaks_this_ends_the_connection() {
    let large = |length: u64| [&[LAST | BINARY, 127][..], &length.to_be_bytes()].concat();
    let too_large = io::ErrorKind::InvalidData;
    let table: [(&str, Vec<u8>, io::ErrorKind); 14] = [
        ("an extension", vec![0xc2, 0], io::ErrorKind::Other),
        ("a mask", vec![LAST | BINARY, MASKED], io::ErrorKind::Other),
        ("an unknown code", vec![LAST | 3, 0], io::ErrorKind::Other),
        ("an unknown control", vec![LAST | 0xb, 0], io::ErrorKind::Other),
        ("half a ping", vec![PING, 0], io::ErrorKind::Other),
        ("half a close", vec![CLOSE, 0], io::ErrorKind::Other),
        ("a long ping", vec![LAST | PING, 126, 0, 126], io::ErrorKind::Other),
        ("the rest of nothing", vec![LAST | CONTINUED, 0], io::ErrorKind::Other),
        ("a message in a message", [frame(TEXT, false, b""), frame(TEXT, true, b"")].concat(), io::ErrorKind::Other),
        ("no text", frame(TEXT, true, b"\xff"), io::ErrorKind::Other),
        ("a large first message", large(limits::FIRST_FRAME as u64 + 1), too_large),
        ("a large message", [frame(BINARY, true, b""), large(limits::FRAME as u64 + 1)].concat(), too_large),
        ("a message without end", [frame(BINARY, false, &[0; 9_000]), frame(CONTINUED, false, &[0; 9_000])].concat(), too_large),
        ("the largest length", large(u64::MAX), too_large),
    ];
    for (what, wire, kind) in table {
        let (_, end, _) = read(End::Client, Pieces::of([wire]));
        assert_eq!(end.expect_err(what).kind(), kind, "{what}");
    }
    let (_, end, _) = read(End::Server, Pieces::of([frame(BINARY, true, b"")]));
    assert!(end.is_err(), "a client's frame without a mask");
    let wire = frame(BINARY, true, &[0; 300]);
    for cut in 1..wire.len() {
        let (read, end, _) = read(End::Client, Pieces::of([wire[..cut].to_vec()]));
        assert_eq!((read, end.expect_err("broken").kind()), (vec![], io::ErrorKind::UnexpectedEof));
    }
}

#[test]
fn hostile_frames_are_read_or_refused_and_hold_nothing() {
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wire = Vec::new();
        for _ in 0..random.usize(1..8) {
            let said: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let mut frame = frame(*random.choice(&[0, 1, 2, 2, 2, 8, 9, 10]).expect("one"), random.bool(), &said);
            for _ in 0..random.usize(0..2) {
                let at = random.usize(0..frame.len().min(12));
                frame[at] = random.u8(..);
            }
            wire.extend(frame);
        }
        let (mut reader, _writer) = over(End::Client, Pieces { open: true, ..Pieces::of([wire.clone()]) }, Taking::new());
        for _ in 0..40 {
            let read = reader.read().now_or_never();
            assert!(reader.inbox.buffer.capacity() <= 2 * wire.len() + 64, "seed {seed}");
            if matches!(read, Some(Err(_) | Ok(None))) {
                break;
            }
        }
    }
}

#[test]
fn nothing_follows_half_a_message() {
    for end in [End::Server, End::Client] {
        let (_reader, mut writer) = over(end, Pieces::default(), Taking { most: 6, ..Taking::new() });
        assert!(writer.write(&frames(&[9]), false).now_or_never().is_none());
        lock(&writer.outbox).stream.most = usize::MAX;
        assert!(writer.write(&frames(&[1]), false).now_or_never().expect("no pause").is_err());
        writer.close(Close::NORMAL).now_or_never().expect("no pause");
        let outbox = lock(&writer.outbox);
        assert_eq!((outbox.stream.taken.len(), outbox.stream.over), (6, true));
    }
}

#[test]
fn all_messages_of_a_write_go_out_in_one() {
    for (end, vectored) in [(End::Server, true), (End::Server, false), (End::Client, true)] {
        let (_reader, mut writer) = over(end, Pieces::default(), Taking { vectored, ..Taking::new() });
        writer.write(&frames(&[5; MESSAGES]), false).now_or_never().expect("no pause").expect("written");
        assert_eq!(lock(&writer.outbox).stream.calls, 1);
    }
}

#[test]
fn what_has_come_of_a_message_is_heard_before_its_rest_has() {
    let wire = written(End::Server, &frames(&[1, 5_000]), false);
    let (mut reader, _writer) = over(End::Client, Pieces { open: true, ..Pieces::of([wire[..4_000].to_vec()]) }, Taking::new());
    let mut read = 0;
    for _ in 0..10 {
        read += usize::from(reader.read().now_or_never().is_some());
    }
    assert_eq!((read, reader.heard()), (1, 4_000));
}

#[test]
fn whoever_asks_for_more_than_is_answered_hears_the_answer_to_its_last_ping() {
    for end in [End::Server, End::Client] {
        let (mut reader, mut writer) = over(end, Pieces { open: true, ..Pieces::default() }, Taking { most: 3, ..Taking::new() });
        let frames = frames(&[9]);
        let mut writing = Box::pin(writer.write(&frames, false));
        assert!((&mut writing).now_or_never().is_none(), "it waits in the middle");
        let other = if end == End::Server { End::Client } else { End::Server };
        for number in 0..1_000_u32 {
            let mut ping = BytesMut::new();
            // Of all sizes, so that no answer has the place of the one before by chance.
            push(&mut ping, other, PING, &[&number.to_be_bytes()[..], &vec![7; number as usize % 121]].concat());
            reader.inbox.stream.pieces.push_back(ping.to_vec());
        }
        while !reader.inbox.stream.pieces.is_empty() {
            assert!(reader.read().now_or_never().is_none());
        }
        lock(&reader.outbox).stream.most = usize::MAX;
        writing.now_or_never().expect("no pause").expect("written");
        let wire = std::mem::take(&mut lock(&reader.outbox).stream.taken);
        assert!(wire.len() < 15 + PONGS + 2 * (6 + CONTROL), "{}", wire.len());
        let (mut reader, _writer) = over(other, Pieces::of([wire]), Taking::new());
        let mut heard = Vec::new();
        while reader.inbox.more().now_or_never().is_none_or(|more| more.expect("read")) {
            while let Some(come) = reader.take().expect("whole frames") {
                if come.code == PONG {
                    heard.push(u32::from_be_bytes(*come.said.first_chunk().expect("a number")));
                }
            }
        }
        // Where a long answer made place for a short one there is room for one more.
        assert!(heard.is_sorted() && heard.len() < 100 && heard.starts_with(&[0, 1, 2]), "{heard:?}");
        assert_eq!(heard.last(), Some(&999), "{end:?}");
    }
}

#[test]
fn a_reason_is_cut_between_characters() {
    for reason in ["\u{e9}".repeat(62), "x".repeat(200), "\u{1F600}".repeat(50)] {
        let (_reader, mut writer) = over(End::Server, Pieces::default(), Taking::new());
        writer.close(Close { code: 4001, reason: &reason }).now_or_never().expect("no pause");
        let outbox = lock(&writer.outbox);
        let said = &outbox.stream.taken[2..];
        let cut = str::from_utf8(&said[2..]).expect("text");
        assert!(reason.starts_with(cut) && (CONTROL - 3..=CONTROL).contains(&said.len()), "{cut}");
    }
}

#[test]
fn whoever_does_not_keep_to_the_protocol_is_told_so_when_it_is_closed() {
    let table: [(&[u8], u16); 7] = [
        (&[0xc2, 0], 1002),
        (&[LAST | BINARY, MASKED], 1002),
        (&[LAST | 3, 0], 1002),
        (&[LAST | PING, 126, 0, 126], 1002),
        (&[LAST | CONTINUED, 0], 1002),
        (&[LAST | TEXT, 1, 0xff], 1007),
        (&[LAST | BINARY, 1, 0xff], 1000),
    ];
    for (wire, code) in table {
        let (mut reader, mut writer) = over(End::Client, Pieces::of([wire.to_vec()]), Taking::new());
        while reader.read().now_or_never().is_none() {}
        writer.close(Close::NORMAL).now_or_never().expect("no pause");
        let said = std::mem::take(&mut lock(&writer.outbox).stream.taken);
        let (read, ..) = read(End::Server, Pieces::of([said]));
        assert_eq!(read, [Incoming::Closed(code)], "{wire:?}");
    }
}

#[test]
fn hostile_bytes_come_to_the_same_however_they_are_cut() {
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        // By which masks are made.
        fastrand::seed(seed);
        let (from, to) = if random.bool() { (End::Server, End::Client) } else { (End::Client, End::Server) };
        let mut wire = BytesMut::new();
        for _ in 0..random.usize(0..8) {
            let said: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let at = wire.len();
            match random.u8(0..8) {
                0 => wire.extend_from_slice(&said),
                1 => push(&mut wire, from, PING, &said[..said.len().min(CONTROL)]),
                2 => push(&mut wire, from, CLOSE, &said[..said.len().min(CONTROL)]),
                3 => push(&mut wire, from, TEXT, &vec![b'x'; said.len()]),
                _ => push(&mut wire, from, *random.choice(&[BINARY, BINARY, CONTINUED, PONG]).expect("one"), &said),
            }
            if let (0..2, Some(first)) = (random.u8(0..8), wire.get_mut(at)) {
                *first &= !LAST;
            }
        }
        for _ in 0..random.usize(0..3) {
            if let Some(byte) = random.choice(&mut wire[..]) {
                *byte = random.u8(..);
            }
        }
        let (mut rest, mut pieces) = (&wire[..], Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(60)));
            pieces.push(piece.to_vec());
            rest = after;
        }
        let come_to = |pieces: Vec<Vec<u8>>| {
            fastrand::seed(seed);
            let (read, end, answered) = read(to, Pieces::of(pieces));
            (read, end.map_err(|end| end.kind()), answered)
        };
        let whole = if wire.is_empty() { Vec::new() } else { vec![wire.to_vec()] };
        assert_eq!(come_to(whole), come_to(pieces), "seed {seed}");
    }
}
