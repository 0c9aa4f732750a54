//! Appending to the stream.

use async_nats::jetstream::message::PublishMessage;

use crate::log::BoxFuture;
use crate::message::Message;
use crate::nats::failure::publishing;
use crate::nats::log::{NatsLog, STREAM_HEADER, created};
use crate::sink::{Mark, Sink, StreamEnd};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::parts;

/// Room for headers in what the server takes as one message.
const HEADER_BYTES: usize = 512;

fn mark(created: i128, sequence: u64) -> Mark {
    Mark::new(format!("{created}:{sequence}"))
}

fn position(mark: &Mark) -> Option<(i128, u64)> {
    let [created, sequence] = parts(mark.as_str())?;
    Some((created.parse().ok()?, sequence.parse().ok()?))
}

/// A mark is `<when the stream was created, in nanoseconds>:<sequence number>`. Of a publication the first few messages may be
/// appended.
impl Sink for NatsLog {
    fn most_bytes(&self) -> usize {
        self.link().client.max_payload().saturating_sub(HEADER_BYTES)
    }

    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>> {
        Box::pin(async move {
            let info = self.link().info("looking at the end of the stream").await?;
            let (now, last) = (created(&info), info.state.last_sequence);
            let lost = known.and_then(|known| match position(known) {
                Some((created, _)) if created != now => Some("the stream is not the one that was published to".to_owned()),
                Some((_, sequence)) if sequence > last => Some(format!("the stream has gone back from message {sequence} to {last}")),
                Some(_) => None,
                None => Some(format!("`{}` is no mark of a JetStream stream", known.as_str())),
            });
            Ok(StreamEnd { mark: mark(now, last), empty: info.state.messages == 0, lost })
        })
    }

    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>> {
        Box::pin(async move {
            let doing = "publishing to the stream";
            let Some((created, mut last)) = position(after) else { return Err(StoreError::new(StoreErrorKind::Conflict, doing)) };
            let link = self.link();
            let mut sent = Vec::with_capacity(messages.len());
            for (message, last) in messages.iter().zip(last..) {
                let publish = PublishMessage::build()
                    .payload(message.to_json().into())
                    .expected_last_sequence(last)
                    .header(STREAM_HEADER, created.to_string());
                let acknowledged = link.context.send_publish(link.subject.clone(), publish).await;
                sent.push(acknowledged.map_err(|error| publishing(doing, error))?);
            }
            for acknowledged in sent {
                let acknowledged = acknowledged.await.map_err(|error| publishing(doing, error))?;
                last += 1;
                if acknowledged.sequence != last {
                    return Err(StoreError::with(StoreErrorKind::Conflict, doing, "the message is elsewhere in the stream"));
                }
            }
            link.hint().await;
            Ok(mark(created, last))
        })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(text: &Mark) -> Option<Mark> {
    position(text).map(|(created, sequence)| mark(created, sequence))
}
