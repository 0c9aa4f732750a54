//! Unix sockets.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::preamble;
use super::{SocketReader, SocketWriter};
use crate::hub::Visitor;
use crate::transport::Connector;

/// Where a server of this host listens: the path of its socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixAddress(PathBuf);

impl UnixAddress {
    /// From its path.
    pub fn new(path: impl Into<PathBuf>) -> UnixAddress {
        UnixAddress(path.into())
    }
}

impl Connector for UnixAddress {
    type Reader = SocketReader<OwnedReadHalf>;
    type Writer = SocketWriter<OwnedWriteHalf>;

    async fn connect(&self, visitor: &Visitor) -> io::Result<(Self::Reader, Self::Writer)> {
        let (reader, writer) = UnixStream::connect(&self.0).await?.into_split();
        preamble::connect(reader, writer, visitor).await
    }
}

/// A socket that is listened at. Its file is removed at the end, if it is still its own.
#[derive(Debug)]
pub(crate) struct UnixEntrance {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

/// How often it is looked whether somebody else is done.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

impl UnixEntrance {
    /// Listens there. A socket that nobody listens at any more is taken over.
    ///
    /// One after the other: between the look at a file and its removal somebody else could have put its own there, and would never be called again; and
    /// one that is bound and not listened at yet looks as if it was left. So the directory is locked, which leaves nothing behind.
    pub(crate) async fn bind(path: PathBuf) -> io::Result<UnixEntrance> {
        let _locked = lock_directory_of(&path).await?;
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => take_over(&path).await?,
            bound => bound?,
        };
        let file = id(&path)?;
        Ok(UnixEntrance { listener, path, file })
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

/// Until the file is dropped.
async fn lock_directory_of(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory)?;
    let mut tries = 0;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if tries < TRIES => tries += 1,
            Err(TryLockError::WouldBlock) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "the socket's directory is locked")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes a file that was left, and listens in its place.
async fn take_over(path: &Path) -> io::Result<UnixListener> {
    let in_use = || io::Error::new(io::ErrorKind::AddrInUse, format!("somebody listens at {} already, or it is no socket", path.display()));
    // Not a link to one: that is somebody's on purpose.
    if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return Err(in_use());
    }
    // Somebody who listens and is busy says otherwise.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return Err(in_use()),
    }
    std::fs::remove_file(path)?;
    UnixListener::bind(path)
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for UnixEntrance {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|file| file == self.file) {
            // If it stays, the next one takes it over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
