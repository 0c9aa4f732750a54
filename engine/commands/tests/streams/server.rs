//! Servers: the one that the environment names, or an own one that can be killed.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::until;

/// Where a server listens, if one does.
///
/// # Panics
/// In CI, where each test has to run.
pub fn url(variable: &str, scheme: &str, port: u16) -> Option<String> {
    if let Ok(url) = std::env::var(variable) {
        return Some(url);
    }
    if TcpStream::connect(("127.0.0.1", port)).is_ok() {
        return Some(format!("{scheme}://127.0.0.1:{port}"));
    }
    assert!(std::env::var_os("CI").is_none(), "{variable} is not set, and nothing listens on port {port}: CI must not skip");
    println!("skipped: {variable} is not set, and nothing listens on port {port}");
    None
}

/// A server of our own, killed when dropped.
#[derive(Debug)]
pub struct OwnServer {
    program: &'static str,
    arguments: Vec<String>,
    pub port: u16,
    child: Option<Child>,
    pub directory: tempfile::TempDir,
}

impl OwnServer {
    /// None if the program is not installed.
    pub async fn start(program: &'static str, arguments: impl FnOnce(u16, &str) -> Vec<String>) -> Option<OwnServer> {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let arguments = arguments(port, &directory.path().to_string_lossy());
        let mut server = OwnServer { program, arguments, port, child: None, directory };
        if !server.spawn() {
            assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
            println!("skipped: {program} is not installed");
            return None;
        }
        server.listening().await;
        Some(server)
    }

    fn spawn(&mut self) -> bool {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = command.spawn().ok();
        self.child.is_some()
    }

    async fn listening(&self) {
        until("a server that listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    pub async fn start_again(&mut self) {
        assert!(self.spawn(), "it did start before");
        self.listening().await;
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub async fn own_redis(persistence: &[&str]) -> Option<OwnServer> {
    let arguments = |port: u16, directory: &str| {
        let port = port.to_string();
        let fixed = ["--port", &port, "--dir", directory, "--bind", "127.0.0.1"];
        fixed.iter().chain(persistence).map(|argument| (*argument).to_owned()).collect()
    };
    OwnServer::start("redis-server", arguments).await
}

pub async fn own_nats() -> Option<OwnServer> {
    let arguments = |port: u16, directory: &str| {
        let port = port.to_string();
        ["-js", "-a", "127.0.0.1", "-p", &port, "-sd", directory].iter().map(|argument| (*argument).to_owned()).collect()
    };
    OwnServer::start("nats-server", arguments).await
}
