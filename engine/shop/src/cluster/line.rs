//! A conversation with one server.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;
use std::time::Duration;

use crate::error::ShopError;

/// Longer than any answer takes, and more than a server is told to wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open conversation. It is over at the first error, except one that was the answer.
#[derive(Debug)]
pub(super) struct Line {
    answers: BufReader<TcpStream>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Unanswered {
    /// The server says so.
    Refused(String),
    /// The server is gone, or does not answer.
    Broken(String),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "refuses: {why}"),
            Self::Broken(why) => write!(f, "does not answer: {why}"),
        }
    }
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The line itself.
    pub(super) text: String,
    /// What came before it.
    pub(super) details: Vec<String>,
}

impl Line {
    /// Calls a server.
    pub(super) fn open(address: SocketAddr) -> Result<Self, Unanswered> {
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Self { answers: BufReader::new(stream) })
        };
        open().map_err(broken)
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, request: &str) -> Result<Answer, Unanswered> {
        self.answers.get_mut().write_all(format!("{request}\n").as_bytes()).map_err(broken)?;
        self.hear()
    }

    /// Waits for one more answer.
    pub(super) fn hear(&mut self) -> Result<Answer, Unanswered> {
        let mut answer = Answer::default();
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line).map_err(broken)?;
            let Some(line) = line.strip_suffix('\n') else { return Err(Unanswered::Broken("it has hung up".to_owned())) };
            if let Some(detail) = line.strip_prefix("  ") {
                answer.details.push(detail.to_owned());
            } else if let Some(error) = line.strip_prefix("error: ") {
                return Err(Unanswered::Refused(error.to_owned()));
            } else {
                answer.text = line.to_owned();
                return Ok(answer);
            }
        }
    }
}

impl Answer {
    /// What the answer says of a name: the word after `name=`.
    pub(super) fn field<T: FromStr>(&self, name: &str) -> Result<T, ShopError> {
        let words = self.text.split([' ', ',']);
        let found = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).find_map(|value| value.parse().ok());
        found.ok_or_else(|| ShopError::Server(format!("says nothing of {name}: {}", self.text).into()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn broken(error: std::io::Error) -> Unanswered {
    Unanswered::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let answer = Answer { text: "price:7 is 1.99, took_ns=17 at_ns=5 position=a/1.2/b".to_owned(), details: Vec::new() };
        assert_eq!((answer.field("took_ns"), answer.field("at_ns")), (Ok(17_u64), Ok(5_u64)));
        assert_eq!(answer.field("position"), Ok("a/1.2/b".to_owned()));
        for name in ["ns", "took", "stale"] {
            assert!(answer.field::<u64>(name).is_err(), "{name}");
        }
    }
}
