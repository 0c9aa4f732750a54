//! SQLite: each server has its own connections to one file.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use tempfile::TempDir;
use wellspring_commands::sqlite::{Sqlite, Write};
use wellspring_commands::{Op, OperationId, OperationLog, ServerId, Store};

use crate::backend::Backend;
use crate::cluster::Refused;

pub(crate) struct OnSqlite {
    folder: TempDir,
}

impl OnSqlite {
    pub(crate) fn store(&self) -> Sqlite {
        Sqlite::open(self.folder.path().join("rows.db")).expect("opened")
    }

    pub(crate) async fn new() -> OnSqlite {
        let backend = OnSqlite { folder: tempfile::tempdir().expect("a folder") };
        let connection = rusqlite::Connection::open(backend.folder.path().join("rows.db")).expect("opened");
        connection.execute_batch("CREATE TABLE rows (key TEXT PRIMARY KEY, value TEXT NOT NULL)").expect("created");
        backend
    }
}

pub(crate) fn put(op: &Op<Sqlite>, key: String, value: String) {
    op.write(move |write: &mut Write<'_>| {
        let sql = "INSERT INTO rows VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2";
        write.execute(sql, params![key, value]).map(drop)
    });
}

pub(crate) async fn get(store: &Sqlite, key: &str) -> Option<String> {
    let key = key.to_owned();
    let read = move |connection: &rusqlite::Connection| {
        connection.query_row("SELECT value FROM rows WHERE key = ?1", [key], |row| row.get(0)).optional()
    };
    store.read(read).await.expect("read")
}

impl Backend for OnSqlite {
    type Store = Sqlite;

    async fn create() -> Option<OnSqlite> {
        Some(OnSqlite::new().await)
    }

    async fn open(&self) -> Sqlite {
        self.store()
    }

    async fn put(op: &Op<Sqlite>, key: String, value: String) -> Result<(), Refused> {
        put(op, key, value);
        Ok(())
    }

    async fn get(store: &Sqlite, key: &str) -> Option<String> {
        get(store, key).await
    }

    async fn append_raw(&self, body: &str) {
        let connection = rusqlite::Connection::open(self.folder.path().join("rows.db")).expect("opened");
        let sql = "INSERT INTO wellspring_operations (id, origin, at, body) VALUES (?1, ?2, 0, ?3)";
        let id = |bits: u128| bits.to_be_bytes().to_vec();
        connection.execute(sql, params![id(OperationId::new().as_u128()), id(ServerId::random().as_u128()), body]).expect("appended");
    }

    async fn trim(&self) {
        self.store().log().trim(Duration::ZERO).await.expect("trimmed");
    }
}
