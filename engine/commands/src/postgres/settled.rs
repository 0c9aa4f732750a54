//! Reading in the order that is the same for everybody.
//!
//! An operation may be given out once no other can come before it: once every transaction with a smaller id has ended. In PostgreSQL ids
//! are the whole cluster's, so an idle transaction of somebody in another database would stop all readers. But it will never write
//! here. Ours are known by a mark, a shared advisory lock that each takes as it begins, before it can have an id, and that ends with it.

use futures_util::future;

use super::cursor::{Bookmark, Reached};
use super::failure::corrupt;
use super::reading::{Ask, MOST, PostgresLog, READ, READING, after, entry, lost};
use super::snapshot::Snapshot;
use crate::log::Reading;
use crate::position::{Cursor, Place};
use crate::store_error::StoreError;

const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";

/// Transactions with an id and without the mark. One look at all locks: two could find a transaction in one and its mark in neither.
const STRANGERS: &str = "
    WITH held AS MATERIALIZED (SELECT * FROM pg_locks WHERE granted)
    SELECT x.transactionid::text FROM held AS x WHERE x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND NOT EXISTS (
        SELECT FROM held AS mark WHERE mark.virtualtransaction = x.virtualtransaction AND mark.locktype = 'advisory' AND mark.objsubid = 1
        AND mark.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (mark.classid::int8 << 32) | mark.objid::int8 = $1
    )";

impl PostgresLog {
    pub(super) async fn read_on_settled(&self, since: &Cursor, most: usize) -> Result<Reading, StoreError> {
        let Bookmark { origin, reached } = match Bookmark::of(since) {
            Ok(bookmark) => bookmark,
            Err(error) => return Ok(Reading::lost(error.to_string())),
        };
        let (base, next) = match reached {
            Reached::All(seen) => (seen, Place::default()),
            Reached::Settled { base, next } => (base, next),
            Reached::Within { .. } => return Err(corrupt("a cursor of an ordinary reading, given to a settled one")),
        };
        let running: Vec<String> = base.running.iter().filter(|xid| **xid >= next.major).map(u64::to_string).collect();
        let mut ask = Ask {
            held_back: !running.is_empty(),
            running,
            next,
            began_after: next.max(Place::new(base.xmax, 0)),
            below: None,
            within: None,
        };
        let most = most.clamp(1, MOST);
        let (mut view, mut rows) = self.query(READ, Some((&ask, most as i64 + 1))).await?;
        let mut horizon = view.snapshot.xmin;
        // Not only at an empty reading: a transaction of somebody else would hold back what comes next until the reading after.
        if rows.len() <= most && !view.snapshot.running.is_empty() {
            let ours = self.horizon_of_ours().await?;
            if ours > horizon {
                horizon = ours;
                ask.below = Some(ours);
                // Everything of ours below that horizon had ended by now, so it is visible to a statement that begins now.
                (view, rows) = self.query(READ, Some((&ask, most as i64 + 1))).await?;
            }
        }
        let base = base.without(&view.neighbours);
        if let Some(reason) = lost(&origin, &base, next, &view) {
            return Ok(Reading::lost(reason));
        }
        let more = rows.len() > most;
        let entries = rows.iter().take(most).map(entry).collect::<Result<Vec<_>, _>>()?;
        // Never to the horizon itself: a crash takes ids back that had ended above the last operation, see `Snapshot::known_to`.
        let next = match entries.last() {
            Some(last) if more => after(last.place),
            Some(last) => next.max(Place::new(last.place.major + 1, 0)),
            // What `base` knows ends at an operation, so none of its ids is taken back. A trimmed one of them is not missed.
            None => next.max(Place::new(horizon.min(base.xmax), 0)),
        };
        let cursor = Bookmark::new(view.origin, Reached::Settled { base, next }).cursor();
        Ok(Reading::Entries { entries, cursor, horizon: next, more })
    }

    /// The transaction id below which all transactions that can have an operation have ended.
    ///
    /// Who was running before and after the look at the locks was running during it, and holds its mark if it has one. A transaction
    /// whose id is not among the locks yet counts as ours.
    async fn horizon_of_ours(&self) -> Result<u64, StoreError> {
        let lease = self.pool.get().await?;
        let look = async {
            let (snapshot, strangers) = (lease.statement(SNAPSHOT).await?, lease.statement(STRANGERS).await?);
            let client = lease.client();
            let mark: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&self.mark];
            // Sent together, run one after the other, each with a snapshot of its own.
            let looks = future::join3(client.query_one(&snapshot, &[]), client.query(&strangers, &mark), client.query_one(&snapshot, &[]));
            let (before, strangers, now) = looks.await;
            let strangers = strangers?.iter().map(|row| row.try_get::<_, String>(0)).collect::<Result<Vec<_>, _>>()?;
            Ok((before?.try_get::<_, String>(0)?, strangers, now?.try_get::<_, String>(0)?))
        };
        let (before, strangers, now) = match look.await {
            Ok(found) => found,
            Err(error) => return Err(lease.failed(READING, error)),
        };
        lease.give_back();
        let snapshot = |text: &str| text.parse::<Snapshot>().map_err(|_| corrupt(format!("`{text}` as a snapshot")));
        let (before, now) = (snapshot(&before)?, snapshot(&now)?);
        let strangers = strangers.iter().map(|xid| xid.parse()).collect::<Result<Vec<u32>, _>>();
        let strangers = strangers.map_err(|_| corrupt("transaction ids in `pg_locks`"))?;
        Ok(horizon(&before, &strangers, &now))
    }
}

/// Locks show the lower half of an id; all that are running are within a range in which that is enough.
fn horizon(before: &Snapshot, strangers: &[u32], now: &Snapshot) -> u64 {
    let still_ours = |xid: &&u64| now.running.binary_search(xid).is_ok() && !strangers.contains(&((**xid & u64::from(u32::MAX)) as u32));
    before.running.iter().find(still_ours).copied().unwrap_or(before.xmax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stranger_that_ran_all_the_while_is_passed_over() {
        let snapshot = |text: &str| text.parse::<Snapshot>().expect("a snapshot");
        let before = snapshot("4294967300:4294967320:4294967300,4294967305,4294967310");
        let all = snapshot("4294967300:4294967330:4294967300,4294967305,4294967310,4294967325");
        assert_eq!(horizon(&before, &[], &all), 4_294_967_300);
        assert_eq!(horizon(&before, &[4], &all), 4_294_967_305);
        assert_eq!(horizon(&before, &[4, 9, 14], &all), 4_294_967_320);
        // The first two have ended meanwhile: what they wrote is visible.
        assert_eq!(horizon(&before, &[], &snapshot("4294967310:4294967330:4294967310")), 4_294_967_310);
    }
}
