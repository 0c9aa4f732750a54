//! Headless Chromium, driven by the DevTools protocol over its WebSocket: so little of it that no library is needed.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// By which names it is known.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

/// How long the page may take before the test fails, and the browser.
const PATIENCE: Duration = Duration::from_secs(45);
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// A running browser, with a profile of its own.
pub(crate) struct Browser {
    process: Child,
    socket: WebSocket<TcpStream>,
    last: u64,
    /// What has happened in tabs and nobody has looked at.
    events: Vec<Value>,
    _profile: TempDir,
}

/// A tab of it.
pub(crate) struct Tab(String);

impl Browser {
    /// None, and a word about it, when there is no Chromium: `WELLSPRING_CHROMIUM` says where it is, or `none` for that it cannot be had.
    pub(crate) fn start() -> Option<Self> {
        let (program, profile) = (program()?, tempfile::tempdir().expect("a folder"));
        let mut process = Command::new(&program)
            .args(["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            // It is shown nothing but our own page; and its sandbox does not work for root, as which tests run in containers.
            .arg("--no-sandbox")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut output = BufReader::new(process.stderr.take().expect("its output")).lines();
        let mut said = Vec::new();
        let url = loop {
            let Some(Ok(line)) = output.next() else { panic!("{} has ended: {said:?}", program.display()) };
            match line.strip_prefix("DevTools listening on ") {
                Some(url) => break url.to_owned(),
                None => said.push(line),
            }
        };
        // It may say more, and must not wait for a reader.
        std::thread::spawn(move || output.for_each(drop));
        let host = url.trim_start_matches("ws://").split('/').next().expect("a host");
        let stream = TcpStream::connect(host).expect("a connection");
        stream.set_read_timeout(Some(LAST_PATIENCE)).expect("a time");
        let (socket, _) = tungstenite::client(url.as_str(), stream).expect("a WebSocket");
        Some(Self { process, socket, last: 0, events: Vec::new(), _profile: profile })
    }

    /// Opens a page in a tab of its own, and waits until it is loaded.
    pub(crate) fn open(&mut self, url: &str) -> Tab {
        let target = self.command(None, "Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.command(None, "Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        let tab = Tab(attached["sessionId"].as_str().expect("a session").to_owned());
        self.command(Some(&tab), "Runtime.enable", json!({}));
        self.command(Some(&tab), "Page.enable", json!({}));
        self.command(Some(&tab), "Network.enable", json!({}));
        self.command(Some(&tab), "Page.navigate", json!({ "url": url }));
        self.await_event(&tab, "Page.loadEventFired");
        tab
    }

    /// What an expression comes to in a tab; a promise is waited for.
    pub(crate) fn evaluate(&mut self, tab: &Tab, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.command(Some(tab), "Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true in a tab, looking at each change of the page.
    pub(crate) fn until(&mut self, tab: &Tab, condition: &str) {
        let expression = format!(
            "new Promise((done) => {{
                const look = () => {{ if ({condition}) {{ observer.disconnect(); done(true); }} }};
                const observer = new MutationObserver(look);
                setTimeout(() => done(document.body.innerText), {});
                observer.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                look();
            }})",
            PATIENCE.as_millis()
        );
        // Else the page as it is: that tells more than that it took too long.
        assert_eq!(self.evaluate(tab, &expression), true, "{condition}");
    }

    /// Waits until a tab has sent a message over a WebSocket that has a text in it.
    pub(crate) fn await_sent(&mut self, tab: &Tab, text: &str) {
        while !self.sent(tab).iter().any(|frame| frame.contains(text)) {
            let message = self.read(&json!(text));
            self.events.push(message);
        }
    }

    /// All messages that a tab has sent over WebSockets so far.
    pub(crate) fn sent(&self, tab: &Tab) -> Vec<&str> {
        let frames =
            self.events.iter().filter(|event| event["method"] == "Network.webSocketFrameSent" && event["sessionId"] == tab.0.as_str());
        frames.filter_map(|event| event["params"]["response"]["payloadData"].as_str()).collect()
    }

    /// The exceptions that nobody has caught in any tab.
    pub(crate) fn exceptions(&self) -> Vec<&Value> {
        self.events.iter().filter(|event| event["method"] == "Runtime.exceptionThrown").collect()
    }

    fn command(&mut self, tab: Option<&Tab>, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(Tab(session)) = tab {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string())).expect("sent");
        loop {
            let message = self.read(&parameters);
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn await_event(&mut self, tab: &Tab, method: &str) {
        let is_it = |event: &Value| event["method"] == method && event["sessionId"] == tab.0.as_str();
        while !self.events.iter().any(is_it) {
            let message = self.read(&json!(method));
            self.events.push(message);
        }
        self.events.retain(|event| !is_it(event));
    }

    fn read(&mut self, waiting_for: &Value) -> Value {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).expect("a message"),
                Ok(_) => {}
                Err(error) => panic!("waiting for {waiting_for}: {error}"),
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<std::path::PathBuf> {
    match std::env::var_os("WELLSPRING_CHROMIUM").filter(|said| !said.is_empty()) {
        Some(none) if none == "none" => {
            eprintln!("skipped: Chromium cannot be had here");
            None
        }
        Some(said) => Some(said.into()),
        None => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&folders).flat_map(|folder| NAMES.map(|name| folder.join(name))).find(|path| path.is_file());
            if found.is_none() {
                assert!(std::env::var_os("CI").is_none(), "no Chromium: .ci/chromium installs it, or says that it cannot");
                eprintln!("skipped: there is no Chromium (.ci/chromium installs it)");
            }
            found
        }
    }
}
