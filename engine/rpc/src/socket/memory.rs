//! A listener within the process.

use std::io;

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::preamble;
use super::{SocketReader, SocketWriter};
use crate::hub::Visitor;
use crate::transport::Connector;

/// The way to a [`Listener::memory`](crate::Listener::memory). All that sockets have is between them, but for the sockets.
#[derive(Clone, Debug)]
pub struct MemoryAddress(mpsc::Sender<DuplexStream>);

/// Bytes on the way in one direction.
const ON_THE_WAY: usize = 64 << 10;

impl MemoryAddress {
    pub(crate) fn new() -> (MemoryAddress, mpsc::Receiver<DuplexStream>) {
        // Who connects waits for the listener, as in a backlog.
        let (to, at) = mpsc::channel(128);
        (MemoryAddress(to), at)
    }
}

impl Connector for MemoryAddress {
    type Reader = SocketReader<ReadHalf<DuplexStream>>;
    type Writer = SocketWriter<WriteHalf<DuplexStream>>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let (near, far) = tokio::io::duplex(ON_THE_WAY);
        self.0.send(far).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        let (reader, writer) = tokio::io::split(near);
        preamble::connect(reader, writer, visitor).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    use super::super::frames::Kind;
    use super::*;
    use crate::hub::Hub;
    use crate::listener::Listener;
    use crate::wire::{Format, Frame, Guid, Handshake, Head, Messages, MethodId, System};

    /// A call of a mebibyte in one frame, of which so many bytes are sent in a second: after how many seconds it is answered, or else the connection is
    /// closed.
    async fn a_large_call(pace: usize) -> Result<u64, u64> {
        let (address, listener) = Listener::memory();
        let _serving = listener.serve(&Hub::builder().build());
        let (near, far) = tokio::io::duplex(ON_THE_WAY);
        address.0.send(far).await.expect("it listens");
        let (reader, mut writer) = tokio::io::split(near);
        let format = Format::Msgpack6c;
        let (mut reader, mut hello) = preamble::connect(reader, &mut writer, &Visitor::new("client", format)).await.expect("let in");
        let (peer, hub) = (Guid::from_u128(1), Guid::from_u128(2));
        let handshake = Handshake { peer, versions: None, hub, protocol: Handshake::PROTOCOL, index: 1, secret: None };
        let mut frame = Frame::new(format);
        frame.push(&Head::system(System::Handshake, 0), |out| out.value(&handshake)).expect("written");
        hello.say(&[], Kind::Frame, &frame.take()).await.expect("it reads");
        let since = Instant::now();
        let method = MethodId::new("INowhere.Here:2").expect("short");
        frame.push(&Head::call(0, 7, &method), |out| out.value(&"x".repeat(1 << 20))).expect("written");
        let frame = frame.take();
        let mut unit = (frame.len() as u32).to_be_bytes().to_vec();
        unit[0] = Kind::Frame as u8;
        unit.extend_from_slice(&frame);
        for piece in unit.chunks(pace) {
            sleep(Duration::from_secs(1)).await;
            if writer.write_all(piece).await.is_err() {
                break;
            }
        }
        loop {
            match reader.unit().await {
                Ok(Some((Kind::Frame, frame))) => {
                    if Messages::new(format, &frame).any(|message| message.expect("a message").related_id == 7) {
                        return Ok(since.elapsed().as_secs());
                    }
                }
                _ => return Err(since.elapsed().as_secs()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_frame_on_its_way_is_a_sign_of_life() {
        assert_eq!(a_large_call(10_000).await, Ok(105));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_bytes_of_a_frame_are_none() {
        // Found out by the next piece that is written.
        assert_eq!(a_large_call(2_000).await, Err(26));
    }
}
