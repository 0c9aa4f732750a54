//! Durable cursors in a bucket, and who may move them.

use std::fmt;
use std::fmt::Write as _;
use std::sync::PoisonError;

use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::consumer::{Consumers, Hold};
use crate::lease::{Kept, Lease, hold_by_trying};
use crate::log::BoxFuture;
use crate::nats::failure::failure;
use crate::nats::log::NatsLog;
use crate::position::Cursor;
use crate::store_error::{StoreError, StoreErrorKind};

/// What is kept of a consumer. Every write makes a new revision, and a holder that lives writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Record {
    /// The token of who holds the name.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Cursor>,
}

impl Record {
    fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|error| StoreError::with(StoreErrorKind::Other, "writing a consumer's record", error))
    }
}

impl NatsLog {
    pub(crate) async fn bucket(&self) -> Result<Store, StoreError> {
        let doing = "opening the bucket of consumers";
        let link = self.link();
        let bucket = format!("{}-consumers", link.options.name);
        let missing = match link.context.get_key_value(&bucket).await {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if missing.kind() != KeyValueErrorKind::GetBucket {
            return Err(failure(doing, missing));
        }
        // As the client would, which asks for an account's limits first and does not understand what NATS 2.9 answers to that.
        let config = Config {
            name: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            discard: DiscardPolicy::New,
            num_replicas: link.options.replicas,
            ..Config::default()
        };
        // Another server may be faster, with the same.
        link.context.get_or_create_stream(config).await.map_err(|error| failure(doing, error))?;
        link.context.get_key_value(&bucket).await.map_err(|error| failure(doing, error))
    }
}

/// A key for any name.
fn key(name: &str) -> String {
    let mut key = "consumer.".to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => key.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(key, "={byte:02x}"),
        }
    }
    key
}

async fn find(bucket: &Store, key: &str) -> Result<Option<(Record, u64)>, StoreError> {
    let doing = "reading a consumer's record";
    match bucket.entry(key).await.map_err(|error| failure(doing, error))? {
        Some(entry) if entry.operation == Operation::Put => {
            let record = serde_json::from_slice(&entry.value).map_err(|error| StoreError::with(StoreErrorKind::Corrupt, doing, error))?;
            Ok(Some((record, entry.revision)))
        }
        _ => Ok(None),
    }
}

impl Consumers for NatsLog {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        Box::pin(async move {
            let doing = "taking a consumer's name";
            let time = self.link().options.lease;
            let (bucket, key, token) = (self.bucket().await?, key(name), Uuid::new_v4().to_string());
            let found = find(&bucket, &key).await?;
            let asked = Instant::now();
            let (record, revision) = match found {
                None => {
                    let record = Record { holder: Some(token.clone()), cursor: None };
                    match bucket.create(&key, record.bytes()?.into()).await {
                        Ok(revision) => (record, revision),
                        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => return Ok(None),
                        Err(error) => return Err(failure(doing, error)),
                    }
                }
                Some((record, revision)) => {
                    if record.holder.is_some() && !self.has_rested(&key, revision, asked) {
                        return Ok(None);
                    }
                    let record = Record { holder: Some(token.clone()), ..record };
                    match bucket.update(&key, record.bytes()?.into(), revision).await {
                        Ok(revision) => (record, revision),
                        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => return Ok(None),
                        Err(error) => return Err(failure(doing, error)),
                    }
                }
            };
            self.seen().lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            let lease = NatsLease { bucket, key, token, state: Mutex::new((record, revision)) };
            Ok(Some(Box::new(NatsHold(Kept::new(lease, asked, time))) as Box<dyn Hold>))
        })
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(hold_by_trying(self, name, self.link().options.lease))
    }
}

impl NatsLog {
    /// Whether a revision has been seen not to move for the whole lease time. It is remembered here, so that who only ever tries
    /// takes the name too in the end.
    fn has_rested(&self, key: &str, revision: u64, now: Instant) -> bool {
        let mut seen = self.seen().lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get(key) {
            Some((old, since)) if *old == revision => now.duration_since(*since) >= self.link().options.lease,
            _ => {
                seen.insert(key.to_owned(), (revision, now));
                false
            }
        }
    }
}

struct NatsLease {
    bucket: Store,
    key: String,
    token: String,
    /// What was written last, and as which revision. Held over a write, as each has to follow the one before.
    state: Mutex<(Record, u64)>,
}

impl fmt::Debug for NatsLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLease").field("bucket", &self.bucket.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl NatsLease {
    /// Writes a change of the record; whether the name was still held.
    async fn write(&self, doing: &str, change: impl Fn(&mut Record)) -> Result<bool, StoreError> {
        let mut state = self.state.lock().await;
        loop {
            let mut record = state.0.clone();
            change(&mut record);
            match self.bucket.update(&self.key, record.bytes()?.into(), state.1).await {
                Ok(revision) => {
                    *state = (record, revision);
                    return Ok(true);
                }
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(failure(doing, error)),
            }
            // Somebody else's, or one of our own whose acknowledgement was not seen.
            match find(&self.bucket, &self.key).await? {
                Some((record, revision)) if record.holder.as_ref() == Some(&self.token) && revision > state.1 => {
                    *state = (record, revision);
                }
                Some((_, revision)) if revision <= state.1 => return Err(StoreError::new(StoreErrorKind::Conflict, doing)),
                _ => return Ok(false),
            }
        }
    }
}

impl Lease for NatsLease {
    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.write("renewing a lease", |_| {}))
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.write("giving up a lease", |record| record.holder = None).await {
                tracing::debug!(%error, "a lease has to run out");
            }
        })
    }
}

#[derive(Debug)]
struct NatsHold(Kept<NatsLease>);

impl Hold for NatsHold {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        Box::pin(async move { Ok(self.0.lease().state.lock().await.0.cursor.clone()) })
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let doing = "saving a consumer's cursor";
            if !self.0.is_lost() && self.0.lease().write(doing, |record| record.cursor = Some(cursor.clone())).await? {
                return Ok(());
            }
            Err(StoreError::new(StoreErrorKind::Fenced, doing))
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.lost())
    }
}
