//! A server as a child process, and conversations with it.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running server. It is killed at the end, if it has not ended.
pub(crate) struct Server {
    process: Child,
    output: BufReader<ChildStdout>,
    at: SocketAddr,
    page: Option<SocketAddr>,
}

impl Server {
    /// Starts one that is not on the network, and waits until it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::launch(&[arguments, &["--no-listen"]].concat(), false)
    }

    /// Starts one that is on the network too.
    pub(crate) fn on_network(arguments: &[&str]) -> Self {
        Self::launch(&[arguments, &["--listen", "127.0.0.1:0"]].concat(), true)
    }

    fn launch(arguments: &[&str], page: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring-shop"));
        let process = command.arg("serve").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("a process");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut address = |before: &str, after: &str| -> SocketAddr {
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            let at = line.trim_end().strip_prefix(before).and_then(|rest| rest.strip_suffix(after)).and_then(|at| at.parse().ok());
            at.unwrap_or_else(|| panic!("no address in {line:?}"))
        };
        let at = address("listening on ", "");
        let page = page.then(|| address("page on http://", "/"));
        Self { process, output, at, page }
    }

    /// Where it is on the network.
    pub(crate) fn page(&self) -> SocketAddr {
        self.page.expect("on the network")
    }

    /// Begins a conversation.
    pub(crate) fn call(&self) -> Talk {
        let stream = TcpStream::connect(self.at).expect("a connection");
        Talk { answers: BufReader::new(stream), details: Vec::new() }
    }

    /// The next line it prints, without the time before it.
    pub(crate) fn hear_end(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().split_once(" s  ").unwrap_or_else(|| panic!("no time in {line:?}")).1.to_owned()
    }

    /// Ends its standard input, and waits for its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        drop(self.process.stdin.take());
        self.process.wait().expect("an end").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A conversation.
pub(crate) struct Talk {
    answers: BufReader<TcpStream>,
    details: Vec<String>,
}

impl Talk {
    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.ask_bytes(format!("{request}\n").as_bytes())
    }

    pub(crate) fn ask_bytes(&mut self, request: &[u8]) -> String {
        self.answers.get_mut().write_all(request).expect("asked");
        self.hear()
    }

    /// Sends bytes and then nothing more, and waits until the server has ended the conversation; what it has said until then.
    ///
    /// A server that hangs up before it has read everything resets the connection: that is an end too.
    pub(crate) fn cut_off(mut self, bytes: &[u8]) -> String {
        let stream = self.answers.get_mut();
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut said = Vec::new();
        let _ = self.answers.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The next answer.
    pub(crate) fn hear(&mut self) -> String {
        self.details.clear();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).expect("a line") > 0, "the server has hung up");
            match line.trim_end().strip_prefix("  ") {
                Some(detail) => self.details.push(detail.to_owned()),
                None => return line.trim_end().to_owned(),
            }
        }
    }

    /// What came before the last answer.
    pub(crate) fn details(&self) -> &[String] {
        &self.details
    }
}
