//! A schema for each test, dropped at its end.

use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use wellspring_commands::postgres::{Postgres, PostgresBuilder};
use wellspring_commands::{Committed, Cursor, Draft, Entry, OperationId, Place, Reading, ServerId, Store};

/// A database with a log of its own.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) schema: String,
    pub(crate) store: Postgres,
    /// A connection of somebody else.
    pub(crate) other: Client,
    /// Databases of neighbours.
    others: Mutex<Vec<String>>,
}

/// A transaction of another database of the cluster that has an id, and ends when this is dropped.
pub(crate) struct Neighbour {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    pub(crate) id: u64,
}

/// What to say to make a commit wait, and to let it go on.
pub(crate) struct SlowCommits {
    pub(crate) insert: String,
    /// Whether one waits.
    pub(crate) waiting: String,
    pub(crate) release: String,
}

fn url() -> Option<String> {
    if let Ok(url) = std::env::var("WELLSPRING_POSTGRES_URL") {
        return Some(url);
    }
    let here = SocketAddr::from(([127, 0, 0, 1], 5432));
    if TcpStream::connect_timeout(&here, Duration::from_secs(2)).is_ok() {
        return Some("postgres://postgres@127.0.0.1/postgres".into());
    }
    assert!(std::env::var_os("CI").is_none(), "no PostgreSQL server to test against");
    println!("skipped: no PostgreSQL server at 127.0.0.1:5432, and WELLSPRING_POSTGRES_URL is not set");
    None
}

/// Runs a test on a database of its own.
pub(crate) async fn on_database(test: impl AsyncFnOnce(&Database)) {
    on_database_with(|builder| builder, test).await;
}

/// The same, connected to in another way.
pub(crate) async fn on_database_with(how: impl FnOnce(PostgresBuilder) -> PostgresBuilder, test: impl AsyncFnOnce(&Database)) {
    let Some(url) = url() else { return };
    let schema = format!("test's \"{}\"", uuid::Uuid::new_v4());
    let other = connect(&url).await;
    let store = how(Postgres::builder(&url).schema(&schema).pool(8)).connect().await.expect("connected");
    let database = Database { url, schema, store, other, others: Mutex::default() };
    let result = AssertUnwindSafe(test(&database)).catch_unwind().await;
    // Also after a panic, with whoever is connected to them.
    let others = std::mem::take(&mut *database.others.lock().expect("no panic"));
    for name in others {
        let dropped = database.other.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        if result.is_ok() {
            dropped.expect("dropped");
        }
    }
    let dropped = database.other.batch_execute(&format!("DROP SCHEMA {} CASCADE", database.quoted())).await;
    if let Err(panic) = result {
        resume_unwind(panic);
    }
    dropped.expect("dropped");
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

pub(crate) fn draft() -> Draft {
    Draft::new(OperationId::new(), ServerId::random(), "test")
}

impl Database {
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    /// Another server on the same log.
    pub(crate) async fn server(&self) -> Postgres {
        Postgres::builder(&self.url).schema(&self.schema).pool(4).connect().await.expect("connected")
    }

    pub(crate) async fn commit(&self) -> Committed {
        self.commit_draft(draft()).await
    }

    pub(crate) async fn commit_draft(&self, draft: Draft) -> Committed {
        let tx = self.store.begin().await.expect("begun");
        self.store.commit(tx, draft).await.expect("committed")
    }

    pub(crate) async fn head(&self) -> Cursor {
        self.store.log().head().await.expect("a head").cursor
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let row = self.other.query_one(&format!("SELECT count(*) FROM {}.{table}", self.quoted()), &[]).await;
        row.expect("counted").get(0)
    }

    /// Begins a transaction in another database.
    pub(crate) async fn neighbour(&self) -> Neighbour {
        let name = format!("other_{}", uuid::Uuid::new_v4().simple());
        self.others.lock().expect("no panic").push(name.clone());
        self.other.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("made");
        let mut config: tokio_postgres::Config = self.url.parse().expect("a url");
        let (client, driver) = config.dbname(&name).connect(NoTls).await.expect("connected");
        let driver = tokio::spawn(driver);
        client.batch_execute("BEGIN; CREATE TABLE held (n int)").await.expect("an id is held");
        let id: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id").get(0);
        Neighbour { client, driver, id: id.parse().expect("a number") }
    }

    /// Makes a table whose rows make a commit wait.
    pub(crate) async fn slow_commits(&self) -> SlowCommits {
        let (s, key) = (self.quoted(), fastrand::i64(1..));
        let make = format!(
            "CREATE TABLE {s}.slow (n int); CREATE FUNCTION {s}.wait() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock({key}); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON {s}.slow DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {s}.wait();
             SELECT pg_advisory_lock({key})"
        );
        self.other.batch_execute(&make).await.expect("made");
        SlowCommits {
            insert: format!("INSERT INTO {s}.slow VALUES (1)"),
            waiting: format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND objsubid = 1
                 AND (classid::int8 << 32) | objid::int8 = {key})"
            ),
            release: format!("SELECT pg_advisory_unlock({key})"),
        }
    }

    /// The session behind a client.
    pub(crate) async fn backend_of(&self, client: &Client) -> i32 {
        client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid").get(0)
    }

    /// Ends a session, and waits until it has ended.
    pub(crate) async fn kill(&self, pid: i32) {
        let ended: bool = self.other.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("killed").get(0);
        assert!(ended, "there was no session {pid}");
        self.until_gone(pid).await;
    }

    /// Waits until a session has ended.
    pub(crate) async fn until_gone(&self, pid: i32) {
        self.until(&format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")).await;
    }

    /// Waits until a query says yes: the database's own state has no event that could be awaited.
    pub(crate) async fn until(&self, query: &str) {
        for _ in 0..2_000 {
            if self.other.query_one(query, &[]).await.expect("asked").get::<_, bool>(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {query}");
    }
}

impl Neighbour {
    /// Ends the transaction and its session.
    pub(crate) async fn leave(self) {
        self.client.batch_execute("COMMIT").await.expect("committed");
        drop(self.client);
        self.driver.await.expect("ended").expect("well");
    }
}

/// One reading that lost nothing.
pub(crate) async fn read(store: &Postgres, cursor: &mut Cursor, most: usize) -> (Vec<Entry>, bool) {
    let reading = store.log().read(cursor, most).await.expect("read");
    let Reading::Entries { entries, cursor: next, more, .. } = reading else { panic!("lost: {reading:?}") };
    *cursor = next;
    (entries, more)
}

pub(crate) async fn read_ids(store: &Postgres, cursor: &mut Cursor) -> Vec<OperationId> {
    read(store, cursor, 1_000).await.0.into_iter().map(|entry| entry.operation).collect()
}

/// Reads until everything below a place was given out: transactions of other tests are in the same database, and may hold it back.
pub(crate) async fn read_until(db: &Database, cursor: &mut Cursor, above: Place) {
    for _ in 0..2_000 {
        let reading = db.store.log().read(cursor, 100).await.expect("read");
        let Reading::Entries { cursor: next, horizon, .. } = reading else { panic!("lost: {reading:?}") };
        *cursor = next;
        if horizon > above {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never above {above:?}: {cursor:?}");
}
