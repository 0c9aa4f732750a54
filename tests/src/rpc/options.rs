//! How the process is called.

use std::path::PathBuf;
use std::time::Duration;

/// Where a process listens, always at this machine's own address. A port of 0 is one that is free, and stays the same when it starts anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For WebSockets.
    pub port: u16,
    /// For frames over TCP.
    pub tcp: Option<u16>,
    /// For frames over a Unix socket: its path.
    pub unix: Option<PathBuf>,
    /// For frames over TLS.
    pub tls: Option<u16>,
    /// For WebSockets over TLS.
    pub wss: Option<u16>,
    /// With which certificate, and which key: two files of PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Between signs of life, if not as usual. What a client that was cut off does not ask for is forgotten at the first.
    pub keep_alive: Option<Duration>,
    /// How long a client that has gone is remembered, if not as usual.
    pub retention: Option<Duration>,
    /// It ends when its input does, so that it does not outlive who has started it.
    pub ends_with_input: bool,
}

impl Options {
    /// What can be said.
    pub const USAGE: &str = "conformance-server [--port PORT] [--tcp PORT] [--unix PATH] [--tls PORT] [--wss PORT] [--identity CHAIN KEY] \
        [--keep-alive MILLISECONDS] [--retention MILLISECONDS] [--ends-with-input]";

    /// From what was said. None if it is something else.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Option<Options> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut next = || arguments.next();
            match argument.as_str() {
                "--port" => options.port = next()?.parse().ok()?,
                "--tcp" => options.tcp = Some(next()?.parse().ok()?),
                "--unix" => options.unix = Some(next()?.into()),
                "--tls" => options.tls = Some(next()?.parse().ok()?),
                "--wss" => options.wss = Some(next()?.parse().ok()?),
                "--identity" => options.identity = Some((next()?.into(), next()?.into())),
                "--keep-alive" => options.keep_alive = Some(Duration::from_millis(next()?.parse().ok()?)),
                "--retention" => options.retention = Some(Duration::from_millis(next()?.parse().ok()?)),
                "--ends-with-input" => options.ends_with_input = true,
                _ => return None,
            }
        }
        let is_secure = options.tls.or(options.wss).is_some();
        (options.identity.is_some() || !is_secure).then_some(options)
    }

    /// As it is said.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--port".to_owned(), self.port.to_string()];
        let mut say = |name: &str, values: &[String]| {
            arguments.push(name.to_owned());
            arguments.extend_from_slice(values);
        };
        for (name, port) in [("--tcp", self.tcp), ("--tls", self.tls), ("--wss", self.wss)] {
            if let Some(port) = port {
                say(name, &[port.to_string()]);
            }
        }
        if let Some(path) = &self.unix {
            say("--unix", &[path.display().to_string()]);
        }
        if let Some((chain, key)) = &self.identity {
            say("--identity", &[chain.display().to_string(), key.display().to_string()]);
        }
        for (name, time) in [("--keep-alive", self.keep_alive), ("--retention", self.retention)] {
            if let Some(time) = time {
                say(name, &[time.as_millis().to_string()]);
            }
        }
        if self.ends_with_input {
            say("--ends-with-input", &[]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_they_are_said() {
        let all = Options {
            port: 1,
            tcp: Some(2),
            unix: Some("socket".into()),
            tls: Some(3),
            wss: Some(4),
            identity: Some(("chain".into(), "key".into())),
            keep_alive: Some(Duration::from_millis(5)),
            retention: Some(Duration::from_millis(6)),
            ends_with_input: true,
        };
        for options in [all, Options::default()] {
            assert_eq!(Options::read(options.arguments()), Some(options));
        }
        for wrong in [&["--port"][..], &["--port", "x"], &["--what"], &["--tls", "1"], &["--identity", "chain"]] {
            assert_eq!(Options::read(wrong.iter().map(|part| (*part).to_owned())), None, "{wrong:?}");
        }
    }
}
