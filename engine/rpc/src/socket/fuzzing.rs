//! What a fuzzer is let in to of sockets. Not part of the interface.

use std::io;

use bytes::Bytes;
use futures_util::future::join;
use tokio::io::{duplex, sink};

use super::frames::{Kind, SocketReader, SocketWriter};
use super::preamble;
use crate::asked;
use crate::fuzzing::{self, Come, done};
use crate::hub::Visitor;
use crate::pieces::Pieces;
use crate::transport::{Close, FrameWriter, Refused};
use crate::wire::Format;

/// The code and the reason of a refusal.
pub type Refusal = (u16, String);

/// What is read.
pub fn read(pieces: Vec<Vec<u8>>) -> Come {
    fuzzing::read(&mut SocketReader::new(Pieces::of(pieces)))
}

/// What is read of what is written, over a stream that has room for so much.
pub fn across(frames: &[Bytes], close: Close<'_>, room: usize) -> Come {
    let (near, far) = duplex(room);
    fuzzing::across(SocketWriter::new(near), SocketReader::new(far), frames, false, close)
}

/// Who asks a server to be let in, as the text by which it would ask again; and what is read after that.
pub fn asked(pieces: Vec<Vec<u8>>) -> Result<(String, Come), Refusal> {
    let mut reader = SocketReader::new(Pieces::of(pieces));
    let visitor = done(preamble::asked(&mut reader)).map_err(|why| why.close())?;
    Ok((asked::query(&visitor), fuzzing::read(&mut reader)))
}

/// What a client makes of the answer; and what it reads after that.
pub fn answered(pieces: Vec<Vec<u8>>) -> Result<Come, (io::ErrorKind, Option<Refusal>)> {
    let visitor = Visitor::new("x", Format::default());
    let (mut reader, _) = done(preamble::connect(Pieces::of(pieces), sink(), &visitor)).map_err(|error| why(&error))?;
    Ok(fuzzing::read(&mut reader))
}

fn why(error: &io::Error) -> (io::ErrorKind, Option<Refusal>) {
    let refused = error.get_ref().and_then(|error| error.downcast_ref::<Refused>());
    (error.kind(), refused.map(|Refused { code, reason }| (*code, reason.clone())))
}

/// Whom a server sees that is asked with a text, and what the client hears, whom it refuses or lets in.
pub fn met(query: &str, refusal: Option<Close<'_>>, room: usize) -> (Option<String>, Option<Refusal>) {
    let visitor = asked::visitor(query).expect("it was read before");
    let (near, far) = duplex(room);
    let (from_client, to_client) = tokio::io::split(far);
    let (from_server, to_server) = tokio::io::split(near);
    let server = async {
        let (mut reader, mut writer) = (SocketReader::new(from_client), SocketWriter::new(to_client));
        let seen = preamble::asked(&mut reader).await.ok().map(|visitor| asked::query(&visitor));
        match refusal {
            Some(close) => writer.close(close).await,
            None => writer.say(&[], Kind::Welcome, &[]).await.expect("the client reads"),
        }
        seen
    };
    let (seen, entered) = done(join(server, preamble::connect(from_server, to_server, &visitor)));
    (seen, entered.err().map(|error| why(&error).1.expect("it hears why")))
}
