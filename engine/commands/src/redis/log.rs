//! Opening the stream and reading it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, ScriptInvocation};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::id::LogId;
use crate::log::{BoxFuture, Head, OperationLog, Reading};
use crate::position::{Cursor, Place};
use crate::redis::failure::failure;
use crate::redis::hint::{self, Tasks};
use crate::redis::managed::Managed;
use crate::redis::{RedisOptions, scripts};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::{Gathered, RECENT_MESSAGES, ending, parts};
use crate::wakeup::{Hinter, Hints, Wakeup};

/// A log on a Redis stream: what every server opens once. See the [module](crate::redis) for what it promises.
///
/// Clones share the connection. Dropping the last one ends it.
#[derive(Clone)]
pub struct RedisLog {
    shared: Arc<Shared>,
}

struct Shared {
    link: Connection,
    id: LogId,
    hinter: Hinter,
    publish: Arc<Notify>,
    _tasks: Tasks,
}

/// The connection for everything but hints, and the names of the keys.
#[derive(Clone)]
pub(crate) struct Connection {
    managed: Arc<Managed>,
    pub(crate) options: RedisOptions,
    pub(crate) log: String,
    pub(crate) meta: String,
    pub(crate) hint: String,
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a password in it.
        let Shared { link, id, .. } = &*self.shared;
        f.debug_struct("RedisLog").field("prefix", &link.options.prefix).field("id", id).finish_non_exhaustive()
    }
}

impl Connection {
    /// Runs a script, not for longer than the timeout.
    pub(crate) async fn run<T: FromRedisValue>(&self, doing: &str, script: &ScriptInvocation<'_>) -> Result<T, StoreError> {
        self.managed.call(doing, self.options.timeout, async |mut connection| script.invoke_async(&mut connection).await).await
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, doing: &str, command: &redis::Cmd) -> Result<T, StoreError> {
        self.managed.call(doing, self.options.timeout, async |mut connection| command.query_async(&mut connection).await).await
    }
}

impl RedisLog {
    /// Connects. The id is the [outbox's](crate::Outbox::id), the same for every server.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] if Redis cannot be reached now; from then on the connection is made again by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(options: RedisOptions, id: LogId) -> Result<RedisLog, StoreError> {
        let doing = "connecting to Redis";
        let client = redis::Client::open(options.url.as_str()).map_err(|error| StoreError::with(StoreErrorKind::Other, doing, error))?;
        let managed = Arc::new(Managed::open(client.clone(), options.timeout).await.map_err(|error| failure(doing, error))?);
        let key = |name: &str| format!("{}:{name}", options.prefix);
        let link = Connection { managed, log: key("log"), meta: key("meta"), hint: key("hint"), options };
        let (hinter, publish) = (Hinter::new(), Arc::new(Notify::new()));
        let tasks = hint::spawn(client, &link, &hinter, &publish);
        Ok(RedisLog { shared: Arc::new(Shared { link, id, hinter, publish, _tasks: tasks }) })
    }

    pub(crate) fn link(&self) -> &Connection {
        &self.shared.link
    }

    /// The last messages up to an id, newest first.
    pub(crate) async fn last_messages(&self, up_to: &str, most: usize) -> Result<Answer, StoreError> {
        let link = self.link();
        let mut script = scripts::HEAD.prepare_invoke();
        script.key(&link.meta).key(&link.log).arg(Uuid::new_v4().simple().to_string()).arg(most).arg(up_to);
        Answer::read(link.run("reading the end of the stream", &script).await?)
    }

    async fn find_head(&self) -> Result<Head, StoreError> {
        let Answer { stream, last, name, messages } = self.last_messages("+", RECENT_MESSAGES).await?;
        // Redis gives the newest first.
        let (horizon, recent) = ending(self.id(), messages.iter().rev().map(|message| message.payload.as_slice()));
        let id = messages.first().map_or("0-0", |message| &message.id);
        Ok(Head { cursor: Position { stream, ordinal: last, name, id: id.to_owned(), horizon }.cursor(), horizon, recent })
    }

    async fn read_after(&self, since: &Cursor, most: usize) -> Result<Reading, StoreError> {
        let Some(mut at) = Position::read(since) else {
            return Ok(Reading::lost(format!("`{}` is no cursor of a Redis stream", since.as_str())));
        };
        let link = self.link();
        let mut script = scripts::READ.prepare_invoke();
        script.key(&link.meta).key(&link.log).arg(&at.id).arg(most);
        let Answer { stream, last, name, messages } = Answer::read(link.run("reading the stream", &script).await?)?;
        if stream != at.stream {
            return Ok(Reading::lost("the stream was begun anew"));
        }
        if last < at.ordinal {
            return Ok(Reading::lost(format!("the stream has gone back from message {} to {last}", at.ordinal)));
        }
        let mut gathered = Gathered::new(self.shared.id, most, at.horizon);
        for message in &messages {
            let next = at.ordinal + gathered.taken as u64 + 1;
            let goes_on = match &message.link {
                Some(link) if link.ordinal == next && link.before == at.name => {
                    let taken = gathered.taken;
                    let goes_on = gathered.take(&message.payload);
                    // With the first message, behind a loss that it says.
                    if gathered.taken > taken || taken == 0 {
                        at.name.clone_from(&link.name);
                    }
                    goes_on
                }
                _ => gathered.missing(format!("message {next} of the stream is gone or another one")),
            };
            if !goes_on {
                break;
            }
        }
        if messages.is_empty() && last == at.ordinal && name != at.name {
            gathered.missing(format!("message {last} of the stream is another one than was read"));
        }
        if messages.is_empty() && last > at.ordinal {
            gathered.missing(format!("messages {} to {last} are gone from the stream", at.ordinal + 1));
        }
        if let Some((reason, horizon)) = gathered.loss()? {
            let next = horizon
                .zip(messages.first())
                .map(|(horizon, message)| Position { ordinal: at.ordinal + 1, id: message.id.clone(), horizon, ..at }.cursor());
            return Ok(Reading::Lost { reason, next });
        }
        if let Some(message) = gathered.taken.checked_sub(1).and_then(|at| messages.get(at)) {
            at.id.clone_from(&message.id);
        }
        at.ordinal += gathered.taken as u64;
        at.horizon = gathered.horizon;
        let more = at.ordinal < last;
        Ok(Reading::Entries { entries: gathered.entries, cursor: at.cursor(), horizon: at.horizon, more })
    }
}

/// Reads whole messages, so a reading may have up to a message more operations than were asked for, and the order is that of the
/// stream. What a relay had to publish twice is read twice: a reader drops what it has applied, by operation id, and may drop what is
/// below a horizon it was given. A loss that the relay has published is found by whoever reads from before it, and says where to go on. A
/// message that is not one is a loss too, after which only a new [head](OperationLog::head) is left.
///
/// A head's recent operations are those of the last few messages. Of others above the horizon a new reader learns when it passes them.
///
/// A cursor is `<name of the stream>:<ordinal>:<name of the publication>:<id of the message>:<horizon>`, the last as two numbers.
impl OperationLog for RedisLog {
    fn id(&self) -> LogId {
        self.shared.id
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(self.find_head())
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(self.read_after(since, most))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let link = self.link();
            let mut removed = 0;
            loop {
                let mut script = scripts::TRIM.prepare_invoke();
                script.key(&link.log).arg(u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
                let (count, more): (u64, u64) = link.run("trimming the stream", &script).await?;
                removed += count;
                if more == 0 {
                    return Ok(removed);
                }
            }
        })
    }
}

/// Hints of all servers through a channel. [`notify`](Wakeup::notify) is for who has something to say beyond what the relay says
/// anyway, with each append.
impl Wakeup for RedisLog {
    fn notify(&self) {
        self.shared.hinter.hint();
        self.shared.publish.notify_one();
    }

    fn hints(&self) -> Hints {
        self.shared.hinter.hints()
    }
}

/// How far a reader has read.
struct Position {
    stream: String,
    ordinal: u64,
    name: String,
    id: String,
    horizon: Place,
}

impl Position {
    fn cursor(&self) -> Cursor {
        let Position { stream, ordinal, name, id, horizon } = self;
        Cursor::new(format!("{stream}:{ordinal}:{name}:{id}:{}:{}", horizon.major, horizon.minor))
    }

    fn read(cursor: &Cursor) -> Option<Position> {
        let [stream, ordinal, name, id, major, minor] = parts(cursor.as_str())?;
        let horizon = Place::new(major.parse().ok()?, minor.parse().ok()?);
        // It goes into a command as it is.
        let (milliseconds, sequence) = id.split_once('-')?;
        let (_, _): (u64, u64) = (milliseconds.parse().ok()?, sequence.parse().ok()?);
        let (stream, name, id) = (stream.to_owned(), name.to_owned(), id.to_owned());
        Some(Position { stream, ordinal: ordinal.parse().ok()?, name, id, horizon })
    }
}

/// What the scripts that read answer.
pub(crate) struct Answer {
    pub(crate) stream: String,
    pub(crate) last: u64,
    /// Of the last publication.
    name: String,
    pub(crate) messages: Vec<Stored>,
}

pub(crate) struct Stored {
    pub(crate) id: String,
    /// None in what was not appended by us.
    pub(crate) link: Option<Link>,
    pub(crate) payload: Vec<u8>,
}

/// Where a message is in the stream: its ordinal, the publication of the message before it, and its own.
pub(crate) struct Link {
    pub(crate) ordinal: u64,
    pub(crate) before: String,
    name: String,
}

impl Link {
    fn read(text: &[u8]) -> Option<Link> {
        let [ordinal, before, name] = parts(std::str::from_utf8(text).ok()?)?;
        Some(Link { ordinal: ordinal.parse().ok()?, before: before.to_owned(), name: name.to_owned() })
    }
}

impl Answer {
    fn read(parts: Vec<Vec<u8>>) -> Result<Answer, StoreError> {
        let mut parts = parts.into_iter();
        let mut text = || parts.next().and_then(|part| String::from_utf8(part).ok());
        let (Some(stream), Some(Ok(last)), Some(name)) = (text(), text().map(|last| last.parse()), text()) else {
            return Err(StoreError::new(StoreErrorKind::Corrupt, "reading what is known of the stream"));
        };
        let mut messages = Vec::new();
        while let (Some(id), Some(link), Some(payload)) = (parts.next(), parts.next(), parts.next()) {
            let id = String::from_utf8_lossy(&id).into_owned();
            messages.push(Stored { id, link: Link::read(&link), payload });
        }
        Ok(Answer { stream, last, name, messages })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(cursor: &Cursor) -> Option<Cursor> {
    Position::read(cursor).map(|position| position.cursor())
}
