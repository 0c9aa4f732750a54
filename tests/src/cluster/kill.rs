//! Dying at a chosen step of a command, with the crate under test as it is: in the wrappers around its store and its hints.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wellspring_commands::{
    CommandId, CommitError, Committed, Consumers, Doubt, Draft, EventQueue, JournalEntry, OperationLog, Store, StoreError, Verdict, Wakeup,
};

/// Where a member can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// The transaction has not begun.
    BeforeBegin,
    /// It has begun.
    AfterBegin,
    /// In the handler, before it writes.
    InHandler,
    /// Between two statements of the handler's.
    BetweenWrites,
    /// All is written.
    BeforeCommit,
    /// Some time after the commit has begun: before it, within it or after it.
    Committing,
    /// It is committed and not applied here.
    AfterCommit,
    /// It is applied here and nobody was told.
    BeforeNotify,
    /// Others were told.
    AfterNotify,
    /// The caller would get its reply now.
    BeforeReply,
}

impl Step {
    /// In the order in which a command comes to them.
    pub const ALL: [Step; 10] = [
        Step::BeforeBegin,
        Step::AfterBegin,
        Step::InHandler,
        Step::BetweenWrites,
        Step::BeforeCommit,
        Step::Committing,
        Step::AfterCommit,
        Step::BeforeNotify,
        Step::AfterNotify,
        Step::BeforeReply,
    ];

    /// Whether a command is committed that died there, if that is certain.
    pub fn commits(self) -> Option<bool> {
        match self {
            Step::BeforeBegin | Step::AfterBegin | Step::InHandler | Step::BetweenWrites | Step::BeforeCommit => Some(false),
            Step::Committing => None,
            Step::AfterCommit | Step::BeforeNotify | Step::AfterNotify | Step::BeforeReply => Some(true),
        }
    }
}

/// Says where this process dies, and where it waits.
#[derive(Clone, Debug, Default)]
pub struct Switch {
    armed: Arc<Mutex<Option<(Step, Duration)>>>,
    gate: Arc<watch::Sender<Gate>>,
}

/// Where handlers wait in the midst of their transaction.
#[derive(Debug, Default)]
struct Gate {
    key: Option<String>,
    waiting: bool,
}

impl Switch {
    /// Handlers that have written a row wait; or none any more.
    pub fn hold(&self, key: Option<String>) {
        self.gate.send_modify(|gate| *gate = Gate { key, waiting: false });
    }

    /// Waits until a handler waits.
    pub async fn held(&self) {
        // The sender is here.
        let _ = self.gate.subscribe().wait_for(|gate| gate.waiting).await;
    }

    /// A handler has written a row.
    pub async fn pass(&self, key: &str) {
        let is_held = |gate: &Gate| gate.key.as_deref() == Some(key);
        if is_held(&self.gate.borrow()) {
            self.gate.send_modify(|gate| gate.waiting = true);
            // The sender is here.
            let _ = self.gate.subscribe().wait_for(|gate| !is_held(gate)).await;
        }
    }

    /// At the next time it comes to the step.
    pub fn arm(&self, step: Step, after: Duration) {
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, after));
    }

    fn armed(&self, step: Step) -> Option<Duration> {
        let armed = *self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        armed.filter(|(at, _)| *at == step).map(|(_, after)| after)
    }

    /// This process is at a step.
    pub fn reach(&self, step: Step) {
        if self.armed(step).is_some() {
            die();
        }
    }

    /// This process begins a step in the midst of which it may die. On a thread: what it does meanwhile must not be held up.
    pub fn enter(&self, step: Step) {
        if let Some(after) = self.armed(step) {
            std::thread::spawn(move || {
                std::thread::sleep(after);
                die();
            });
        }
    }
}

/// `kill -9` of this process by itself: no destructor, no buffer, no hook runs any more.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// A store during whose steps the process may die.
#[derive(Clone, Debug)]
pub struct Killing<S> {
    inner: S,
    switch: Switch,
    wakeup: Arc<dyn Wakeup>,
}

impl<S> Killing<S> {
    /// Around a store, with hints in the place of its own.
    pub fn new(inner: S, switch: Switch, wakeup: Arc<dyn Wakeup>) -> Killing<S> {
        Killing { inner, switch, wakeup }
    }
}

impl<S: Store> Store for Killing<S> {
    type Tx = S::Tx;

    async fn begin(&self) -> Result<S::Tx, StoreError> {
        self.switch.reach(Step::BeforeBegin);
        let tx = self.inner.begin().await?;
        self.switch.reach(Step::AfterBegin);
        Ok(tx)
    }

    async fn commit(&self, tx: S::Tx, draft: Draft) -> Result<Committed, CommitError> {
        self.switch.reach(Step::BeforeCommit);
        self.switch.enter(Step::Committing);
        let committed = self.inner.commit(tx, draft).await?;
        self.switch.reach(Step::AfterCommit);
        Ok(committed)
    }

    async fn verify(&self, doubt: &Doubt) -> Result<Verdict, StoreError> {
        self.inner.verify(doubt).await
    }

    async fn journaled(&self, id: &CommandId) -> Result<Option<JournalEntry>, StoreError> {
        self.inner.journaled(id).await
    }

    fn is_transient(&self, error: &(dyn Error + 'static)) -> bool {
        self.inner.is_transient(error)
    }

    async fn trim_journal(&self, keep: Duration) -> Result<u64, StoreError> {
        self.inner.trim_journal(keep).await
    }

    fn log(&self) -> Arc<dyn OperationLog> {
        self.inner.log()
    }

    fn wakeup(&self) -> Arc<dyn Wakeup> {
        self.wakeup.clone()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.inner.consumers()
    }

    fn events(&self) -> Arc<dyn EventQueue> {
        self.inner.events()
    }
}
