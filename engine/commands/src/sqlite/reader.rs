//! Connections for reading, kept for the next read.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::connect::Opener;
use super::fault;
use crate::store_error::StoreError;

/// Connections that are kept while nobody reads.
const KEPT: usize = 8;

pub(crate) struct Readers {
    opener: Arc<Opener>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(crate) fn new(opener: Arc<Opener>) -> Readers {
        Readers { opener, idle: Mutex::default() }
    }

    /// Reads in one snapshot. A connection on which something failed or panicked is not used again.
    pub(crate) fn run<T>(&self, doing: &'static str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.opener.reader().map_err(fault::doing(doing))?,
        };
        let value = snapshot(&connection, work).map_err(fault::doing(doing))?;
        if connection.is_autocommit() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
        Ok(value)
    }
}

fn snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    connection.prepare_cached("BEGIN")?.execute([])?;
    let value = work(connection)?;
    // A closure may have ended the transaction itself: it has seen more than one snapshot then, as it wanted.
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(value)
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}
