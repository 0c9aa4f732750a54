//! The log: reading what has become visible.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::cursor::{Bookmark, Origin, Reached};
use super::failure::{corrupt, failure};
use super::neighbours::Neighbours;
use super::pool::Pool;
use super::snapshot::Snapshot;
use super::trim;
use crate::id::{LogId, OperationId, ServerId};
use crate::log::{BoxFuture, Head, OperationLog, Reading};
use crate::position::{Cursor, Place};
use crate::record::Entry;
use crate::store_error::StoreError;

pub(super) const READING: &str = "reading the operation log";

/// A first row that says what was looked at, in the same snapshot as the rows after it.
///
/// `$1`: transactions that were running at the cursor; `$2`, `$3`: the first place of what began after it; `$4`: how many;
/// `$5`: the snapshot to stay within; `$6`: the transaction id to stay below. Without them, all that is visible and all that is settled.
/// `$7`, `$8`: what of the former was given out already, up to this place. `$9`: whether to look for transactions of other databases.
///
/// Two ranges of the primary key, since the transactions that were running may be hours older than the others.
pub(super) const READ: &str = "
    WITH now AS MATERIALIZED (
        SELECT pg_current_snapshot() AS snapshot, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, log, trimmed, tableoid AS tables,
            coalesce((SELECT id::text FROM {s}.boot), '') AS boot FROM {s}.meta
    ), bound AS MATERIALIZED (
        SELECT coalesce($5::text::pg_snapshot, snapshot) AS seen, coalesce($6::text::xid8, pg_snapshot_xmin(snapshot)) AS below FROM now
    )
    SELECT '' AS xid, 0 AS seq, log AS id, log AS origin, concat_ws('/', snapshot, timeline, boot, tables, trimmed,
        CASE WHEN $9::bool THEN (SELECT coalesce(string_agg(xid::text, ','), '') FROM ({neighbours}) AS others) ELSE '-' END) AS body FROM now
    UNION ALL
    SELECT * FROM (
        SELECT xid::text, seq, id, origin, body FROM (
            (SELECT * FROM {s}.operations
                WHERE xid = ANY($1::text[]::xid8[]) AND (xid, seq) >= ($7::text::xid8, $8::int8) AND xid < (SELECT below FROM bound)
                AND pg_visible_in_snapshot(xid, (SELECT seen FROM bound)) ORDER BY operations.xid, operations.seq LIMIT $4)
            UNION ALL
            (SELECT * FROM {s}.operations
                WHERE (xid, seq) >= ($2::text::xid8, $3::int8) AND xid < (SELECT below FROM bound)
                AND pg_visible_in_snapshot(xid, (SELECT seen FROM bound)) ORDER BY operations.xid, operations.seq LIMIT $4)
        ) AS found ORDER BY found.xid, found.seq LIMIT $4
    ) AS ordered";

/// As above, with the last transaction of which there is or was an operation, and all operations of transactions from the first on that
/// runs in this database.
const HEAD: &str = "
    WITH now AS MATERIALIZED (
        SELECT pg_current_snapshot() AS snapshot, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS timeline, log, trimmed, tableoid AS tables,
            coalesce((SELECT id::text FROM {s}.boot), '') AS boot,
            greatest(trimmed, (SELECT xid FROM {s}.operations ORDER BY operations.xid DESC LIMIT 1)) AS last FROM {s}.meta
    ), others AS MATERIALIZED ({neighbours}), bound AS MATERIALIZED (
        SELECT coalesce(
            (SELECT id FROM pg_snapshot_xip(snapshot) AS id WHERE id::xid NOT IN (SELECT xid FROM others) ORDER BY id LIMIT 1),
            pg_snapshot_xmax(snapshot)) AS horizon FROM now
    )
    SELECT '' AS xid, 0 AS seq, log AS id, log AS origin, concat_ws('/', snapshot, timeline, boot, tables, trimmed,
        (SELECT coalesce(string_agg(xid::text, ','), '') FROM others), last) AS body FROM now
    UNION ALL
    SELECT xid::text, seq, id, origin, '' FROM {s}.operations WHERE xid >= (SELECT horizon FROM bound)";

/// After a crash, and after a failover.
const BOOT: &str = "INSERT INTO {s}.boot DEFAULT VALUES ON CONFLICT DO NOTHING";

/// The log of one schema.
#[derive(Clone, Debug)]
pub(super) struct PostgresLog {
    id: LogId,
    /// For readings only: no step of anything else delays one, and with it what makes values stale.
    pub(super) pool: Arc<Pool>,
    /// For trimming.
    service: Arc<Pool>,
    /// The lock by which transactions with operations are known.
    pub(super) mark: i64,
    neighbours: Arc<Neighbours>,
}

/// What a statement looked at.
pub(super) struct View {
    pub(super) origin: Origin,
    pub(super) snapshot: Snapshot,
    /// Transactions of other databases, of those that are running in the snapshot or were a while ago.
    pub(super) neighbours: Vec<u64>,
    /// The last transaction of which operations were removed.
    trimmed: u64,
    /// The last one of which there is or was an operation, if that was asked for.
    last: u64,
}

/// What to ask for.
pub(super) struct Ask {
    pub(super) running: Vec<String>,
    pub(super) next: Place,
    pub(super) began_after: Place,
    pub(super) within: Option<Snapshot>,
    pub(super) below: Option<u64>,
    /// Whether something is held back, which may be by transactions of other databases only.
    pub(super) held_back: bool,
}

impl PostgresLog {
    pub(super) fn new(id: LogId, pool: Arc<Pool>, service: Arc<Pool>, mark: i64) -> PostgresLog {
        PostgresLog { id, pool, service, mark, neighbours: Default::default() }
    }

    /// What there is, of a database whose boot has a name: readers from before the crash find out by it.
    pub(super) async fn query(&self, sql: &'static str, ask: Option<(&Ask, i64)>) -> Result<(View, Vec<Row>), StoreError> {
        let found = self.query_once(sql, ask).await?;
        if !found.0.origin.boot.is_empty() {
            return Ok(found);
        }
        self.name_boot().await?;
        self.query_once(sql, ask).await
    }

    async fn query_once(&self, sql: &'static str, ask: Option<(&Ask, i64)>) -> Result<(View, Vec<Row>), StoreError> {
        let lease = self.pool.get().await?;
        let rows = async {
            let statement = lease.statement(sql).await?;
            let Some((ask, most)) = ask else { return lease.client().query(&statement, &[]).await };
            let (major, minor) = columns(ask.began_after);
            let (old_major, old_minor) = columns(ask.next);
            let within = ask.within.as_ref().map(Snapshot::to_string);
            let below = ask.below.map(|below| below.to_string());
            let look = ask.held_back && self.neighbours.is_look_due();
            let values: [&(dyn ToSql + Sync); 9] = [&ask.running, &major, &minor, &most, &within, &below, &old_major, &old_minor, &look];
            lease.client().query(&statement, &values).await
        };
        let rows = match rows.await {
            Ok(rows) => rows,
            Err(error) => return Err(lease.failed(READING, error)),
        };
        lease.give_back();
        self.parted(rows)
    }

    /// The first row and the others.
    fn parted(&self, mut rows: Vec<Row>) -> Result<(View, Vec<Row>), StoreError> {
        if rows.is_empty() {
            return Err(corrupt("the operation log has no name: its table `meta` is empty"));
        }
        let entries = rows.split_off(1);
        Ok((self.view(&rows[0])?, entries))
    }

    fn view(&self, row: &Row) -> Result<View, StoreError> {
        let read = || Ok((row.try_get::<_, Uuid>("id")?, row.try_get::<_, &str>("body")?));
        let (log, body) = read().map_err(|error| failure(READING, error))?;
        let strange = || corrupt(format!("`{body}` as the state of the operation log"));
        let mut parts = body.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let (snapshot, timeline, boot) = (part().parse(), part().to_owned(), part().to_owned());
        let (tables, trimmed, found, last) = (part().parse(), part().parse(), part(), part().parse().unwrap_or_default());
        let (Ok(snapshot), Ok(tables), Ok(trimmed)) = (snapshot, tables, trimmed) else { return Err(strange()) };
        let found = match found {
            "-" => None,
            found => Some(found.split(',').filter(|id| !id.is_empty()).map(str::parse).collect::<Result<Vec<u32>, _>>()),
        };
        let found = found.transpose().map_err(|_| strange())?;
        let origin = Origin { log: LogId::from_u128(log.as_u128()), timeline, boot, tables };
        let neighbours = self.neighbours.learn(&origin, &snapshot, found.as_deref());
        Ok(View { origin, snapshot, neighbours, trimmed, last })
    }

    async fn name_boot(&self) -> Result<(), StoreError> {
        let lease = self.pool.get().await?;
        match async { lease.client().execute(&lease.statement(BOOT).await?, &[]).await }.await {
            Ok(_) => lease.give_back(),
            Err(error) => return Err(lease.failed(READING, error)),
        }
        Ok(())
    }

    async fn read_on(&self, since: &Cursor, most: usize) -> Result<Reading, StoreError> {
        let Bookmark { origin, reached } = match Bookmark::of(since) {
            Ok(bookmark) => bookmark,
            Err(error) => return Ok(Reading::lost(error.to_string())),
        };
        let (seen, target, next) = match reached {
            Reached::All(seen) => (seen, None, Place::default()),
            Reached::Within { seen, target, next } => (seen, Some(target), next),
            Reached::Settled { .. } => return Err(corrupt("a cursor of a settled reading, given to an ordinary one")),
        };
        let running: Vec<String> = seen.running.iter().filter(|xid| **xid >= next.major).map(u64::to_string).collect();
        let ask = Ask {
            held_back: !running.is_empty(),
            running,
            next,
            began_after: next.max(Place::new(seen.xmax, 0)),
            below: Some(target.as_ref().map_or(u64::MAX, |target| target.xmax)),
            within: target.clone(),
        };
        let most = most.clamp(1, MOST);
        let (view, rows) = self.query(READ, Some((&ask, most as i64 + 1))).await?;
        let seen = seen.without(&view.neighbours);
        if let Some(reason) = lost(&origin, &seen, next, &view) {
            return Ok(Reading::lost(reason));
        }
        let continued = target.is_some();
        let target = target.unwrap_or(view.snapshot).without(&view.neighbours);
        let unfinished = rows.len() > most;
        let entries = rows.iter().take(most).map(entry).collect::<Result<Vec<_>, _>>()?;
        match (entries.last(), unfinished) {
            (Some(last), true) => {
                let next = after(last.place);
                let horizon = Place::new(target.xmin, 0).min(next);
                let cursor = Bookmark::new(view.origin, Reached::Within { seen, target, next }).cursor();
                Ok(Reading::Entries { entries, cursor, horizon, more: true })
            }
            // What became visible while the last chunks were read is asked for at once.
            (last, _) => {
                let last = last.map_or(0, |last| last.place.major).max(next.major);
                let seen = target.known_to(seen.xmax.max(last + 1));
                let horizon = Place::new(seen.xmin, 0);
                let cursor = Bookmark::new(view.origin, Reached::All(seen)).cursor();
                Ok(Reading::Entries { entries, cursor, horizon, more: continued })
            }
        }
    }

    async fn end(&self) -> Result<Head, StoreError> {
        let (view, rows) = self.query(HEAD, None).await?;
        let recent = rows.iter().map(|row| entry(row).map(|entry| (entry.place, entry.operation))).collect::<Result<Vec<_>, _>>()?;
        let seen = view.snapshot.without(&view.neighbours).known_to(view.last + 1);
        let horizon = Place::new(seen.xmin, 0);
        Ok(Head { cursor: Bookmark::new(view.origin, Reached::All(seen)).cursor(), horizon, recent })
    }
}

/// Entries of one reading, whatever is asked for: they are all in memory at once.
pub(super) const MOST: usize = 1 << 20;

impl OperationLog for PostgresLog {
    fn id(&self) -> LogId {
        self.id
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(self.pool.bounded(READING, self.end()))
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(self.pool.bounded(READING, self.read_on(since, most)))
    }

    fn read_settled<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(self.pool.bounded(READING, self.read_on_settled(since, most)))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(trim::operations(&self.service, keep))
    }
}

/// Why a reader cannot go on, if it cannot: something it has not read may be gone. `next` is where it is in what `seen` does not show.
pub(super) fn lost(origin: &Origin, seen: &Snapshot, next: Place, view: &View) -> Option<String> {
    if origin.log != view.origin.log {
        return Some(format!("the cursor is of log {}, the database has log {} now", origin.log, view.origin.log));
    }
    if origin.timeline != view.origin.timeline {
        let (old, new) = (&origin.timeline, &view.origin.timeline);
        return Some(format!("the database was recovered or failed over (timeline {old} became {new}): what was read may not be there"));
    }
    if origin.boot != view.origin.boot {
        return Some("the database has crashed or failed over: operations that were read may not be there".to_owned());
    }
    if origin.tables != view.origin.tables {
        return Some("the log's tables were made anew, as from a dump: operations that were read may not be there".to_owned());
    }
    let (old, new) = (seen.xmax.max(next.major), view.snapshot.xmax);
    if old > new {
        return Some(format!("the cursor is at transaction {old}, the database only at {new}: it was restored from an older backup"));
    }
    let first_unread = seen.xmin.max(next.major);
    (view.trimmed >= first_unread)
        .then(|| format!("operations up to transaction {} were trimmed, the reader was at {first_unread}", view.trimmed))
}

pub(super) fn after(place: Place) -> Place {
    Place::new(place.major, place.minor.saturating_add(1))
}

pub(super) fn entry(row: &Row) -> Result<Entry, StoreError> {
    let read = || -> Result<_, tokio_postgres::Error> {
        Ok((
            row.try_get::<_, &str>(0)?,
            row.try_get::<_, i64>(1)?,
            row.try_get::<_, Uuid>(2)?,
            row.try_get::<_, Uuid>(3)?,
            row.try_get::<_, String>(4)?,
        ))
    };
    let (xid, seq, id, origin, body) = read().map_err(|error| failure(READING, error))?;
    Ok(Entry {
        place: place(xid, seq)?,
        operation: OperationId::from_u128(id.as_u128()),
        origin: ServerId::from_u128(origin.as_u128()),
        body,
    })
}

fn columns(place: Place) -> (String, i64) {
    (place.major.to_string(), i64::try_from(place.minor).unwrap_or(i64::MAX))
}

/// A place from its two columns.
pub(super) fn place(xid: &str, seq: i64) -> Result<Place, StoreError> {
    match (xid.parse(), u64::try_from(seq)) {
        (Ok(major), Ok(minor)) => Ok(Place::new(major, minor)),
        _ => Err(corrupt(format!("`{xid}`, {seq} as a place in the operation log"))),
    }
}
