//! Appending to the stream.

use async_nats::jetstream::message::PublishMessage;
use futures_util::StreamExt;
use futures_util::stream::{self, TryStreamExt};

use crate::id::OperationId;
use crate::log::BoxFuture;
use crate::message::Message;
use crate::nats::failure::publishing;
use crate::nats::link::{Link, nameless};
use crate::nats::log::{NatsLog, WINDOW, created};
use crate::sink::{Mark, Sink, StreamEnd};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::{operations_of, parts};

/// Room for headers in what the server takes as one message.
const HEADER_BYTES: usize = 512;

/// Where a message is, and its name.
struct End {
    created: i128,
    sequence: u64,
    name: String,
}

impl End {
    fn mark(&self) -> Mark {
        Mark::new(format!("{}:{}:{}", self.created, self.sequence, self.name))
    }

    fn read(mark: &Mark) -> Option<End> {
        let [created, sequence, name] = parts(mark.as_str())?;
        Some(End { created: created.parse().ok()?, sequence: sequence.parse().ok()?, name: name.to_owned() })
    }
}

impl NatsLog {
    /// Whether the stream has what it had, if that can still be seen. The name is that of the last message, if it is there.
    async fn compare(&self, known: &End, now: &End, last: Option<&str>) -> Result<Option<String>, StoreError> {
        if known.created != now.created {
            return Ok(Some("the stream is not the one that was published to".to_owned()));
        }
        if known.sequence > now.sequence {
            return Ok(Some(format!("the stream has gone back from message {} to {}", known.sequence, now.sequence)));
        }
        let there = match last {
            _ if known.sequence == 0 => None,
            last if known.sequence == now.sequence => last.map(str::to_owned),
            _ => self.link().get_surely(known.sequence).await?.map(|message| Link::name_of(&message)),
        };
        let other = there.is_some_and(|name| name != known.name);
        Ok(other.then(|| format!("message {} of the stream is another one than it was", known.sequence)))
    }
}

/// A mark is `<when the stream was created, in nanoseconds>:<sequence number>:<name of the message>`. Of a publication the first few
/// messages may be appended.
impl Sink for NatsLog {
    fn most_bytes(&self) -> usize {
        self.link().most_bytes().saturating_sub(HEADER_BYTES)
    }

    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>> {
        Box::pin(async move {
            let info = self.link().info("looking at the end of the stream").await?;
            let sequence = info.state.last_sequence;
            let last = match info.state.messages {
                0 => None,
                _ => self.link().get_surely(sequence).await?.map(|message| Link::name_of(&message)),
            };
            let mut end = End { created: created(&info), sequence, name: last.clone().unwrap_or_else(nameless) };
            let lost = match known.map(|known| End::read(known).ok_or(known)) {
                None => None,
                Some(Err(known)) => Some(format!("`{}` is no mark of a JetStream stream", known.as_str())),
                Some(Ok(known)) => {
                    let lost = self.compare(&known, &end, last.as_deref()).await?;
                    if lost.is_none() && last.is_none() && known.sequence == sequence {
                        // It was purged, and readers know it.
                        end.name = known.name;
                    }
                    lost
                }
            };
            Ok(StreamEnd { mark: end.mark(), empty: info.state.messages == 0, lost })
        })
    }

    fn published_since<'a>(&'a self, mark: &'a Mark, most: usize) -> BoxFuture<'a, Result<Option<Vec<OperationId>>, StoreError>> {
        Box::pin(async move {
            let Some(known) = End::read(mark) else { return Ok(None) };
            let last = self.link().info("looking at the end of the stream").await?.state.last_sequence;
            if last.saturating_sub(known.sequence) > most as u64 {
                return Ok(None);
            }
            let messages = stream::iter(known.sequence + 1..=last).map(|sequence| self.link().get_surely(sequence)).buffered(WINDOW);
            let operations = messages.map_ok(|message| message.map(|message| operations_of(std::iter::once(message.payload.as_ref()))));
            let operations: Option<Vec<_>> = operations.try_collect::<Vec<_>>().await?.into_iter().collect();
            Ok(operations.map(|operations| operations.concat()))
        })
    }

    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>> {
        Box::pin(async move {
            let doing = "publishing to the stream";
            let Some(mut end) = End::read(after) else { return Err(StoreError::new(StoreErrorKind::Conflict, doing)) };
            let link = self.link();
            let mut sent = Vec::with_capacity(messages.len());
            for (number, message) in messages.iter().enumerate() {
                let place = Link::after(end.created, &end.name);
                let mut publish = PublishMessage::build()
                    .payload(message.to_json().into())
                    .expected_last_sequence(end.sequence + number as u64)
                    .header(Link::HEADER, place.to_string());
                if link.has_one_replica() {
                    publish = publish.message_id(&place.name);
                    if number > 0 {
                        // If the one before is refused, because another relay's has its number, this one must not get in behind that. The
                        // first cannot ask for a name: a server that was started again does not know the last one's.
                        publish = publish.expected_last_message_id(&end.name);
                    }
                }
                end.name = place.name;
                let acknowledged = link.context.send_publish(link.subject.clone(), publish).await;
                sent.push(acknowledged.map_err(|error| publishing(doing, error))?);
            }
            for acknowledged in sent {
                let acknowledged = acknowledged.await.map_err(|error| publishing(doing, error))?;
                end.sequence += 1;
                if acknowledged.sequence != end.sequence {
                    return Err(StoreError::with(StoreErrorKind::Conflict, doing, "the message is elsewhere in the stream"));
                }
            }
            link.hint().await;
            Ok(end.mark())
        })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(text: &Mark) -> Option<Mark> {
    End::read(text).map(|end| end.mark())
}
