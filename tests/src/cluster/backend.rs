//! Which database, and which log.

use std::path::PathBuf;

use super::database::Database;

/// Where the rows are, and what is followed: the database's own log, or a stream that a relay in every member fills from it.
///
/// Written `sqlite:PATH`, `postgres:URL#SCHEMA`, and before it, for a stream, `nats:URL#NAME+` or `redis:URL#PREFIX+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where the rows are.
    pub database: Database,
    /// What is followed instead of its own log.
    pub stream: Option<Stream>,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// In NATS JetStream.
    Nats {
        /// The server.
        url: String,
        /// The stream.
        name: String,
    },
    /// In Redis.
    Redis {
        /// The server.
        url: String,
        /// What its keys begin with.
        prefix: String,
    },
}

impl Backend {
    /// From its text.
    pub fn parse(text: &str) -> Option<Backend> {
        if text.starts_with("nats:") || text.starts_with("redis:") {
            let (stream, database) = text.split_once('+')?;
            let (kind, place) = stream.split_once(':')?;
            let (url, name) = place.rsplit_once('#')?;
            let (url, name) = (url.to_owned(), name.to_owned());
            let stream = match kind {
                "nats" => Stream::Nats { url, name },
                _ => Stream::Redis { url, prefix: name },
            };
            return Some(Backend { stream: Some(stream), ..Backend::parse(database)? });
        }
        let (kind, place) = text.split_once(':')?;
        let database = match kind {
            "sqlite" => Database::Sqlite(PathBuf::from(place)),
            "postgres" => {
                let (url, schema) = place.rsplit_once('#')?;
                Database::Postgres { url: url.to_owned(), schema: schema.to_owned() }
            }
            _ => return None,
        };
        Some(Backend { database, stream: None })
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.stream {
            Some(Stream::Nats { url, name }) => write!(f, "nats:{url}#{name}+")?,
            Some(Stream::Redis { url, prefix }) => write!(f, "redis:{url}#{prefix}+")?,
            None => {}
        }
        match &self.database {
            Database::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Database::Postgres { url, schema } => write!(f, "postgres:{url}#{schema}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_comes_back_from_its_text() {
        for text in
            ["sqlite:/tmp/a.db", "postgres:postgres://me@host/db#s", "nats:nats://h:4222#n+sqlite:/a.db", "redis:redis://h#p+postgres:u#s"]
        {
            assert_eq!(Backend::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Backend::parse("mysql:x"), None);
    }
}
