use futures_util::FutureExt;

use super::*;
use crate::inbox::{CHUNK, KEPT};
use crate::pieces::Pieces;
use crate::taking::Taking;

/// Frames and a close, as they are written.
fn written(frames: &[Bytes]) -> Vec<u8> {
    let mut writer = SocketWriter::new(Taking::new());
    writer.write(frames, false).now_or_never().expect("no pause").expect("written");
    writer.close(Close { code: 4001, reason: "because" }).now_or_never().expect("no pause");
    assert!(writer.stream.over);
    writer.stream.taken
}

/// What is read of it, and how the stream ends. At each pause the future is dropped and begun again.
fn read(pieces: Pieces) -> (Vec<Incoming>, io::Result<()>) {
    let mut reader = SocketReader::new(pieces);
    let mut all = Vec::new();
    loop {
        match reader.read().now_or_never() {
            None => {}
            Some(Ok(Some(incoming))) => all.push(incoming),
            Some(Ok(None)) => return (all, Ok(())),
            Some(Err(error)) => return (all, Err(error)),
        }
    }
}

fn frames(sizes: &[usize]) -> Vec<Bytes> {
    sizes.iter().enumerate().map(|(at, size)| vec![at as u8 ^ 0x55; *size].into()).collect()
}

fn all_of(frames: &[Bytes]) -> Vec<Incoming> {
    frames.iter().cloned().map(Incoming::Frame).chain([Incoming::Closed(4001)]).collect()
}

#[test]
fn frames_are_whole_wherever_the_stream_is_cut_and_whenever_the_reader_is_dropped() {
    let frames = frames(&[3, 0, 1, 20, 0]);
    let wire = written(&frames);
    for first in 0..wire.len() {
        for second in first..wire.len() {
            let pieces = [&wire[..first], &wire[first..second], &wire[second..]].into_iter().filter(|piece| !piece.is_empty());
            let (read, end) = read(Pieces::of(pieces.map(<[u8]>::to_vec)));
            assert_eq!((read, end.is_ok()), (all_of(&frames), true), "cut at {first} and {second}");
        }
    }
    let (read, end) = read(Pieces::of(wire.iter().map(|byte| vec![*byte])));
    assert_eq!((read, end.is_ok()), (all_of(&frames), true), "byte for byte");
}

#[test]
fn frames_of_all_sizes_are_whole_however_they_come() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sizes = vec![random.usize(0..limits::FIRST_FRAME)];
        sizes.extend((0..random.usize(0..40)).map(|_| match random.u8(0..4) {
            0 => CHUNK - HEAD - 2 + random.usize(0..5),
            1 => random.usize(0..4 * CHUNK),
            _ => random.usize(0..200),
        }));
        let frames = frames(&sizes);
        let wire = written(&frames);
        let (mut rest, mut pieces) = (&wire[..], Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(3 * CHUNK)));
            pieces.push(piece.to_vec());
            rest = after;
        }
        let (read, end) = read(Pieces::of(pieces));
        assert!(read == all_of(&frames) && end.is_ok(), "seed {seed}, sizes {sizes:?}");
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_is_broken() {
    let wire = written(&frames(&[9]));
    for end in 1..HEAD + 9 {
        let (read, end) = read(Pieces::of([wire[..end].to_vec()]));
        assert_eq!((read, end.expect_err("broken").kind()), (vec![], io::ErrorKind::UnexpectedEof));
    }
}

#[test]
fn a_length_is_believed_as_far_as_bytes_have_come() {
    let mut reader = SocketReader::new(Pieces { open: true, ..Pieces::of([written(&frames(&[1]))[..HEAD + 1].to_vec()]) });
    while reader.read().now_or_never().is_none() {}
    reader.inbox.stream.pieces.push_back(Kind::Frame.head(limits::FRAME).to_vec());
    let mut random = fastrand::Rng::with_seed(5);
    while reader.inbox.buffer.len() < limits::FRAME / 4 {
        let size = random.usize(1..reader.inbox.buffer.len().max(2));
        reader.inbox.stream.pieces.push_back(vec![7; size]);
        while !reader.inbox.stream.pieces.is_empty() {
            assert!(reader.read().now_or_never().is_none());
            assert!(
                reader.inbox.buffer.capacity() <= 2 * reader.inbox.buffer.len() + 64,
                "{} for {}",
                reader.inbox.buffer.capacity(),
                reader.inbox.buffer.len()
            );
        }
    }
}

#[test]
fn hostile_lengths_and_kinds_end_the_connection_or_wait_and_hold_nothing() {
    let large = [
        (Kind::Frame, limits::FIRST_FRAME + 1),
        (Kind::Frame, 0xff_ff_ff),
        (Kind::Close, CLOSE + 1),
        (Kind::Hello, HELLO + 1),
        (Kind::Welcome, 1),
    ];
    for (kind, length) in large {
        let (_, end) = read(Pieces::of([kind.head(length).to_vec()]));
        assert_eq!(end.expect_err("too large").kind(), io::ErrorKind::InvalidData, "{kind:?} of {length}");
    }
    // The first frame is small. After that one may be of the full size, and not of a byte more.
    for (length, kind) in [(limits::FRAME, io::ErrorKind::UnexpectedEof), (limits::FRAME + 1, io::ErrorKind::InvalidData)] {
        let wire = [&Kind::Frame.head(0)[..], &Kind::Frame.head(length)].concat();
        let (read, end) = read(Pieces::of([wire]));
        assert_eq!((read, end.expect_err("it ends").kind()), (all_of(&frames(&[0]))[..1].to_vec(), kind));
    }
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wire = Vec::new();
        for _ in 0..random.usize(1..6) {
            let length = if random.bool() { random.u32(..) as usize & 0xff_ff_ff } else { random.usize(0..300) };
            let mut head = Kind::Frame.head(length);
            head[0] = random.u8(0..6);
            wire.extend_from_slice(&head);
            wire.extend((0..random.usize(0..300)).map(|_| random.u8(..)));
        }
        let mut reader = SocketReader::new(Pieces { open: true, ..Pieces::of([wire.clone()]) });
        for _ in 0..40 {
            let read = reader.read().now_or_never();
            assert!(reader.inbox.buffer.capacity() <= 2 * wire.len() + 64, "seed {seed}");
            if matches!(read, Some(Err(_))) {
                break;
            }
        }
    }
}

#[test]
fn a_connection_that_waits_holds_next_to_nothing() {
    let wire = written(&frames(&[1, 1 << 20, 40]));
    let mut reader = SocketReader::new(Pieces { open: true, ..Pieces::of([wire[..wire.len() - HEAD - 9].to_vec()]) });
    let mut read = 0;
    while read < 3 {
        if let Some(frame) = reader.read().now_or_never() {
            assert!(matches!(frame, Ok(Some(Incoming::Frame(_)))), "{frame:?}");
            read += 1;
        }
    }
    for _ in 0..2 {
        assert!(reader.read().now_or_never().is_none());
    }
    assert_eq!((reader.inbox.buffer.capacity(), reader.inbox.buffer.len()), (0, 0));
    // A small buffer is used again and again.
    let mut room = None;
    for _ in 0..100 {
        reader.inbox.stream.pieces.push_back(written(&frames(&[100]))[..HEAD + 100].to_vec());
        while reader.read().now_or_never().is_none() {}
        assert!(reader.read().now_or_never().is_none());
        assert!(reader.inbox.grown <= KEPT);
        assert_eq!(*room.get_or_insert(reader.inbox.grown), reader.inbox.grown);
    }
}

#[test]
fn all_frames_of_a_write_go_out_in_one() {
    let frames = frames(&[5; FRAMES]);
    for vectored in [true, false] {
        let mut writer = SocketWriter::new(Taking { vectored, ..Taking::new() });
        writer.write(&frames, false).now_or_never().expect("no pause").expect("written");
        assert_eq!((writer.stream.calls, writer.stream.taken.len()), (1, FRAMES * (HEAD + 5)));
    }
    // And whole if the stream takes less, or there are more.
    let many: Vec<Bytes> = [&frames[..], &frames[..], &frames[..3]].concat();
    let mut writer = SocketWriter::new(Taking { at_once: 7, ..Taking::new() });
    writer.write(&many, false).now_or_never().expect("no pause").expect("written");
    let (read, _) = read(Pieces::of([writer.stream.taken]));
    assert_eq!(read, all_of(&many)[..many.len()]);
}

#[test]
fn nothing_follows_half_a_frame() {
    let mut writer = SocketWriter::new(Taking { most: 6, ..Taking::new() });
    assert!(writer.write(&frames(&[9]), false).now_or_never().is_none(), "it waits for the other end, and is given up");
    writer.stream.most = usize::MAX;
    assert!(writer.write(&frames(&[1]), false).now_or_never().expect("no pause").is_err());
    writer.close(Close::NORMAL).now_or_never().expect("no pause");
    assert_eq!((writer.stream.taken.len(), writer.stream.over), (6, true));
}

#[test]
fn a_frame_that_is_too_large_is_not_begun() {
    let mut writer = SocketWriter::new(Taking::new());
    let frames = [Bytes::from_static(b"x"), vec![0; limits::FRAME + 1].into()];
    let refused = writer.write(&frames, false).now_or_never().expect("no pause");
    assert_eq!(refused.expect_err("too large").kind(), io::ErrorKind::InvalidInput);
    assert!(writer.stream.taken.is_empty());
}

#[test]
fn a_byte_that_is_left_does_not_keep_the_room_of_a_large_frame() {
    let wire = written(&frames(&[1, 1 << 20]));
    let one_more = wire.len() - HEAD - 9 + 1;
    let mut reader = SocketReader::new(Pieces { open: true, ..Pieces::of([wire[..one_more].to_vec()]) });
    let mut read = 0;
    while read < 2 {
        if let Some(frame) = reader.read().now_or_never() {
            assert!(matches!(frame, Ok(Some(Incoming::Frame(_)))), "{frame:?}");
            read += 1;
        }
    }
    for _ in 0..2 {
        assert!(reader.read().now_or_never().is_none());
    }
    assert_eq!(&reader.inbox.buffer[..], [Kind::Close as u8]);
    assert!(reader.inbox.grown <= KEPT && reader.inbox.buffer.capacity() <= KEPT, "{}", reader.inbox.grown);
    // Nor does a frame of which less has come than there was room for.
    let mut reader = SocketReader::new(Pieces { open: true, ..Pieces::default() });
    let large = [&Kind::Frame.head(1)[..], b"x", &Kind::Frame.head(4 << 20), &vec![7; 4 << 20]].concat();
    let begun = [&Kind::Frame.head(4 << 20)[..], &[7; 2 * CHUNK]].concat();
    reader.inbox.stream.pieces.extend([large, begun.clone()]);
    while !reader.inbox.stream.pieces.is_empty() {
        let _ = reader.read().now_or_never();
    }
    for _ in 0..2 {
        assert!(reader.read().now_or_never().is_none());
    }
    assert_eq!(&reader.inbox.buffer[..], &begun[..]);
    assert!(reader.inbox.grown <= 4 * begun.len(), "{}", reader.inbox.grown);
}

#[test]
fn a_reason_is_cut_between_characters() {
    for reason in ["\u{e9}".repeat(62), "x".repeat(200), "\u{1F600}".repeat(50)] {
        let mut writer = SocketWriter::new(Taking::new());
        writer.close(Close { code: 4001, reason: &reason }).now_or_never().expect("no pause");
        let said = &writer.stream.taken[HEAD..];
        let cut = str::from_utf8(&said[2..]).expect("text");
        assert!(reason.starts_with(cut) && (CLOSE - 3..=CLOSE).contains(&said.len()), "{cut}");
    }
}

#[test]
fn hostile_bytes_come_to_the_same_however_they_are_cut() {
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut wire = Vec::new();
        for _ in 0..random.usize(0..8) {
            match random.u8(0..8) {
                0 => wire.extend((0..random.usize(0..40)).map(|_| random.u8(..))),
                1 => wire.extend(Kind::Close.head(random.usize(0..CLOSE + 2))),
                _ => {
                    let said: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
                    wire.extend(Kind::Frame.head(said.len()).iter().chain(&said));
                }
            }
        }
        for _ in 0..random.usize(0..3) {
            if let Some(byte) = random.choice(&mut wire) {
                *byte = random.u8(..);
            }
        }
        let (mut rest, mut pieces) = (&wire[..], Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(60)));
            pieces.push(piece.to_vec());
            rest = after;
        }
        let (whole, end) = read(Pieces::of([wire].into_iter().filter(|wire| !wire.is_empty())));
        let (cut, other) = read(Pieces::of(pieces));
        assert_eq!((whole, end.map_err(|end| end.kind())), (cut, other.map_err(|end| end.kind())), "seed {seed}");
    }
}
