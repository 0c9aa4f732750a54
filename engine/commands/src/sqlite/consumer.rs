//! Named consumers: an OS file lock says who is one, and an epoch in the database makes sure.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_128;

use super::{Sqlite, blocking};
use crate::consumer::{Consumers, Hold};
use crate::log::BoxFuture;
use crate::position::Cursor;
use crate::store_error::{StoreError, StoreErrorKind};

const HOLDING: &str = "holding a consumer's name";

/// First and last pause between two attempts at a name that another process holds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(80));

impl Consumers for Sqlite {
    fn try_hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Hold>>, StoreError>> {
        Box::pin(async move {
            let path = lock_path(&self.0.opener.path, name);
            let given_up = self.0.given_up.clone();
            // If this future is dropped here, the lock goes with the file that nobody receives.
            let Some(lock) = blocking(move || Lock::take(&path, given_up)).await?? else { return Ok(None) };
            let owned = name.to_owned();
            let work = move |connection: &rusqlite::Connection| {
                let sql = "INSERT INTO wellspring_consumers (name, epoch) VALUES (?1, 1)
                           ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1 RETURNING epoch";
                let epoch = connection.prepare_cached(sql)?.query_row([owned], |row| row.get(0))?;
                // The lock is held for as long as the epoch may still be raised: it would be raised over that of the next holder.
                Ok((epoch, lock))
            };
            let (epoch, lock) = self.0.writer.write(HOLDING, Box::new(work)).await?;
            Ok(Some(Box::new(Held { sqlite: self.clone(), name: name.into(), epoch, _lock: lock }) as Box<dyn Hold>))
        })
    }

    /// The operating system can wait for a lock only on a thread, which nobody could call back: so it is tried again and again, at once
    /// when a holder of this process gives up, and within 80 ms when one of another process does.
    fn hold<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn Hold>, StoreError>> {
        Box::pin(async move {
            let mut pause = PAUSE.0;
            loop {
                let mut given_up = pin!(self.0.given_up.notified());
                // Before the attempt: what is given up right after it is heard.
                given_up.as_mut().enable();
                if let Some(held) = self.try_hold(name).await? {
                    return Ok(held);
                }
                pause = match tokio::time::timeout(pause, given_up).await {
                    Ok(()) => PAUSE.0,
                    Err(_) => (pause * 2).min(PAUSE.1),
                };
            }
        })
    }
}

/// A locked file. The lock ends with it, or with the process.
struct Lock {
    file: Option<File>,
    given_up: Arc<Notify>,
}

impl Lock {
    /// Two of one process exclude each other like any two: each has the file open for itself.
    fn take(path: &Path, given_up: Arc<Notify>) -> Result<Option<Lock>, StoreError> {
        let file = File::options().create(true).append(true).open(path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file: Some(file), given_up })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(self.file.take());
        self.given_up.notify_waiters();
    }
}

fn refused(error: std::io::Error) -> StoreError {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::with(kind, HOLDING, error)
}

/// The file beside the database that stands for a name. Capital letters are encoded too, since some file systems do not tell them from
/// small ones; a long name is replaced by its digest, since they do not take it.
fn lock_path(database: &Path, name: &str) -> PathBuf {
    const LONGEST: usize = 120;
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    if encoded.len() > LONGEST {
        encoded = format!("%%{:032x}", xxh3_128(name.as_bytes()));
    }
    let mut file = OsString::from(database);
    file.push(format!("-{encoded}.consumer"));
    PathBuf::from(file)
}

/// A name that is held.
struct Held {
    sqlite: Sqlite,
    name: Arc<str>,
    epoch: i64,
    _lock: Lock,
}

impl Hold for Held {
    fn cursor(&self) -> BoxFuture<'_, Result<Option<Cursor>, StoreError>> {
        let name = self.name.clone();
        Box::pin(self.sqlite.look("reading a consumer's cursor", move |connection| {
            let mut find = connection.prepare_cached("SELECT cursor FROM wellspring_consumers WHERE name = ?1")?;
            let cursor: Option<Option<String>> = find.query_row([&name], |row| row.get(0)).optional()?;
            Ok(cursor.flatten().map(Cursor::new))
        }))
    }

    fn save<'a>(&'a self, cursor: &'a Cursor) -> BoxFuture<'a, Result<(), StoreError>> {
        const SAVING: &str = "saving a consumer's cursor";
        let (name, cursor, epoch) = (self.name.clone(), cursor.as_str().to_owned(), self.epoch);
        Box::pin(async move {
            let work = move |connection: &rusqlite::Connection| {
                let sql = "UPDATE wellspring_consumers SET cursor = ?3 WHERE name = ?1 AND epoch = ?2";
                connection.prepare_cached(sql)?.execute(params![name, epoch, cursor])
            };
            match self.sqlite.0.writer.write(SAVING, Box::new(work)).await? {
                0 => Err(StoreError::new(StoreErrorKind::Fenced, SAVING)),
                _ => Ok(()),
            }
        })
    }

    /// Never: a file lock is not taken away from a living process.
    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("name", &self.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_are_different_files_in_one_folder() {
        let names = ["a", "A", "a/b", "a%2fb", "..", "", "é", &"x".repeat(500), &"x".repeat(501)];
        let mut paths: Vec<_> = names.iter().map(|name| lock_path(Path::new("/data/shop.db"), name)).collect();
        for path in &paths {
            let file = path.file_name().and_then(|file| file.to_str()).expect("a file");
            assert_eq!(path.parent(), Some(Path::new("/data")), "{file}");
            assert!(file.len() < 200 && file == file.to_lowercase(), "{file}");
        }
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), names.len());
    }
}
