//! What keeps a computed state up to date: update, publish, wait for the end, delay, update.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::computed::Computed;
use crate::computed_state::Inner;
use crate::cx::{Ask, Asker, sealed};
use crate::engine::Spawner;
use crate::fault::Fault;
use crate::signal::{First, breathe, first};
use crate::state_error::StateError;
use crate::state_snapshot::Made;
use crate::sync::{Arc, fault};
use crate::value::Value;

/// Keeps a [`ComputedState`](crate::ComputedState) up to date: a future for any executor, or for the engine's own
/// ([`spawn`](UpdateLoop::spawn)). It ends when the state is stopped or the engine is gone; dropping it stops the state at once.
///
/// It holds neither the engine's functions nor the state's handle.
#[must_use = "the state is updated only while this is polled"]
pub struct UpdateLoop {
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
    spawner: Option<Arc<dyn Spawner>>,
}

impl UpdateLoop {
    pub(crate) fn new<T: Value>(state: Arc<Inner<T>>) -> UpdateLoop {
        let spawner = state.function.graph.spawner.clone();
        UpdateLoop { run: Box::pin(run(End(state))), spawner }
    }

    /// Hands it to the engine's spawner.
    ///
    /// # Errors
    /// The loop itself, if the engine has none: see [`EngineBuilder::spawner`](crate::EngineBuilder::spawner).
    pub fn spawn(self) -> Result<(), UpdateLoop> {
        match &self.spawner {
            Some(spawner) => {
                spawner.clone().spawn(self.run);
                Ok(())
            }
            None => Err(self),
        }
    }
}

impl Future for UpdateLoop {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.run.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for UpdateLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdateLoop").finish_non_exhaustive()
    }
}

/// The state ends with its loop, however that ends. The loop's first local: what it awaits is dropped before.
struct End<T: Value>(Arc<Inner<T>>);

impl<T: Value> Drop for End<T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Asks from outside, without an engine's handle: a loop that held one would keep the functions alive that hold its state.
struct Outside(u64);

impl sealed::Sealed for Outside {}

impl Ask for Outside {
    fn asker(&self) -> Asker<'_> {
        Asker { graph: self.0, cx: None, held: false }
    }
}

type Generation<T> = Computed<Arc<Made<T>>>;

async fn run<T: Value>(end: End<T>) {
    let state = &*end.0;
    while !state.is_stopping() {
        // What was asked for before the read begins is answered by it.
        let asked = state.shown.see(|shown| shown.asked);
        let Some(got) = state.update().await else { return };
        let gone = matches!(got, Err(Fault::Gone));
        let generation = got.as_ref().ok().cloned();
        let retries = state.publish(got, asked);
        if gone {
            return;
        }
        if let Some(generation) = generation {
            first(generation.invalidated(), state.called(asked)).await;
        }
        // A delay of nothing must not keep the executor's thread to itself.
        breathe().await;
        if !state.is_called(asked) {
            first(state.delayer.delay(&state.timer, retries), state.called(asked)).await;
        }
    }
}

impl<T: Value> Inner<T> {
    fn is_stopping(&self) -> bool {
        self.shown.see(|shown| shown.stopping)
    }

    /// Whether there is a reason not to wait: a stop, or a call for an update that none has answered.
    fn is_called(&self, asked: u64) -> bool {
        self.shown.see(|shown| shown.stopping || shown.asked > asked)
    }

    fn called(&self, asked: u64) -> impl Future<Output = ()> + use<T> {
        self.shown.until(move |shown| (shown.stopping || shown.asked > asked).then_some(()))
    }

    /// The generation of now; `None` if a stop came and the grace period is over, and then the update is dropped.
    async fn update(&self) -> Option<Result<Generation<T>, Fault>> {
        let mut update = self.function.computed(Outside(self.function.graph.id), &self.id);
        match first(&mut update, self.shown.until(|shown| shown.stopping.then_some(()))).await {
            First::One(got) => Some(got),
            First::Other(()) => match first(&mut update, self.timer.sleep(self.grace)).await {
                First::One(got) => Some(got),
                First::Other(()) => None,
            },
        }
    }

    /// Shows what an update came to; how many transient errors came in a row.
    fn publish(&self, got: Result<Generation<T>, Fault>, asked: u64) -> u32 {
        let (made, generation) = match got {
            Ok(generation) => (generation.value().clone(), Some(generation)),
            // Faults are never cached: nothing will say when to try again, so they pass like transient errors.
            Err(fault) => (Arc::new(Made::error(StateError::from(fault), true)), None),
        };
        // The loop alone replaces it.
        let shown = self.shown.see(|shown| shown.snapshot.clone());
        // What was only verified is the same: nothing new to show.
        let next = match Arc::ptr_eq(&shown.made, &made) && !fault!("verified_is_new") {
            true => shown.renewed(generation),
            false => shown.next(made, generation),
        };
        let retries = next.retries;
        let next = Arc::new(next);
        let old = self.shown.change(|shown| {
            shown.answered = if fault!("answers_early") { shown.asked } else { asked };
            std::mem::replace(&mut shown.snapshot, next)
        });
        drop(old);
        retries
    }
}
