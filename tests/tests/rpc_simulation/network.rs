//! Frames over the simulated network: four bytes for the length of one, or `u32::MAX` and two for the code of the end.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::net::TcpStream;
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use wellspring_rpc::transport::{Close, Connector, FrameReader, FrameWriter, Incoming};
use wellspring_rpc::wire::{Format, Proof};
use wellspring_rpc::{Hub, Visitor};

pub(crate) const PORT: u16 = 7070;

const END: u32 = u32::MAX;

/// The way to the host `server`.
#[derive(Debug)]
pub(crate) struct ToServer;

#[derive(Debug)]
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    bytes: BytesMut,
}

#[derive(Debug)]
pub(crate) struct Writer(OwnedWriteHalf);

impl Reader {
    fn next(&mut self) -> Option<Incoming> {
        let length = u32::from_be_bytes(self.bytes.get(..4)?.try_into().ok()?);
        if length == END {
            let code = self.bytes.get(4..6)?;
            return Some(Incoming::Closed(u16::from_be_bytes([code[0], code[1]])));
        }
        self.bytes.get(4..4 + length as usize)?;
        self.bytes.advance(4);
        Some(Incoming::Frame(self.bytes.split_to(length as usize).freeze()))
    }
}

impl FrameReader for Reader {
    async fn read(&mut self) -> io::Result<Option<Incoming>> {
        loop {
            if let Some(next) = self.next() {
                return Ok(Some(next));
            }
            if self.stream.read_buf(&mut self.bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}

impl Writer {
    async fn say(&mut self, length: u32, bytes: &[u8]) -> io::Result<()> {
        let mut unit = length.to_be_bytes().to_vec();
        unit.extend_from_slice(bytes);
        self.0.write_all(&unit).await
    }
}

impl FrameWriter for Writer {
    async fn write(&mut self, frames: &[Bytes], _: bool) -> io::Result<()> {
        for frame in frames {
            self.say(u32::try_from(frame.len()).map_err(io::Error::other)?, frame).await?;
        }
        Ok(())
    }

    async fn close(&mut self, close: Close<'_>) {
        // It is over either way.
        let _ = self.say(END, &close.code.to_be_bytes()).await;
        let _ = self.0.shutdown().await;
    }
}

fn halves(stream: TcpStream) -> (Reader, Writer) {
    let (reader, writer) = stream.into_split();
    (Reader { stream: reader, bytes: BytesMut::new() }, Writer(writer))
}

impl Connector for ToServer {
    type Reader = Reader;
    type Writer = Writer;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Reader, Writer)> {
        let (reader, mut writer) = halves(TcpStream::connect(("server", PORT)).await?);
        let proof = visitor.proof.as_ref().map(|proof| format!(" {} {}", proof.counter, proof.code)).unwrap_or_default();
        let hello = format!("{} {}{proof}", visitor.client_id, visitor.format);
        writer.say(u32::try_from(hello.len()).map_err(io::Error::other)?, hello.as_bytes()).await?;
        Ok((reader, writer))
    }
}

/// A connection, until its end.
pub(crate) async fn serve(hub: Hub, stream: TcpStream) {
    let (mut reader, writer) = halves(stream);
    let hello = tokio::time::timeout(std::time::Duration::from_secs(5), reader.read()).await;
    let Ok(Ok(Some(Incoming::Frame(hello)))) = hello else { return };
    let hello = String::from_utf8(hello.to_vec()).expect("text");
    let mut parts = hello.split(' ');
    let (Some(id), Some(format)) = (parts.next(), parts.next()) else { return };
    let format = Format::ALL.into_iter().find(|known| known.to_string() == format).expect("a format");
    let mut visitor = Visitor::new(id, format);
    visitor.proof = parts.next().zip(parts.next()).map(|(counter, code)| Proof { counter: counter.to_owned(), code: code.to_owned() });
    if hub.admit(&mut visitor).await.is_ok() {
        hub.serve(visitor, reader, writer).await;
    }
}
