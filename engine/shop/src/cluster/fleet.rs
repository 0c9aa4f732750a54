//! The servers: child processes of this program, each with a cache of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use crate::database::Address;
use crate::error::ShopError;
use crate::serve::LISTENING;

use super::line::{Answer, Line, Unanswered};

/// All servers. They end with it: also if this process is killed, because their standard input ends then.
#[derive(Debug)]
pub(super) struct Fleet {
    address: Address,
    reads: u32,
    /// None while it is being replaced.
    members: Vec<Mutex<Option<Member>>>,
}

/// One server.
#[derive(Debug)]
struct Member {
    process: Child,
    at: SocketAddr,
    /// Kept open, so that the server could go on talking to it.
    _output: BufReader<ChildStdout>,
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and needs not.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Fleet {
    /// Starts servers that read at a pace; if `warm`, after they have computed every value there is.
    pub(super) fn start(address: Address, servers: usize, reads: u32, warm: bool) -> Result<Self, ShopError> {
        // All at once, and then each is waited for.
        let started: Vec<_> = (0..servers).map(|_| launch(&address)).collect::<Result<_, _>>()?;
        let members = started.into_iter().map(|process| Ok(Mutex::new(Some(Member::greet(process)?)))).collect::<Result<_, ShopError>>()?;
        let fleet = Self { address, reads, members };
        if warm {
            fleet.warm()?;
        }
        (0..servers).try_for_each(|server| fleet.load(server, reads))?;
        Ok(fleet)
    }

    /// Has all compute everything, at once.
    fn warm(&self) -> Result<(), ShopError> {
        thread::scope(|scope| {
            let warming: Vec<_> = (0..self.size()).map(|server| scope.spawn(move || self.ask(server, "warm"))).collect();
            let warmed: Vec<_> = warming.into_iter().map(ScopedJoinHandle::join).collect();
            warmed.into_iter().try_for_each(|warmed| warmed.map_err(|_| ShopError::Worker("fleet"))?.map(drop))
        })
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// Calls a server, where it is now.
    pub(super) fn call(&self, server: usize) -> Result<Line, Unanswered> {
        let at = self.member(server).as_ref().map(|member| member.at);
        at.map_or_else(|| Err(Unanswered::Broken("it is being replaced".to_owned())), Line::open)
    }

    /// Asks a server that is not to be killed meanwhile.
    pub(super) fn ask(&self, server: usize, request: &str) -> Result<Answer, ShopError> {
        let answer = self.call(server).and_then(|mut line| line.ask(request));
        answer.map_err(|error| failed(server, request, &error))
    }

    /// Kills a server without a warning, and starts another in its place.
    pub(super) fn replace(&self, server: usize) -> Result<(), ShopError> {
        // SIGKILL, by the drop: it has no chance to tidy up. Whoever calls meanwhile is told so, and does not wait.
        let killed = self.member(server).take();
        drop(killed);
        let member = Member::greet(launch(&self.address)?)?;
        *self.member(server) = Some(member);
        self.load(server, self.reads)
    }

    fn load(&self, server: usize, reads: u32) -> Result<(), ShopError> {
        self.ask(server, &format!("load {reads}")).map(drop)
    }

    /// Whoever panicked has left a server that runs, or one that does not, as may be at any time.
    fn member(&self, server: usize) -> MutexGuard<'_, Option<Member>> {
        self.members[server].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server was not willing or able.
pub(super) fn failed(server: usize, request: &str, error: &Unanswered) -> ShopError {
    ShopError::Server(format!("{server}, asked {request:?}, {error}").into())
}

fn launch(address: &Address) -> Result<Child, ShopError> {
    let failed = |error: std::io::Error| ShopError::Server(format!("cannot be started: {error}").into());
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(["serve", "--no-listen"]);
    match address {
        Address::Sqlite(path) => command.arg("--db").arg(path),
        Address::Postgres { url, schema } => command.args(["--postgres", url, "--schema", schema]),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)
}

impl Member {
    /// Waits until the server says where it listens. What went wrong it has told on standard error, which is this process's too.
    fn greet(mut process: Child) -> Result<Self, ShopError> {
        let output = process.stdout.take().map(BufReader::new);
        let mut said = String::new();
        let heard = output.and_then(|mut output| {
            output.read_line(&mut said).ok()?;
            let at = said.trim_end().strip_prefix(LISTENING)?.parse().ok()?;
            Some((at, output))
        });
        match heard {
            Some((at, output)) => Ok(Self { process, at, _output: output }),
            None => {
                let _ = process.kill();
                let _ = process.wait();
                Err(ShopError::Server("has not started".into()))
            }
        }
    }
}
