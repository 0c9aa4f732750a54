//! The tables, made where they are missing.

use super::connection::Connection;
use super::failure::{corrupt, failure};
use super::names::Names;
use crate::id::LogId;
use crate::store_error::StoreError;

/// The tables this version of the crate writes.
const VERSION: i32 = 1;

/// `operations` is read by ranges of `(xid, seq)` and looked up by id after a doubtful commit.
///
/// `events` has three ways in: what is due (`events_due`), what is first in a partition (`events_line`), and what has ended
/// (`events_ended`), each over the rows it is for only.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS {s}.meta (
        one bool PRIMARY KEY DEFAULT true CHECK (one),
        log uuid NOT NULL,
        version int NOT NULL,
        system bigint NOT NULL,
        trimmed xid8 NOT NULL DEFAULT '0'
    );
    CREATE UNLOGGED TABLE IF NOT EXISTS {s}.boot (
        one bool PRIMARY KEY DEFAULT true CHECK (one),
        id uuid NOT NULL DEFAULT gen_random_uuid()
    );
    COMMENT ON TABLE {s}.boot IS 'unlogged, so that a crash empties it: whoever has read before finds out by a new id';
    CREATE SEQUENCE IF NOT EXISTS {s}.seq;
    CREATE TABLE IF NOT EXISTS {s}.operations (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        seq bigint NOT NULL DEFAULT nextval('{in_text}.seq'),
        id uuid NOT NULL UNIQUE,
        origin uuid NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        body text NOT NULL,
        PRIMARY KEY (xid, seq)
    );
    CREATE TABLE IF NOT EXISTS {s}.journal (
        id text PRIMARY KEY,
        command text NOT NULL,
        digest bytea NOT NULL,
        result text NOT NULL,
        log uuid NOT NULL,
        xid xid8 NOT NULL,
        seq bigint NOT NULL,
        operation uuid NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX IF NOT EXISTS journal_at ON {s}.journal (at);
    CREATE TABLE IF NOT EXISTS {s}.marks (
        at timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
        horizon xid8 NOT NULL
    );
    CREATE TABLE IF NOT EXISTS {s}.consumers (
        name text PRIMARY KEY,
        epoch bigint NOT NULL,
        cursor text
    );
    CREATE TABLE IF NOT EXISTS {s}.events (
        id uuid PRIMARY KEY,
        seq bigint NOT NULL,
        ordinal int NOT NULL,
        kind text NOT NULL,
        payload text NOT NULL,
        partition text,
        key text,
        duplicate smallint NOT NULL,
        state smallint NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
        due timestamptz NOT NULL,
        attempts int NOT NULL DEFAULT 0,
        token bigint,
        error text,
        ended timestamptz
    );
    COMMENT ON COLUMN {s}.events.state IS '0: waiting or leased, 1: done, 2: dead';
    COMMENT ON COLUMN {s}.events.due IS 'when it may be claimed: the end of the lease while it is leased';
    CREATE UNIQUE INDEX IF NOT EXISTS events_key ON {s}.events (kind, key) WHERE key IS NOT NULL;
    CREATE INDEX IF NOT EXISTS events_due ON {s}.events (due) WHERE state = 0;
    CREATE INDEX IF NOT EXISTS events_line ON {s}.events (partition, seq, ordinal) WHERE state = 0 AND partition IS NOT NULL;
    CREATE INDEX IF NOT EXISTS events_ended ON {s}.events (state, ended) WHERE state <> 0;
";

/// The cluster the tables are in. Restoring a dump makes another one, whose transaction ids have nothing to do with those in the rows.
const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";

const META: &str = "SELECT log, version, system FROM {s}.meta";

/// Makes what is missing, and says which log it is.
pub(super) async fn prepare(connection: &Connection, names: &Names) -> Result<LogId, StoreError> {
    const DOING: &str = "preparing the tables of the operation log";
    let client = connection.client();
    let system: i64 = client.query_one(SYSTEM, &[]).await.and_then(|row| row.try_get(0)).map_err(|error| failure(DOING, error))?;
    // Looked at first, so that a role that may not create anything can use what is there.
    if let Some((log, true)) = known(connection, names, system).await? {
        return Ok(log);
    }
    let steps = async {
        client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        client.execute("SELECT pg_advisory_xact_lock($1)", &[&names.lock("tables", "")]).await?;
        // Not `IF NOT EXISTS`: that needs the right to create schemas also where there is nothing to create.
        if !client.query_one("SELECT to_regnamespace($1) IS NOT NULL", &[&names.fill("{s}")]).await?.try_get::<_, bool>(0)? {
            client.batch_execute(&names.fill("CREATE SCHEMA {s}")).await?;
        }
        client.batch_execute(&names.fill(TABLES)).await?;
        let log = uuid::Uuid::from_u128(LogId::random().as_u128());
        let insert = names.fill("INSERT INTO {s}.meta (log, version, system) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
        client.execute(&insert, &[&log, &VERSION, &system]).await?;
        // Rows of another cluster: their places are nonsense here. A reader of the old log finds out by its id.
        let adopt = names.fill("UPDATE {s}.meta SET log = $1, system = $2, trimmed = '0' WHERE system <> $2");
        if client.execute(&adopt, &[&log, &system]).await? > 0 {
            client.batch_execute(&names.fill("DELETE FROM {s}.operations; DELETE FROM {s}.marks")).await?;
        }
        client.batch_execute("COMMIT").await
    };
    steps.await.map_err(|error| failure(DOING, error))?;
    match known(connection, names, system).await? {
        Some((log, _)) => Ok(log),
        None => Err(corrupt("the operation log has no name: its table `meta` is empty")),
    }
}

/// The log whose tables are there, and whether they are all there and this cluster's own.
async fn known(connection: &Connection, names: &Names, system: i64) -> Result<Option<(LogId, bool)>, StoreError> {
    const DOING: &str = "looking at the tables of the operation log";
    let client = connection.client();
    let there = client
        .query_one("SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL", &[&names.fill("{s}.meta"), &names.fill("{s}.boot")])
        .await;
    let there = there.and_then(|row| Ok((row.try_get::<_, bool>(0)?, row.try_get::<_, bool>(1)?)));
    // The table `boot` came later: schemas of this version may lack it.
    let (true, whole) = there.map_err(|error| failure(DOING, error))? else { return Ok(None) };
    let row = client.query_opt(&names.fill(META), &[]).await.map_err(|error| failure(DOING, error))?;
    let Some(row) = row else { return Ok(None) };
    let read = || Ok((row.try_get::<_, uuid::Uuid>(0)?, row.try_get::<_, i32>(1)?, row.try_get::<_, i64>(2)?));
    let (log, version, home) = read().map_err(|error| failure(DOING, error))?;
    if version != VERSION {
        return Err(corrupt(format!("the tables in schema `{}` are of version {version}, this program knows {VERSION}", names.schema())));
    }
    Ok(Some((LogId::from_u128(log.as_u128()), whole && home == system)))
}
