//! How a connection begins: who asks, and whether it is let in.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::frames::{Kind, SocketReader, SocketWriter, close_of, strange};
use crate::asked::{self, Refused as Why};
use crate::connection;
use crate::hub::{Hub, Visitor};
use crate::listener::Entered;
use crate::transport::{Close, Refused};

/// What a client says before all else.
const MAGIC: &[u8] = b"wsr1";

/// Asks to be let in, as this visitor.
pub(super) async fn connect<R, W>(reader: R, writer: W, visitor: &Visitor) -> io::Result<(SocketReader<R>, SocketWriter<W>)>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (mut reader, mut writer) = (SocketReader::new(reader), SocketWriter::new(writer));
    writer.say(MAGIC, Kind::Hello, asked::query(visitor).as_bytes()).await?;
    // A frame could follow at once. But whoever is refused should hear why, and what was sent meanwhile could take that away from it.
    match reader.unit().await? {
        Some((Kind::Welcome, _)) => Ok((reader, writer)),
        Some((Kind::Close, said)) => {
            let (code, reason) = close_of(&said);
            Err(Refused { code, reason }.into())
        }
        Some(_) => Err(strange()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other end has hung up: it has no room, or stops")),
    }
}

/// Serves whoever has connected, if it asks until then and is let in.
pub(crate) async fn serve<R, W>(hub: &Hub, reader: R, writer: W, backend: bool, deadline: Instant, entered: Entered)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, mut writer) = (SocketReader::new(reader), SocketWriter::new(writer));
    let Some(Ok(asked)) = entered.unless_stopped(timeout_at(deadline, asked(&mut reader))).await else { return };
    let admitted = async {
        let mut visitor = asked?;
        (visitor.backend, visitor.address) = (backend, entered.from);
        hub.admit(&mut visitor).await.map(|()| visitor).map_err(Why::Turned)
    };
    let Some(admitted) = entered.unless_stopped(admitted).await else { return };
    match admitted {
        Ok(visitor) => {
            if let Ok(Ok(())) = timeout_at(deadline, writer.say(&[], Kind::Welcome, &[])).await {
                entered.serve(hub, visitor, reader, writer).await;
            }
        }
        Err(refusal) => {
            let (code, reason) = refusal.close();
            connection::close(&mut writer, Close { code, reason: &reason }, hub.timings()).await;
        }
    }
}

/// Who asks.
pub(super) async fn asked<R: AsyncRead + Unpin + Send>(reader: &mut SocketReader<R>) -> Result<Visitor, Why> {
    let unreadable = |_: io::Error| Why::Unreadable;
    reader.expect(MAGIC).await.map_err(unreadable)?;
    match reader.unit().await.map_err(unreadable)? {
        Some((Kind::Hello, said)) => asked::visitor(str::from_utf8(&said).map_err(|_| Why::Unreadable)?),
        _ => Err(Why::Unreadable),
    }
}
