//! Durable cursors in Redis, and who may move them.

use std::fmt;

use tokio::time::Instant;
use uuid::Uuid;

use crate::consumer::{Consumers, Hold};
use crate::lease::{Kept, Lease, hold_by_trying};
use crate::log::BoxFuture;
use crate::position::Cursor;
use crate::redis::log::{Connection, RedisLog};
use crate::redis::scripts;
use crate::store_error::{StoreError, StoreErrorKind};

impl Consumers for RedisLog {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        Box::pin(async move {
            let link = self.link();
            let key = |kind: &str| format!("{}:{kind}:{name}", link.options.prefix);
            let lease =
                RedisLease { link: link.clone(), lease: key("lease"), consumer: key("consumer"), token: Uuid::new_v4().to_string() };
            let asked = Instant::now();
            let mut script = scripts::TAKE.prepare_invoke();
            script.key(&lease.lease).key(&lease.consumer).arg(&lease.token).arg(lease.milliseconds());
            let taken: u64 = link.run("taking a consumer's name", &script).await?;
            if taken == 0 {
                return Ok(None);
            }
            Ok(Some(Box::new(RedisHold(Kept::new(lease, asked, link.options.lease))) as Box<dyn Hold>))
        })
    }

    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(hold_by_trying(self, name, self.link().options.lease))
    }
}

struct RedisLease {
    link: Connection,
    lease: String,
    consumer: String,
    token: String,
}

impl fmt::Debug for RedisLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLease").field("key", &self.lease).finish_non_exhaustive()
    }
}

impl RedisLease {
    fn milliseconds(&self) -> u64 {
        u64::try_from(self.link.options.lease.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Lease for RedisLease {
    fn renew(&self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut script = scripts::RENEW.prepare_invoke();
            script.key(&self.lease).key(&self.consumer).arg(&self.token).arg(self.milliseconds());
            Ok(self.link.run::<u64>("renewing a lease", &script).await? == 1)
        })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut script = scripts::RELEASE.prepare_invoke();
            script.key(&self.lease).arg(&self.token);
            if let Err(error) = self.link.run::<u64>("giving up a lease", &script).await {
                tracing::debug!(%error, "a lease has to run out");
            }
        })
    }
}

#[derive(Debug)]
struct RedisHold(Kept<RedisLease>);

impl Hold for RedisHold {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        Box::pin(async move {
            let RedisLease { link, consumer, .. } = self.0.lease();
            let mut command = redis::cmd("HGET");
            command.arg(consumer).arg("cursor");
            Ok(link.query::<Option<String>>("reading a consumer's cursor", &command).await?.map(Cursor::new))
        })
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let doing = "saving a consumer's cursor";
            let RedisLease { link, consumer, token, .. } = self.0.lease();
            if self.0.is_lost() {
                return Err(StoreError::new(StoreErrorKind::Fenced, doing));
            }
            let mut script = scripts::SAVE.prepare_invoke();
            script.key(consumer).arg(token).arg(cursor.as_str());
            match link.run::<u64>(doing, &script).await? {
                1 => Ok(()),
                _ => Err(StoreError::new(StoreErrorKind::Fenced, doing)),
            }
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.lost())
    }
}
