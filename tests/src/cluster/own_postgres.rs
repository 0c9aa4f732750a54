//! A PostgreSQL cluster of our own, to be restarted and spoilt.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BoxError;

/// A cluster in a temporary folder, on a free port. It is stopped and removed when this is dropped.
#[derive(Debug)]
pub struct OwnPostgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
}

/// A command of the user whom PostgreSQL runs under, which must not be the superuser.
fn command(program: &Path) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    // The server it starts would keep a pipe open for ever.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<(), BoxError> {
    match command.status()? {
        status if status.success() => Ok(()),
        status => Err(format!("{command:?}: {status}").into()),
    }
}

/// Where the programs are, in the newest version there is.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists()).max()
}

impl OwnPostgres {
    /// Makes and starts one; none, and it is said why, where that cannot be done. Blocks for a second or two.
    pub fn start() -> Option<OwnPostgres> {
        let started = match programs() {
            Some(programs) => OwnPostgres::start_with(programs),
            None => Err("PostgreSQL's programs are not installed".into()),
        };
        match started {
            Ok(started) => Some(started),
            Err(error) => {
                println!("skipped: no PostgreSQL cluster of our own: {error}");
                None
            }
        }
    }

    fn start_with(programs: PathBuf) -> Result<OwnPostgres, BoxError> {
        let folder = command(Path::new("mktemp")).args(["-d", "--tmpdir", "torture-XXXXXX"]).stdout(Stdio::piped()).output()?;
        let folder = PathBuf::from(String::from_utf8(folder.stdout)?.trim());
        if folder.as_os_str().is_empty() {
            return Err("no folder could be made as its user".into());
        }
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let own = OwnPostgres { programs, folder, port };
        run(command(&own.programs.join("initdb")).arg("-D").arg(own.data()).args(["-A", "trust", "-U", "postgres", "-N"]))?;
        own.control("start", &[])?;
        Ok(own)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn control(&self, what: &str, more: &[&str]) -> Result<(), BoxError> {
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300", self.port);
        run(command(&self.programs.join("pg_ctl")).arg("-D").arg(self.data()).args(["-w", "-o", &options]).args(more).arg(what))
    }

    /// How to connect.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// As after a crash: without a word to anybody, and with a recovery. Blocks until it is up again.
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn crash(&self) -> Result<(), BoxError> {
        self.control("restart", &["-m", "immediate"])
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // What cannot be stopped or removed is left.
        let _ = self.control("stop", &["-m", "immediate"]);
        let _ = run(command(Path::new("rm")).arg("-rf").arg(&self.folder));
    }
}
