//! The process, as a test sees it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use wellspring_rpc::web::WebAddress;

use super::BoxError;

/// After which time something that is waited for is not coming any more.
const LIMIT: Duration = Duration::from_secs(60);

/// A `conformance-server`. It is killed when this is dropped.
pub struct Server {
    program: PathBuf,
    more: Vec<String>,
    port: u16,
    child: Child,
    /// How often it has said that it listens.
    starts: watch::Receiver<u32>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("port", &self.port).field("process", &self.child.id()).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the program, on a port that is free, with more options, and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be started, or ends at once.
    pub async fn start(program: impl AsRef<Path>, more: &[&str]) -> Result<Server, BoxError> {
        let program = program.as_ref().to_owned();
        let more: Vec<String> = more.iter().map(|option| (*option).to_owned()).collect();
        let (child, starts, port) = begin(&program, 0, &more).await?;
        Ok(Server { program, more, port, child, starts })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens, as a client wants it.
    pub fn address(&self) -> WebAddress {
        WebAddress::new(format!("ws://127.0.0.1:{}/rpc/ws", self.port)).expect("an address of a WebSocket")
    }

    /// Stops it where it is: it says nothing any more, and its connections stay.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // One that has ended and was not waited for is still there to be signalled.
            let _ = kill_process(pid, signal);
        }
    }

    /// `kill -9`, and waits until it is dead.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn kill(&mut self) -> Result<(), BoxError> {
        Ok(self.child.kill().await?)
    }

    /// Starts it once more where it was, after it was killed, and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be started, or ends at once.
    pub async fn start_again(&mut self) -> Result<(), BoxError> {
        let (child, starts, _) = begin(&self.program, self.port, &self.more).await?;
        (self.child, self.starts) = (child, starts);
        Ok(())
    }

    /// Waits until the process has begun to listen so many times: the first is its start, each other is one that a client has asked for.
    ///
    /// # Errors
    /// If it ends, or does not.
    pub async fn has_started(&self, times: u32) -> Result<(), BoxError> {
        let mut starts = self.starts.clone();
        tokio::time::timeout(LIMIT, starts.wait_for(|starts| *starts >= times)).await??;
        Ok(())
    }
}

async fn begin(program: &Path, port: u16, more: &[String]) -> Result<(Child, watch::Receiver<u32>, u16), BoxError> {
    let mut child = Command::new(program)
        .args(["--port", &port.to_string(), "--ends-with-input"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let first = tokio::time::timeout(LIMIT, lines.next_line()).await??.ok_or("the server has ended before it listened")?;
    let port = first.strip_prefix("listening on ").ok_or_else(|| format!("the server says `{first}`"))?.parse()?;
    let (tell, starts) = watch::channel(1);
    tokio::spawn(async move {
        while let Ok(Some(_)) = lines.next_line().await {
            tell.send_modify(|starts| *starts += 1);
        }
    });
    Ok((child, starts, port))
}
