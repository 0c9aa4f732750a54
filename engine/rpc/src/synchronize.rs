//! Waiting until what is known here is true.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

use crate::end::End;
use crate::remote::{CallError, Connected, Remote};

/// The values of a remote that were given out before they were known to be true, in the order in which they were.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, Arc<End>>,
}

/// One of them. Dropped when it is known, and its reader was told: then whoever waits for that goes on.
#[derive(Debug)]
pub(crate) struct Waiting {
    of: Arc<Unconfirmed>,
    number: u64,
    pub(crate) known: Arc<End>,
}

impl Unconfirmed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Unconfirmed>) -> Waiting {
        let mut state = self.state();
        state.last += 1;
        let (number, known) = (state.last, Arc::<End>::default());
        state.waiting.insert(number, known.clone());
        Waiting { of: self.clone(), number, known }
    }

    /// How many there were so far.
    fn last(&self) -> u64 {
        self.state().last
    }

    /// The first of them.
    fn first(&self) -> Option<Arc<End>> {
        self.state().waiting.first_key_value().map(|(_, known)| known.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.state().waiting.remove(&self.number);
        self.known.tell();
    }
}

/// Why nobody can say that what was read is true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotSynchronized {
    /// It was not known in that time.
    #[error("the other end has not said in time whether what is known here is true")]
    TimedOut,
    /// There is no connection, and there will be none.
    #[error(transparent)]
    Unreachable(#[from] CallError),
}

impl Remote {
    /// How many values are in use here that were given out before they were known to be true, and are not known to be yet.
    pub fn unconfirmed_values(&self) -> usize {
        self.unconfirmed().state().waiting.len()
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connected().borrow() == Connected::Yes
    }

    /// Waits until there is no connection.
    pub(crate) async fn disconnected(&self) {
        // The end of the remote is one, too.
        let _ = self.connected().wait_for(|state| *state != Connected::Yes).await;
    }

    /// Whether there is a connection, on which the other end has said what had ended before it was made.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.is_connected() && self.peer().made.is_reconciled()
    }

    /// Waits until it is.
    pub(crate) async fn caught_up(&self) -> Result<(), CallError> {
        let mut state = self.connected();
        loop {
            let end = state.wait_for(|state| matches!(state, Connected::Yes | Connected::Never)).await;
            if !matches!(end.as_deref(), Ok(Connected::Yes)) {
                return Err(CallError::Unreachable);
            }
            drop(end);
            tokio::select! {
                biased;
                _ = state.changed() => {}
                () = self.peer().made.reconciled() => return Ok(()),
            }
        }
    }

    /// Waits until there is a connection, the other end has said what ended without one, and of every value that was given out here before it was known
    /// to be true it is known: it is, or it is stale here. So a read that starts then gets none that was stale when this was called, unless it is given out
    /// anew from a [cache](crate::Cache).
    ///
    /// It waits as long as there is no connection.
    ///
    /// # Errors
    /// If there is no connection and there will be none.
    pub async fn when_synchronized(&self) -> Result<(), CallError> {
        self.caught_up().await?;
        while let Some(known) = self.unconfirmed().first() {
            known.wait().await;
        }
        Ok(())
    }

    /// Reads what depends on the other process, as often as it takes until nothing was read that is not known to be true.
    ///
    /// It waits first as [`when_synchronized`](Remote::when_synchronized) does, and reads again if anything was given out meanwhile that is not known to be
    /// true, to whomever: who reads what cannot be seen from here. What a link that is dead without anybody knowing would have told is not known.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use wellspring::{AsyncFunction, Engine};
    /// # async fn total_of(remote: wellspring_rpc::Remote, engine: Engine, total: AsyncFunction<u32, u64>) -> Result<(), Box<dyn std::error::Error>> {
    /// let total = remote.synchronized(Duration::from_secs(5), || total.get(&engine, &7)).await??;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotSynchronized`], after the time, or if there is no connection and there will be none. Whoever takes what there is then reads it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn synchronized<R, F: Future<Output = R>>(
        &self,
        within: Duration,
        mut read: impl FnMut() -> F,
    ) -> Result<R, NotSynchronized> {
        let reading = async {
            loop {
                self.when_synchronized().await?;
                let (before, waiting) = (self.unconfirmed().last(), self.unconfirmed_values());
                let value = read().await;
                if waiting == 0 && self.unconfirmed().last() == before {
                    return Ok(value);
                }
            }
        };
        tokio::time::timeout(within, reading).await.unwrap_or(Err(NotSynchronized::TimedOut))
    }
}
