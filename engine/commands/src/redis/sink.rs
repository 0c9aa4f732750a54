//! Appending to the stream.

use uuid::Uuid;

use crate::log::BoxFuture;
use crate::message::Message;
use crate::redis::log::RedisLog;
use crate::redis::scripts;
use crate::sink::{Mark, Sink, StreamEnd};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::parts;

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
