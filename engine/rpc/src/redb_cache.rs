//! A file that keeps what a client knows.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::client_cache::{CacheError, Change, ClientCache};

/// Each with its place in the order.
const ENTRIES: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("entries");
/// The oldest first.
const ORDER: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("order");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// In [`NUMBERS`]: the place of the next entry, and the bytes of all.
const NEXT: &str = "next";
const BYTES: &str = "bytes";

/// What an entry takes beside its value and its key twice.
const OVERHEAD: usize = 64;
/// Memory for pages of the file.
const MEMORY: usize = 8 << 20;

/// A [`ClientCache`] in a file of [redb](https://docs.rs/redb), for one process at a time. What was kept outlives a crash of it, of whole writes each.
///
/// Beyond its bytes it forgets what was written first. A file that is damaged, or none of these, is moved to the side (one of them, by the name with
/// `.damaged` behind it) and begun anew.
pub struct RedbCache {
    path: PathBuf,
    most: u64,
    database: Database,
}

impl fmt::Debug for RedbCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbCache").field("path", &self.path).field("most", &self.most).finish_non_exhaustive()
    }
}

impl RedbCache {
    /// Opens a file, or begins one; for so many bytes of keys and results. The file has up to about twice as many.
    ///
    /// All of it is read once, to see that it is what was written.
    ///
    /// # Errors
    /// [`CacheError::InUse`], or what the file system says.
    pub fn open(path: impl Into<PathBuf>, most: u64) -> Result<RedbCache, CacheError> {
        let path = path.into();
        let open = || RedbCache::try_open(&path, most);
        let database = match open() {
            Err(error @ CacheError::Damaged { .. }) => {
                tracing::error!(target: "wellspring::rpc", %error, "the cache of results is moved to the side and begun anew");
                set_aside(&path)?;
                open()?
            }
            opened => opened?,
        };
        Ok(RedbCache { path, most, database })
    }

    fn try_open(path: &Path, most: u64) -> Result<Database, CacheError> {
        guarded(path, || {
            let mut builder = Database::builder();
            builder.set_cache_size(MEMORY).set_check_integrity_on_open(true);
            let mut database = builder.create(path)?;
            let transaction = database.begin_write()?;
            // That they are there, and of these types.
            transaction.open_table(ENTRIES)?;
            transaction.open_table(ORDER)?;
            transaction.open_table(NUMBERS)?;
            transaction.commit()?;
            // Of a time with another size: pages that are free are not given back by themselves.
            if std::fs::metadata(path).is_ok_and(|file| file.len() > most.saturating_mul(3) + (8 << 20)) {
                database.compact()?;
            }
            Ok(database)
        })
    }

    /// What cannot be read now is there no more at the next start.
    fn run<T>(&self, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, CacheError> {
        let ran = guarded(&self.path, run);
        if let Err(CacheError::Damaged { .. }) = &ran
            && let Err(error) = set_aside(&self.path)
        {
            tracing::error!(target: "wellspring::rpc", %error, "the damaged cache cannot be moved to the side");
        }
        ran
    }
}

impl ClientCache for RedbCache {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        self.run(|| {
            let entries = self.database.begin_read()?.open_table(ENTRIES)?;
            let entry = entries.get(key)?;
            Ok(entry.map(|entry| entry.value().1.to_vec()))
        })
    }

    fn write(&self, changes: &[Change]) -> Result<(), CacheError> {
        self.run(|| {
            let transaction = self.database.begin_write()?;
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut order = transaction.open_table(ORDER)?;
                let mut numbers = transaction.open_table(NUMBERS)?;
                let number = |name| Ok::<_, redb::Error>(numbers.get(name)?.map_or(0, |number| number.value()));
                let (mut next, mut bytes) = (number(NEXT)?, number(BYTES)?);
                for Change { key, value } in changes {
                    if let Some(before) = entries.remove(&**key)? {
                        let (place, value) = before.value();
                        bytes = bytes.saturating_sub(size(key, value));
                        order.remove(place)?;
                    }
                    let Some(value) = value.as_deref() else { continue };
                    entries.insert(&**key, (next, value))?;
                    order.insert(next, &**key)?;
                    next += 1;
                    bytes += size(key, value);
                }
                while bytes > self.most
                    && let Some((_, key)) = order.pop_first()?
                {
                    let removed = entries.remove(key.value())?;
                    bytes = bytes.saturating_sub(removed.map_or(0, |removed| size(key.value(), removed.value().1)));
                }
                numbers.insert(NEXT, next)?;
                numbers.insert(BYTES, bytes)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }

    fn clear(&self) -> Result<(), CacheError> {
        self.run(|| {
            let transaction = self.database.begin_write()?;
            transaction.delete_table(ENTRIES)?;
            transaction.delete_table(ORDER)?;
            transaction.delete_table(NUMBERS)?;
            transaction.open_table(ENTRIES)?;
            transaction.commit()?;
            Ok(())
        })
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    (2 * key.len() + value.len() + OVERHEAD) as u64
}

fn set_aside(path: &Path) -> Result<(), CacheError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    std::fs::rename(path, aside).map_err(|source| CacheError::Io { path: path.to_owned(), source })
}

/// With what went wrong in our words. A file that somebody else has written to may have the database panic.
fn guarded<T>(path: &Path, run: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, CacheError> {
    let damaged = |why: String| CacheError::Damaged { path: path.to_owned(), why };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => CacheError::InUse(path.to_owned()),
            redb::Error::Io(source) if source.kind() != io::ErrorKind::InvalidData && source.kind() != io::ErrorKind::UnexpectedEof => {
                CacheError::Io { path: path.to_owned(), source }
            }
            // It has failed before, or is failing in another thread, which has said why.
            error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => CacheError::Other(error.to_string()),
            error => damaged(error.to_string()),
        }),
        Err(_) => Err(damaged("it cannot be read".to_owned())),
    }
}
