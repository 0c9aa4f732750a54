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
use super::options::Options;

/// After which time something that is waited for is not coming any more.
const LIMIT: Duration = Duration::from_secs(60);

/// How often another port is tried.
const TRIES: u32 = 20;

/// A `conformance-server`. It is killed when this is dropped.
pub struct Server {
    program: PathBuf,
    options: Options,
    child: Child,
    /// How often it has said that it listens.
    starts: watch::Receiver<u32>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).field("process", &self.child.id()).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts the program, on ports that are free, wherever the options have some, and waits until it listens.
    ///
    /// # Errors
    /// If it cannot be started, or ends at once.
    pub async fn start(program: impl AsRef<Path>, options: Options) -> Result<Server, BoxError> {
        let (program, mut options) = (program.as_ref().to_owned(), options);
        options.ends_with_input = true;
        let mut tries = 0;
        loop {
            // Below the ports that the system gives away: one of those may be a client's own by the time a server that was killed wants it back.
            options.port = fastrand::u16(10_000..32_000);
            for (port, number) in [&mut options.tcp, &mut options.tls, &mut options.wss].into_iter().zip(options.port + 1..) {
                *port = port.map(|_| number);
            }
            match begin(&program, &options).await {
                Ok((child, starts)) => return Ok(Server { program, options, child, starts }),
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    /// Where it listens, among others.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where it listens for WebSockets.
    pub fn address(&self) -> WebAddress {
        WebAddress::new(format!("ws://127.0.0.1:{}/rpc/ws", self.options.port)).expect("an address of a WebSocket")
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
        let (child, starts) = begin(&self.program, &self.options).await?;
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

async fn begin(program: &Path, options: &Options) -> Result<(Child, watch::Receiver<u32>), BoxError> {
    let mut child =
        Command::new(program).args(options.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let ready = format!("listening on {}", options.port);
    let listens = async {
        while let Some(line) = lines.next_line().await? {
            if line == ready {
                return Ok(());
            }
        }
        Err(BoxError::from("the server has ended before it listened"))
    };
    tokio::time::timeout(LIMIT, listens).await??;
    let (tell, starts) = watch::channel(1);
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if line == ready {
                tell.send_modify(|starts| *starts += 1);
            }
        }
    });
    Ok((child, starts))
}
