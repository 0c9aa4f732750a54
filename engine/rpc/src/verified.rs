//! Whether a value that may be stale is.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use wellspring::{Computed, Invalidated, Value};

use crate::calls::{self, Notice};
use crate::peer::Peer;

/// The value as it is now, if it is what was given out.
pub(crate) type Verifying = Pin<Box<dyn Future<Output = Option<Arc<dyn Given>>> + Send>>;

/// A value that was given out, whatever its type.
pub(crate) trait Given: Send + Sync {
    /// Its end, which comes when it may be stale.
    fn end(&self) -> Invalidated;

    /// Brings it up to date; as it is now, if it is what was given out.
    fn verify(&self) -> Verifying;
}

impl<V: Value> Given for Computed<V> {
    fn end(&self) -> Invalidated {
        self.invalidated()
    }

    fn verify(&self) -> Verifying {
        let before = self.clone();
        Box::pin(async move {
            // A fault is a change, too.
            let now = before.update().await.ok()?;
            before.is_consistent().then(|| Arc::new(now) as Arc<dyn Given>)
        })
    }
}

/// A value whose caller hears of its end only when it has changed.
pub(crate) struct Verified {
    given: Arc<dyn Given>,
    /// Until it may be stale.
    _end: Invalidated,
    stage: Stage,
}

/// How far it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It holds, or whoever hears that it may not has not looked yet.
    Holds,
    /// Somebody brings it up to date.
    Asked,
    /// It is another.
    Changed,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Verified {
    /// Watches the end of a value; whether that has come already.
    pub(crate) fn watch(given: Arc<dyn Given>, notice: Notice) -> (Verified, bool) {
        let mut end = given.end();
        let over = calls::arm(&mut end, notice);
        (Verified { given, _end: end, stage: Stage::Holds }, over)
    }

    /// It may be stale.
    pub(crate) fn ended(&mut self) -> Known {
        match self.stage {
            Stage::Holds => {
                self.stage = Stage::Asked;
                Known::ToBeAsked(self.given.clone())
            }
            Stage::Asked => Known::NotYet,
            Stage::Changed => Known::Changed,
        }
    }

    /// Whether nobody has heard that it may not.
    pub(crate) fn holds(&self) -> bool {
        self.stage == Stage::Holds
    }

    /// What has become of a value that was brought up to date: that it is the same, with its end of now; or that it is not. Whether it has ended since,
    /// and what is to be dropped when no lock is held.
    pub(crate) fn become_known(
        &mut self,
        given: &Arc<dyn Given>,
        now: &mut Option<Arc<dyn Given>>,
        notice: Notice,
    ) -> (bool, Option<Verified>) {
        if !Arc::ptr_eq(&self.given, given) {
            // Of another call by this id.
            return (false, None);
        }
        match now.take() {
            Some(now) => {
                let (verified, over) = Verified::watch(now, notice);
                (over, Some(std::mem::replace(self, verified)))
            }
            None => {
                self.stage = Stage::Changed;
                (true, None)
            }
        }
    }
}

/// Whether a value that may be stale is.
pub(crate) enum Known {
    Changed,
    /// Somebody is to bring it up to date.
    ToBeAsked(Arc<dyn Given>),
    /// Somebody does.
    NotYet,
}

/// Finds out, in a task: what computes is the user's, and may take its time. To be called when no lock is held.
pub(crate) fn ask(peer: &Arc<Peer>, id: u64, given: Arc<dyn Given>) {
    let mut asking = Asking { peer: Arc::downgrade(peer), id, given, now: None };
    tokio::spawn(async move {
        asking.now = asking.given.verify().await;
        drop(asking);
    });
}

/// Says what was found out when it is dropped: where the user's code panics, that the value is not what it was.
struct Asking {
    peer: Weak<Peer>,
    id: u64,
    given: Arc<dyn Given>,
    now: Option<Arc<dyn Given>>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.upgrade() {
            peer.verified(self.id, &self.given, self.now.take());
        }
    }
}
