//! Removing what is old.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageError};

use crate::nats::failure::failure;
use crate::nats::log::NatsLog;
use crate::store_error::StoreError;

const DOING: &str = "trimming the stream";

impl NatsLog {
    /// Many servers may trim at once: each only ever removes what is older than it is to keep, and what another has removed is not missed.
    pub(crate) async fn trim_older(&self, keep: Duration) -> Result<u64, StoreError> {
        let Ok(keep) = i128::try_from(keep.as_nanos()) else { return Ok(0) };
        let least = self.server_time().await?.saturating_sub(keep);
        let state = self.link().info(DOING).await?.state;
        let first = state.first_sequence;
        // The last message that there is stays, as a head is made of it.
        let Some(last) = self.last(first, state.last_sequence).await? else { return Ok(0) };
        // Whatever is there below `low` is old, and whatever is there from `high` on is not, or is the last.
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next(middle).await? {
                Some(message) if message.sequence < high && is_older(&message, least) => low = message.sequence + 1,
                // A message that is not there says nothing of its age, so nothing is concluded of those before it.
                Some(_) | None => high = middle,
            }
        }
        if low <= first {
            return Ok(0);
        }
        let purged = self.link().stream.purge().sequence(low).await.map_err(|error| failure(DOING, error))?;
        Ok(purged.purged)
    }

    /// The number of the last message that is there. To be asked for the last of a subject, NATS 2.9 says that there is none if just
    /// that one was deleted.
    async fn last(&self, first: u64, last: u64) -> Result<Option<u64>, StoreError> {
        let (mut low, mut high, mut found) = (first, last.saturating_add(1), None);
        // The last number first: nearly always it is there.
        let mut asked = last;
        while low < high {
            match self.next(asked).await? {
                Some(message) => (found, low) = (Some(message.sequence), message.sequence + 1),
                None => high = asked,
            }
            asked = low + high.saturating_sub(low) / 2;
        }
        Ok(found)
    }

    /// The first message that is there, at a sequence number or behind it.
    async fn next(&self, sequence: u64) -> Result<Option<StreamMessage>, StoreError> {
        let link = self.link();
        there(link.stream.get_first_raw_message_by_subject(&link.subject, sequence).await)
    }

    /// The time of the server, by what it says of a write.
    async fn server_time(&self) -> Result<i128, StoreError> {
        let doing = "asking for the time of the server";
        let bucket = self.bucket().await?;
        bucket.put("time", Vec::new().into()).await.map_err(|error| failure(doing, error))?;
        // From the leader, which has this write or that of another server that has asked since: its time is as good.
        let last = bucket.stream.get_last_raw_message_by_subject(&format!("{}time", bucket.prefix)).await;
        Ok(last.map_err(|error| failure(doing, error))?.time.unix_timestamp_nanos())
    }
}

fn is_older(message: &StreamMessage, least: i128) -> bool {
    message.time.unix_timestamp_nanos() < least
}

fn there(found: Result<StreamMessage, RawMessageError>) -> Result<Option<StreamMessage>, StoreError> {
    match found {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(failure(DOING, error)),
    }
}
