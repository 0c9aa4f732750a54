//! A computed state being defined: its closure, then its options.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use crate::computed_state::{Compute, ComputedState, Computes, Held, Inner, Runs, Shown, next_id};
use crate::cx::Cx;
use crate::delay::{FixedDelay, UpdateDelayer};
use crate::engine::Engine;
use crate::expire::{ErrorKind, ErrorRule, Life};
use crate::fault::RegisterError;
use crate::signal::Signal;
use crate::state_error::StateError;
use crate::state_snapshot::{Made, StateSnapshot};
use crate::states::register_hidden;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Arc, Mutex, Weak, lock};
use crate::update_loop::UpdateLoop;
use crate::value::Value;

/// How long an update under way may go on after a stop.
const GRACE: Duration = Duration::from_secs(10);

/// The closure, which takes the rules about its errors last.
type Ruled<T, E> = dyn FnOnce(Life<E>) -> Arc<Compute<T>> + Send;

/// A computed state being defined: see [`Engine::computed_state`]. Options, then [`build`](DefineState::build).
#[must_use = "there is no state before it is built"]
pub struct DefineState<T: Value, E> {
    engine: Engine,
    initial: Option<T>,
    delayer: Box<dyn UpdateDelayer>,
    grace: Duration,
    life: Life<E>,
    closure: Box<Ruled<T, E>>,
}

impl<T: Value, E> std::fmt::Debug for DefineState<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DefineState").field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl Engine {
    /// A state that computes itself again whenever its value ends: something it has read changed, it was invalidated, or its time is over.
    ///
    /// ```
    /// # use std::{pin::Pin, sync::Arc, task::{Context, Waker}, time::Duration};
    /// # use wellspring::{Cx, Engine, ManualClock, StateError};
    /// # let clock = Arc::new(ManualClock::new());
    /// # let engine = Engine::builder().clock(clock.clone()).build();
    /// let price = engine.mutable_state(100_u64)?;
    /// let seen = price.clone();
    /// let (doubled, updates) = engine
    ///     .computed_state(move |cx: Cx| {
    ///         let price = seen.clone();
    ///         async move { Ok::<_, StateError>(price.get(&cx)? * 2) }
    ///     })
    ///     .initial(0)
    ///     .build()?;
    /// assert_eq!(doubled.value()?, 0);
    /// // updates.spawn(), or on any executor: tokio::spawn(updates), smol::spawn(updates) ..
    /// # let mut updates = updates;
    /// # let mut run = || assert!(Pin::new(&mut updates).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    /// # run();
    /// assert_eq!(doubled.value()?, 200);
    /// price.set(150);                                        // and 32 ms later:
    /// # run();
    /// # run();
    /// # clock.advance(Duration::from_millis(32));
    /// # run();
    /// assert_eq!((doubled.value()?, doubled.snapshot().update_count()), (300, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The closure's errors are anything that becomes a boxed one; [`StateError`]s and [`Fault`](crate::Fault)s stay what they are. It
    /// runs in the engine like any asynchronous body.
    pub fn computed_state<T: Value, E, F>(&self, closure: impl Fn(Cx) -> F + Send + Sync + 'static) -> DefineState<T, E>
    where
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        DefineState {
            engine: self.clone(),
            initial: None,
            delayer: Box::new(FixedDelay::new(Duration::ZERO)),
            grace: GRACE,
            life: Life { errors: Some(ErrorRule::new(Box::new(|_| Some(ErrorKind::Transient)))), ..Life::default() },
            closure: Box::new(move |life| ruled(closure, life)),
        }
    }
}

/// The closure with the rules about its errors.
fn ruled<T: Value, E, F>(closure: impl Fn(Cx) -> F + Send + Sync + 'static, life: Life<E>) -> Arc<Compute<T>>
where
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let life = Arc::new(life);
    Arc::new(move |cx: Cx| {
        let (life, asked) = (life.clone(), cx.clone());
        let run = closure(cx);
        Box::pin(async move {
            let result = run.await;
            // Made from a fault: the engine does not keep it, so that nothing but time leads to another try.
            let faulted = asked.state().is_faulted();
            match result {
                Ok(value) => Made { result: Ok(Arc::new(value)), lives: life.span(None), transient: faulted },
                Err(error) => {
                    let kind = life.errors.as_ref().and_then(|rule| rule.kind(&error));
                    let passes = matches!(kind, Some(ErrorKind::Transient | ErrorKind::RetryAfter(_)));
                    Made { result: Err(StateError::new(error)), lives: life.span(kind), transient: passes || faulted }
                }
            }
        })
    })
}

impl<T: Value, E: 'static> DefineState<T, E> {
    /// What it shows before the first update; without, that is an error ([`StateError::is_initial`]).
    pub fn initial(mut self, value: T) -> Self {
        self.initial = Some(value);
        self
    }

    /// How long it waits between the end of its value and the next update: 32 ms unless set. See [`FixedDelay`],
    /// [`NextTick`](crate::NextTick), [`UiDelay`](crate::UiDelay).
    pub fn delayer(mut self, delayer: impl UpdateDelayer) -> Self {
        self.delayer = Box::new(delayer);
        self
    }

    /// How long an update under way may go on after a stop: 10 s unless set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What its errors are: all transient unless said here. A rule that panics means transient.
    pub fn classify(mut self, kind: impl Fn(&E) -> ErrorKind + Send + Sync + 'static) -> Self {
        if let Some(rule) = &mut self.life.errors {
            rule.classify = Box::new(move |error| Some(kind(error)));
        }
        self
    }

    /// How long errors are kept before they end by themselves: transient ones 1 s and others 30 s unless set.
    pub fn error_delays(mut self, transient: Duration, non_transient: Duration) -> Self {
        if let Some(rule) = &mut self.life.errors {
            (rule.transient, rule.non_transient) = (transient, non_transient);
        }
        self
    }

    /// Its value ends by itself after so long.
    pub fn expire_after(mut self, span: Duration) -> Self {
        self.life.expire_after = Some(span);
        self
    }

    /// The state, and what keeps it up to date.
    ///
    /// # Errors
    /// [`RegisterError::OutOfMemory`], [`RegisterError::TooManyFunctions`]: the first state of a type registers a function, the rest
    /// share it.
    pub fn build(self) -> Result<(ComputedState<T>, UpdateLoop), RegisterError> {
        let engine = &self.engine;
        let runs = engine.states().shared(|| Runs::<T>::new(engine))?;
        let id = next_id(&runs.next);
        let compute = (self.closure)(self.life);
        lock(&runs.computes).insert(id, Arc::downgrade(&compute));
        let snapshot = Arc::new(StateSnapshot::initial(self.initial));
        let inner = Arc::new(Inner {
            function: runs.function.clone(),
            id,
            computes: runs.computes.clone(),
            compute: Mutex::new(Some(compute)),
            delayer: self.delayer,
            grace: self.grace,
            timer: engine.timer(),
            shown: Arc::new(Signal::new(Shown { snapshot, asked: 0, answered: 0, stopping: false, ended: false })),
        });
        let updates = UpdateLoop::new(inner.clone());
        Ok((ComputedState(Arc::new(Held(inner))), updates))
    }
}

impl<T: Value> Runs<T> {
    fn new(engine: &Engine) -> Result<Runs<T>, RegisterError> {
        let computes: Arc<Computes<T>> = Arc::new(Mutex::new(HashMap::default()));
        let function = register_hidden::<T, _>("ComputedState", |name| {
            let computes = computes.clone();
            engine
                .define(name)
                // Each made says itself how long it lives, by its own state's rules.
                .classify(|made: &Arc<Made<T>>| made.lives.map(ErrorKind::RetryAfter))
                .error_delays(Duration::ZERO, Duration::ZERO)
                .async_function(move |cx: Cx, id: u64| {
                    let compute = lock(&computes).get(&id).and_then(Weak::upgrade);
                    async move {
                        Arc::new(match compute {
                            Some(compute) => compute(cx).await,
                            None => Made::error(StateError::stopped(), false),
                        })
                    }
                })
        })?;
        Ok(Runs { function, computes, next: AtomicU64::new(0) })
    }
}
