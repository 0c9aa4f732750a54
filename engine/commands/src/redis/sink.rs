//! Appending to the stream.

use uuid::Uuid;

use crate::log::BoxFuture;
use crate::message::Message;
use crate::redis::log::RedisLog;
use crate::redis::scripts;
use crate::sink::{Mark, Sink, StreamEnd};
use crate::store_error::{StoreError, StoreErrorKind};
use crate::streamed::parts;

fn mark(stream: &str, ordinal: u64) -> Mark {
    Mark::new(format!("{stream}:{ordinal}"))
}

fn position(mark: &Mark) -> Option<(&str, u64)> {
    let [stream, ordinal] = parts(mark.as_str())?;
    Some((stream, ordinal.parse().ok()?))
}

/// A mark is `<name of the stream>:<ordinal>`. A publication is one script, and all or nothing.
impl Sink for RedisLog {
    fn most_bytes(&self) -> usize {
        self.link().options.most_bytes
    }

    fn end<'a>(&'a self, known: Option<&'a Mark>) -> BoxFuture<'a, Result<StreamEnd, StoreError>> {
        Box::pin(async move {
            let link = self.link();
            let mut script = scripts::END.prepare_invoke();
            script.key(&link.meta).key(&link.log).arg(Uuid::new_v4().simple().to_string());
            let (stream, last, messages): (String, u64, u64) = link.run("looking at the end of the stream", &script).await?;
            let lost = known.and_then(|known| match position(known) {
                Some((name, _)) if name != stream => Some("the stream is not the one that was published to".to_owned()),
                Some((_, ordinal)) if ordinal > last => Some(format!("the stream has gone back from message {ordinal} to {last}")),
                Some(_) => None,
                None => Some(format!("`{}` is no mark of a Redis stream", known.as_str())),
            });
            Ok(StreamEnd { mark: mark(&stream, last), empty: messages == 0, lost })
        })
    }

    fn publish<'a>(&'a self, after: &'a Mark, messages: &'a [Message]) -> BoxFuture<'a, Result<Mark, StoreError>> {
        Box::pin(async move {
            let doing = "publishing to the stream";
            let Some((stream, ordinal)) = position(after) else { return Err(StoreError::new(StoreErrorKind::Conflict, doing)) };
            let link = self.link();
            let mut script = scripts::APPEND.prepare_invoke();
            script.key(&link.meta).key(&link.log).arg(&link.hint).arg(stream).arg(ordinal);
            for message in messages {
                script.arg(message.to_json()).arg(message.entries.len());
            }
            let last: i64 = link.run(doing, &script).await?;
            match u64::try_from(last) {
                Ok(last) => Ok(mark(stream, last)),
                Err(_) => Err(StoreError::new(StoreErrorKind::Conflict, doing)),
            }
        })
    }
}

#[cfg(fuzzing)]
pub(crate) fn reread(text: &Mark) -> Option<Mark> {
    position(text).map(|(stream, ordinal)| mark(stream, ordinal))
}
