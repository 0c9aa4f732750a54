//! The connection for everything but hints.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisResult};

use crate::redis::failure::failure;
use crate::store_error::{StoreError, StoreErrorKind};

/// A connection that is made again when it breaks, or when an answer does not come in time.
///
/// The client's own manager only does the former. A peer that is gone without a word leaves a connection on which every call waits in
/// vain until the system gives up resending, which takes a quarter of an hour.
pub(crate) struct Managed {
    client: Client,
    config: ConnectionManagerConfig,
    current: Mutex<Current>,
}

struct Current {
    manager: ConnectionManager,
    /// How many there were before it.
    number: u64,
}

impl Managed {
    pub(crate) async fn open(client: Client, timeout: Duration) -> RedisResult<Managed> {
        let config = ConnectionManagerConfig::new()
            // A call has one time limit, and that is not the client's.
            .set_response_timeout(None)
            .set_connection_timeout(Some(timeout))
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_secs(1))
            // Whoever calls tries again anyway.
            .set_number_of_retries(1);
        let manager = client.get_connection_manager_with_config(config.clone()).await?;
        Ok(Managed { client, config, current: Mutex::new(Current { manager, number: 0 }) })
    }

    /// One call, not for longer than the timeout.
    pub(crate) async fn call<T>(
        &self,
        doing: &str,
        timeout: Duration,
        call: impl AsyncFnOnce(ConnectionManager) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let (manager, number) = {
            let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            (current.manager.clone(), current.number)
        };
        match tokio::time::timeout(timeout, call(manager)).await {
            Ok(result) => result.map_err(|error| failure(doing, error)),
            Err(_) => {
                self.replace(number);
                Err(StoreError::with(StoreErrorKind::Unavailable, doing, "no answer in time"))
            }
        }
    }

    /// The next call makes a connection of its own. Those that are waiting on the old one for an answer keep it until their time is over.
    fn replace(&self, number: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Of many calls that had no answer on one connection the first has done it.
        if current.number != number {
            return;
        }
        match ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            Ok(manager) => *current = Current { manager, number: number + 1 },
            // For a configuration that cannot be, and it has been.
            Err(error) => tracing::debug!(%error, "the connection to Redis is kept"),
        }
    }
}
