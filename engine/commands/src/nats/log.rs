//! Opening the stream and reading it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, DirectGetErrorKind, Info, LastRawMessageErrorKind, Stream};
use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::id::LogId;
use crate::log::{BoxFuture, Head, OperationLog, Reading};
use crate::nats::NatsOptions;
use crate::nats::failure::failure;
use crate::nats::link::{self, nameless};
use crate::position::{Cursor, Place};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::{Gathered, RECENT_MESSAGES, ending, parts};
use crate::wakeup::{Hinter, Hints, Wakeup};

/// Messages that are asked for at once.
pub(crate) const WINDOW: usize = 32;

/// A log on a JetStream stream: what every server opens once. See the [module](crate::nats) for what it promises.
///
/// Clones share the connection. Dropping the last one ends it.
#[derive(Clone)]
pub struct NatsLog {
    shared: Arc<Shared>,
}

struct Shared {
    link: Connection,
    id: LogId,
    hinter: Hinter,
    notify: Arc<Notify>,
    /// For each consumer's name the revision that was seen, and since when. See [`Consumers`](crate::Consumers) of it.
    seen: Mutex<HashMap<String, (u64, Instant)>>,
    _tasks: JoinSet<()>,
}

/// The connection, and the names on the server.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) options: NatsOptions,
    pub(crate) subject: String,
    pub(crate) hint: String,
    /// The longest message that the stream takes, if it says so: as of when it was looked at last.
    limit: Arc<AtomicUsize>,
    /// As of then, too.
    replicas: Arc<AtomicUsize>,
    /// Of the stream at a name; which stream that is changes when it is made anew.
    pub(crate) stream: Stream<()>,
}

impl fmt::Debug for NatsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The servers' addresses may have passwords in them.
        let Shared { link, id, .. } = &*self.shared;
        f.debug_struct("NatsLog").field("name", &link.options.name).field("id", id).finish_non_exhaustive()
    }
}

impl Connection {
    /// What the server says of the stream, which is created if it is not there.
    pub(crate) async fn info(&self, doing: &str) -> Result<Info, StoreError> {
        let NatsOptions { name, replicas, .. } = &self.options;
        let config = Config {
            name: name.clone(),
            subjects: vec![self.subject.clone()],
            num_replicas: *replicas,
            allow_direct: true,
            // Nothing is published twice under one id, and the server keeps in memory each that is in the window.
            duplicate_window: Duration::from_secs(2),
            ..Config::default()
        };
        let stream = self.context.get_or_create_stream(config).await.map_err(|error| failure(doing, error))?;
        let info = stream.cached_info().clone();
        let limit = usize::try_from(info.config.max_message_size).ok().filter(|limit| *limit > 0);
        self.limit.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.replicas.store(info.config.num_replicas, Ordering::Relaxed);
        Ok(info)
    }

    /// A message from any replica; none if it does not have it, or not yet.
    async fn get(&self, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        match self.stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure("reading the stream", error)),
        }
    }

    /// A message from the leader, which has it if anybody does.
    pub(crate) async fn get_surely(&self, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(answer) if answer.code() == 404 => Ok(None),
                _ => Err(failure("reading the stream", error)),
            },
        }
    }

    /// Whether messages can be made to follow each other by their ids. Of several replicas each compares the id by itself, with what it
    /// has in memory: one that was started again or catches up does not have it, and would leave the message out.
    pub(crate) fn has_one_replica(&self) -> bool {
        self.replicas.load(Ordering::Relaxed) == 1
    }

    /// The longest message there may be, headers and all.
    pub(crate) fn most_bytes(&self) -> usize {
        self.client.max_payload().min(self.limit.load(Ordering::Relaxed))
    }

    pub(crate) async fn hint(&self) {
        // A hint that is not given costs a check period.
        if let Err(error) = self.client.publish(self.hint.clone(), Vec::new().into()).await {
            tracing::debug!(%error, "a hint could not be given");
        }
    }
}

/// When the stream was created, which tells it from others of its name.
pub(crate) fn created(info: &Info) -> i128 {
    info.created.unix_timestamp_nanos()
}

impl NatsLog {
    /// Connects, and creates the stream if it is not there. The id is the [outbox's](crate::Outbox::id), the same for every server.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] if NATS cannot be reached now; from then on the connection is made again by itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open(options: NatsOptions, id: LogId) -> Result<NatsLog, StoreError> {
        Self::open_with(ConnectOptions::new(), options, id).await
    }

    /// With own settings for the connection: credentials, TLS. Its event callback is replaced, and by what the
    /// options say its request timeout and its ping interval.
    ///
    /// # Errors
    /// As [`open`](NatsLog::open).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn open_with(connect: ConnectOptions, options: NatsOptions, id: LogId) -> Result<NatsLog, StoreError> {
        let doing = "connecting to NATS";
        let hinter = Hinter::new();
        let reconnected = hinter.clone();
        let connect = connect.request_timeout(Some(options.timeout)).ping_interval(options.ping).event_callback(move |event| {
            let reconnected = reconnected.clone();
            async move {
                match event {
                    // Whatever came while nobody listened.
                    Event::Connected => reconnected.hint(),
                    event => tracing::debug!(%event, "connection to NATS"),
                }
            }
        });
        let servers: Vec<_> = options.servers.split(',').map(|server| server.trim().to_owned()).collect();
        let client = connect.connect(servers).await.map_err(|error| failure(doing, error))?;
        let context = ContextBuilder::new().timeout(options.timeout).ack_timeout(options.timeout).build(client.clone());
        let stream = context
            .get_stream_no_info(&options.name)
            .await
            .map_err(|error| StoreError::with(StoreErrorKind::Other, "naming the stream", error))?;
        let (subject, hint) = (format!("{}.log", options.name), format!("{}.hint", options.name));
        let limit = Arc::new(AtomicUsize::new(usize::MAX));
        let link = Connection { client, context, subject, hint, limit, replicas: Arc::default(), stream, options };
        link.info("looking for the stream").await?;
        let heard = link.client.subscribe(link.hint.clone()).await.map_err(|error| failure(doing, error))?;
        let notify = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(heard, hinter.clone()));
        tasks.spawn(say(link.clone(), notify.clone()));
        Ok(NatsLog { shared: Arc::new(Shared { link, id, hinter, notify, seen: Mutex::default(), _tasks: tasks }) })
    }

    pub(crate) fn link(&self) -> &Connection {
        &self.shared.link
    }

    pub(crate) fn seen(&self) -> &Mutex<HashMap<String, (u64, Instant)>> {
        &self.shared.seen
    }

    async fn find_head(&self) -> Result<Head, StoreError> {
        let link = self.link();
        let info = link.info("finding the head of the stream").await?;
        let last = info.state.last_sequence;
        let first = last.saturating_sub(RECENT_MESSAGES as u64 - 1).max(info.state.first_sequence).max(1);
        let mut asked: FuturesOrdered<_> = (first..=last).map(|sequence| link.get_surely(sequence)).collect();
        let mut messages = Vec::new();
        while let Some(message) = asked.next().await {
            messages.extend(message?);
        }
        let (horizon, recent) = ending(self.shared.id, messages.iter().map(|message| message.payload.as_ref()));
        let name = messages.last().filter(|message| message.sequence == last).map_or_else(nameless, link::Link::name_of);
        let cursor = Position { created: created(&info), sequence: last, name, horizon }.cursor();
        Ok(Head { cursor, horizon, recent })
    }

    async fn read_after(&self, since: &Cursor, most: usize) -> Result<Reading, StoreError> {
        let Some(at) = Position::read(since) else {
            return Ok(Reading::lost(format!("`{}` is no cursor of a JetStream stream", since.as_str())));
        };
        let link = self.link();
        let mut name = at.name.clone();
        let mut gathered = Gathered::new(self.shared.id, most, at.horizon);
        // One message first: usually there is no more. Then ever more at once, never more than are wanted.
        let (mut window, mut more) = (1, true);
        'reading: while more {
            let next = at.sequence + gathered.taken as u64 + 1;
            let wanted = most.saturating_sub(gathered.entries.len()).clamp(1, window) as u64;
            let mut asked: FuturesOrdered<_> = (next..next + wanted).map(|sequence| link.get(sequence)).collect();
            while let Some(message) = asked.next().await {
                let message = match message? {
                    Some(message) => message,
                    None if gathered.taken > 0 => {
                        more = false;
                        break 'reading;
                    }
                    None => match self.look_for(&at).await? {
                        Next::Message(message) => *message,
                        Next::Nothing => {
                            more = false;
                            break 'reading;
                        }
                        Next::Lost(reason) => return Ok(Reading::lost(reason)),
                    },
                };
                let goes_on = match link::Link::of(&message) {
                    Some(link) if link.created == at.created && link.before == name => {
                        let taken = gathered.taken;
                        let goes_on = gathered.take(&message.payload);
                        // With the first message, behind a loss that it says.
                        if gathered.taken > taken || taken == 0 {
                            name = link.name;
                        }
                        goes_on
                    }
                    _ => gathered.missing(format!("message {} does not follow the one that was read before it", message.sequence)),
                };
                if !goes_on {
                    break 'reading;
                }
            }
            window = (window * 4).min(WINDOW);
        }
        if let Some((reason, horizon)) = gathered.loss()? {
            let next = horizon.map(|horizon| Position { sequence: at.sequence + 1, name, horizon, ..at }.cursor());
            return Ok(Reading::Lost { reason, next });
        }
        let cursor = Position { sequence: at.sequence + gathered.taken as u64, name, horizon: gathered.horizon, ..at }.cursor();
        Ok(Reading::Entries { entries: gathered.entries, cursor, horizon: gathered.horizon, more })
    }

    /// Why the message after a position was not found.
    async fn look_for(&self, at: &Position) -> Result<Next, StoreError> {
        let info = self.link().info("looking at the end of the stream").await?;
        let (first, last, next) = (info.state.first_sequence, info.state.last_sequence, at.sequence + 1);
        Ok(match () {
            () if created(&info) != at.created => Next::Lost("the stream was made anew".to_owned()),
            () if last < at.sequence => Next::Lost(format!("the stream has gone back from message {} to {last}", at.sequence)),
            // There never was a message: asking for number 0 is a mistake that the server answers with an error.
            () if last == at.sequence && last == 0 => Next::Nothing,
            // A stream that has gone back may have come to just this number again, with other messages.
            () if last == at.sequence => match self.link().get_surely(last).await? {
                Some(message) if link::Link::name_of(&message) != at.name => {
                    Next::Lost(format!("message {last} is another one than the one that was read"))
                }
                // Trimmed, or there was none yet.
                Some(_) | None => Next::Nothing,
            },
            () if first > next => Next::Lost(format!("messages {next} to {} are gone from the stream", first - 1)),
            // It is there, but the replica that was asked did not have it yet.
            () => match self.link().get_surely(next).await? {
                Some(message) => Next::Message(Box::new(message)),
                None => Next::Lost(format!("message {next} is gone from the stream")),
            },
        })
    }
}

enum Next {
    Message(Box<StreamMessage>),
    Nothing,
    Lost(String),
}

/// Reads whole messages, so a reading may have up to a message more operations than were asked for, and the order is that of the
/// stream. What a relay had to publish twice is read twice: a reader drops what it has applied, by operation id, and may drop what is
/// below a horizon it was given. A loss that the relay has published is found by whoever reads from before it, and says where to go on. A
/// message that is not one is a loss too, after which only a new [head](OperationLog::head) is left.
///
/// Messages are got by their sequence numbers, many at once, rather than through a consumer: there is nothing on the server to be
/// kept alive or made again, and nothing to be asked to learn of a gap.
///
/// A head's recent operations are those of the last few messages. Of others above the horizon a new reader learns when it passes them.
///
/// A cursor is `<when the stream was created, in nanoseconds>:<sequence number>:<name of the message>:<horizon>`, the last as two numbers. Trimming counts
/// messages, not operations.
impl OperationLog for NatsLog {
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
        Box::pin(self.trim_older(keep))
    }
}

/// Hints of all servers through a subject. [`notify`](Wakeup::notify) is for who has something to say beyond what the relay says
/// anyway, with each publication.
impl Wakeup for NatsLog {
    fn notify(&self) {
        self.shared.hinter.hint();
        self.shared.notify.notify_one();
    }

    fn hints(&self) -> Hints {
        self.shared.hinter.hints()
    }
}

/// The client subscribes again after a reconnection.
async fn listen(mut heard: async_nats::Subscriber, hinter: Hinter) {
    while heard.next().await.is_some() {
        hinter.hint();
    }
}

async fn say(link: Connection, notify: Arc<Notify>) {
    loop {
        notify.notified().await;
        link.hint().await;
    }
}

/// How far a reader has read.
struct Position {
    created: i128,
    sequence: u64,
    /// Of the message.
    name: String,
    horizon: Place,
}

impl Position {
    fn cursor(&self) -> Cursor {
        let Position { created, sequence, name, horizon } = self;
        Cursor::new(format!("{created}:{sequence}:{name}:{}:{}", horizon.major, horizon.minor))
    }

    fn read(cursor: &Cursor) -> Option<Position> {
        let [created, sequence, name, major, minor] = parts(cursor.as_str())?;
        let horizon = Place::new(major.parse().ok()?, minor.parse().ok()?);
        Some(Position { created: created.parse().ok()?, sequence: sequence.parse().ok()?, name: name.to_owned(), horizon })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(cursor: &Cursor) -> Option<Cursor> {
    Position::read(cursor).map(|position| position.cursor())
}
