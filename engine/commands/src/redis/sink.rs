//! Appending to the stream.

use uuid::Uuid;

use crate::id::OperationId;
use crate::log::BoxFuture;
use crate::message::Message;
use crate::redis::log::RedisLog;
use crate::redis::scripts;
use crate::sink::{Mark, Sink, StreamEnd};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::{operations_of, parts};

/// Messages that are fetched at once.
const CHUNK: usize = 64;

fn mark(stream: &str, ordinal: u64, name: &str) -> Mark {
    Mark::new(format!("{stream}:{ordinal}:{name}"))
}

fn position(mark: &Mark) -> Option<(&str, u64, &str)> {
    let [stream, ordinal, name] = parts(mark.as_str())?;
    Some((stream, ordinal.parse().ok()?, name))
}

/// A mark is `<name of the stream>:<ordinal>:<name of the publication>`. A publication is one script, and all or nothing.
impl Sink for RedisLog {
    fn most_bytes(&self) -> usize {
        self.link().options.most_bytes
    }

    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>> {
        Box::pin(async move {
            let link = self.link();
            let mut script = scripts::END.prepare_invoke();
            script.key(&link.meta).key(&link.log).arg(Uuid::new_v4().simple().to_string());
            let (stream, last, name, messages): (String, u64, String, u64) = link.run("looking at the end of the stream", &script).await?;
            let lost = known.and_then(|known| match position(known) {
                Some((known, _, _)) if known != stream => Some("the stream is not the one that was published to".to_owned()),
                Some((_, ordinal, _)) if ordinal > last => Some(format!("the stream has gone back from message {ordinal} to {last}")),
                Some((_, ordinal, known)) if ordinal == last && known != name => {
                    Some(format!("message {ordinal} of the stream is another one than it was"))
                }
                Some(_) => None,
                None => Some(format!("`{}` is no mark of a Redis stream", known.as_str())),
            });
            Ok(StreamEnd { mark: mark(&stream, last, &name), empty: messages == 0, lost })
        })
    }

    fn published_since<'a>(&'a self, mark: &'a Mark, most: usize) -> BoxFuture<'a, Result<Option<Vec<OperationId>>, StoreError>> {
        Box::pin(async move {
            let Some((stream, ordinal, name)) = position(mark) else { return Ok(None) };
            let mut found = Vec::new();
            // From the end backwards, as a mark does not say where its message is.
            let (mut from, mut expected) = ("+".to_owned(), None);
            loop {
                let answer = self.last_messages(&from, CHUNK).await?;
                let mut next = *expected.get_or_insert(answer.last);
                if answer.stream != stream || next.saturating_sub(ordinal) > most as u64 {
                    return Ok(None);
                }
                for message in &answer.messages {
                    match &message.link {
                        Some(link) if link.ordinal == next && next > ordinal => {
                            found.extend(operations_of(std::iter::once(message.payload.as_slice())));
                            if next == ordinal + 1 {
                                return Ok((link.before == name).then_some(found));
                            }
                        }
                        Some(_) | None => return Ok(None),
                    }
                    next -= 1;
                    from = format!("({}", message.id);
                }
                if answer.messages.is_empty() {
                    return Ok((next == ordinal).then_some(found));
                }
                expected = Some(next);
            }
        })
    }

    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>> {
        Box::pin(async move {
            let doing = "publishing to the stream";
            let Some((stream, ordinal, before)) = position(after) else { return Err(StoreError::new(StoreErrorKind::Conflict, doing)) };
            let link = self.link();
            let name = format!("{:016x}", fastrand::u64(..));
            let mut script = scripts::APPEND.prepare_invoke();
            script.key(&link.meta).key(&link.log).arg(&link.hint).arg(stream).arg(ordinal).arg(before).arg(&name);
            for message in messages {
                script.arg(message.to_json()).arg(message.entries.len());
            }
            let last: i64 = link.run(doing, &script).await?;
            match u64::try_from(last) {
                Ok(last) => Ok(mark(stream, last, if messages.is_empty() { before } else { &name })),
                Err(_) => Err(StoreError::new(StoreErrorKind::Conflict, doing)),
            }
        })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(text: &Mark) -> Option<Mark> {
    position(text).map(|(stream, ordinal, name)| mark(stream, ordinal, name))
}
