//! Functions of another process as functions of an engine here.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};

use serde::de::DeserializeOwned;
use tokio::time::Instant;
use wellspring::{AsyncFunction, Cx, Engine, Key, RegisterError};

use crate::arguments::ToArguments;
use crate::client_cache::Cache;
use crate::end::End;
use crate::hash::Hash;
use crate::later::{Later, PAUSE, Unsaid};
use crate::lives::Lives;
use crate::made::{Answer, Made};
use crate::remote::{CallError, Remote};
use crate::remoted::{Inner, Place, Remoted, Standing, Task};
use crate::wire::{MethodId, System};

/// A method of another process that becomes a function of an engine: its options, then the engine.
///
/// ```
/// # use wellspring::{AsyncFunction, Engine};
/// # use wellspring_rpc::{Cache, Remote, Remoted, wire::MethodId};
/// # fn define(remote: &Remote, engine: &Engine, cache: &Cache) -> Result<(), Box<dyn std::error::Error>> {
/// let stock: AsyncFunction<(String,), Remoted<u32>> =
///     remote.define("stock", &MethodId::new("IStock.Get:2")?).serve_stale().cache(cache).function(engine)?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is registered before the engine is given"]
pub struct RemoteDefine<K, V> {
    name: String,
    remote: Remote,
    method: MethodId,
    serve_stale: bool,
    cache: Option<Cache>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> fmt::Debug for RemoteDefine<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteDefine { name, method, serve_stale, cache, .. } = self;
        let mut out = f.debug_struct("RemoteDefine");
        out.field("name", name).field("method", method).field("serve_stale", serve_stale).field("cache", cache).finish_non_exhaustive()
    }
}

impl Remote {
    /// Makes a compute method of the other process a function of an engine: its values are cached here, other functions can depend on them, and
    /// they are stale when the other process says so. Reading one that is cached is a lookup like any other.
    ///
    /// A key is the method's arguments, as a tuple. A read without a connection waits for one; see [`define`](Remote::define) for other ways.
    ///
    /// # Errors
    /// If the engine has a function of this name.
    pub fn function<K, V>(
        &self,
        engine: &Engine,
        name: impl Into<String>,
        method: &MethodId,
    ) -> Result<AsyncFunction<K, Remoted<V>>, RegisterError>
    where
        K: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
    {
        self.define(name, method).function(engine)
    }

    /// Begins to define a [`function`](Remote::function), with options.
    pub fn define<K, V>(&self, name: impl Into<String>, method: &MethodId) -> RemoteDefine<K, V> {
        let (name, remote, method) = (name.into(), self.clone(), method.clone());
        RemoteDefine { name, remote, method, serve_stale: false, cache: None, types: PhantomData }
    }
}

impl<K, V> RemoteDefine<K, V>
where
    K: Key + ToArguments,
    V: DeserializeOwned + Send + Sync + 'static,
{
    /// Without a connection, a read of what is stale gets the last value that is known, at once, also if the connection breaks while it waits; and if
    /// there will be no connection any more. So does one whose call takes longer than [it may](crate::CallOptions), or is given up by the other process, as
    /// one does that shuts down. It is [`Unconfirmed`](crate::Freshness::Unconfirmed) then, and what was made of it stays as it is, until the
    /// other process has said what is true: a value that is another is stale here then, with what depends on it.
    ///
    /// A value is known as long as the engine has it, also when it is stale; or a [`cache`](RemoteDefine::cache) has it. Failures are not served. What
    /// is not stale without a connection stays as it is, with this option or not: nobody could say so.
    pub fn serve_stale(mut self) -> Self {
        self.serve_stale = true;
        self
    }

    /// The first read of a key gets what the cache has, at once: [`Unconfirmed`](crate::Freshness::Unconfirmed) until the other process has said what is
    /// true, for which it need not send what is known here. What depends on it is made anew only if it is another.
    ///
    /// What has come since is kept for the next start; failures are not. A key that the engine has evicted is read as if for the first time. For values
    /// without streams.
    pub fn cache(mut self, cache: &Cache) -> Self {
        self.cache = Some(cache.clone());
        self
    }

    /// Registers it with an engine.
    ///
    /// # Errors
    /// If the engine has a function of this name.
    pub fn function(self, engine: &Engine) -> Result<AsyncFunction<K, Remoted<V>>, RegisterError> {
        let RemoteDefine { name, remote, method, serve_stale, cache, .. } = self;
        if !serve_stale && cache.is_none() {
            return following(engine, name, Later::of(&remote), move |_, key: K| {
                let (remote, method) = (remote.clone(), method.clone());
                async move {
                    let (value, end, call) = remote.subscribe(Instant::now(), &method, &key).await?;
                    Ok((value, end, Some(call)))
                }
            });
        }
        let (own, how) = (Arc::<Own<K, V>>::default(), Arc::new(How { remote, method, serve_stale, cache }));
        let mine = own.clone();
        // The same value given once more changes nothing.
        let define = engine.define(name).cut_off_by(|old: &Remoted<V>, new| Arc::ptr_eq(&old.0, &new.0));
        let function = define.async_function(move |_, key: K| how.clone().compute(Attempt::begin(&mine, key)))?;
        // It is set once.
        let _ = own.function.set(function.clone());
        Ok(function)
    }
}

/// A value, or what was failed with; its end; and what hears of that, while somebody has it.
pub(crate) type Subscribed<V> = (Result<V, CallError>, Arc<End>, Option<Made>);

/// A function of an engine here whose values come from elsewhere, each until its end.
pub(crate) fn following<K, V, S, F>(
    engine: &Engine,
    name: impl Into<String>,
    later: Later,
    subscribe: S,
) -> Result<AsyncFunction<K, Remoted<V>>, RegisterError>
where
    K: Key,
    V: Send + Sync + 'static,
    S: Fn(Cx, K) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Subscribed<V>, Unsaid>> + Send + 'static,
{
    let own = Arc::<Own<K, V>>::default();
    let mine = own.clone();
    let function = engine.async_function(name, move |cx, key: K| {
        let subscribed = subscribe(cx, key.clone());
        // Nothing of before is of use.
        let (attempt, _) = Attempt::begin(&mine, key);
        let later = later.clone();
        async move {
            match subscribed.await {
                Ok((Err(error), end, _)) if !is_kept(&error) => attempt.pass(Unsaid { error, sooner: Some(end) }, &later),
                Ok((value, end, call)) => attempt.linked(Inner::new(value, None, Standing::Live { end: end.clone(), call }), end),
                Err(unsaid) => attempt.pass(unsaid, &later),
            }
        }
    })?;
    // It is set once.
    let _ = own.function.set(function.clone());
    Ok(function)
}

/// Whether a failure is the value of a method, until its end.
fn is_kept(error: &CallError) -> bool {
    matches!(error, CallError::Failed(failure) if !failure.is_cancelled())
}

/// Whether a failure says nothing of the value: the other end has given the call up, again and again, as one does that shuts down; or it is of the call.
/// What was known is as good as before.
fn is_silent(error: &CallError) -> bool {
    match error {
        CallError::Failed(failure) => failure.is_cancelled(),
        CallError::Stale | CallError::TimedOut(_) | CallError::NotConnected(_) => true,
        _ => false,
    }
}

/// The function, for what happens to its values, and which of them are the last. Its body has it, as bodies have the functions that they read: they go
/// with the engine. What is under way or has come does not keep it alive.
struct Own<K, V> {
    lives: Lives<K, V>,
    function: OnceLock<AsyncFunction<K, Remoted<V>>>,
}

impl<K: Key, V> Default for Own<K, V> {
    fn default() -> Own<K, V> {
        Own { lives: Lives::default(), function: OnceLock::new() }
    }
}

/// A method with options.
struct How {
    remote: Remote,
    method: MethodId,
    serve_stale: bool,
    cache: Option<Cache>,
}

/// What the other process has said.
enum Said<V> {
    /// The value is the one that is known.
    Same { known: Arc<Inner<V>>, end: Arc<End>, call: Made },
    /// It is this one, or a failure.
    Is(Arc<Inner<V>>, Arc<End>),
    /// Nothing that can be kept.
    Nothing(CallError),
}

type Asking = Pin<Box<dyn Future<Output = Result<Answer, CallError>> + Send>>;

/// A generation of a key. It does not keep the function alive: the value has the call, and the call what runs at its end.
struct At<K: Key, V: Send + Sync + 'static> {
    own: Weak<Own<K, V>>,
    key: K,
    number: u64,
}

impl<K: Key, V: Send + Sync + 'static> Place for At<K, V> {
    fn number(&self) -> u64 {
        self.number
    }

    fn is_last(&self) -> bool {
        self.own.upgrade().is_some_and(|own| own.lives.is(&self.key, self.number))
    }

    fn leave(&self, watched: bool) {
        if let Some(own) = self.own.upgrade()
            && own.lives.leave(&self.key, self.number)
            && watched
        {
            own.invalidate(&self.key);
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> At<K, V> {
    /// The value is stale, unless there is a newer one in its place.
    fn end(&self) {
        if let Some(own) = self.own.upgrade()
            && own.lives.is(&self.key, self.number)
        {
            own.invalidate(&self.key);
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> Own<K, V> {
    fn invalidate(&self, key: &K) {
        if let Some(function) = self.function.get() {
            function.invalidate(key);
        }
    }
}

/// A generation under way: if it ends without a value, that is said.
struct Attempt<K: Key, V: Send + Sync + 'static> {
    at: At<K, V>,
    /// There is a value, whose place says when it is gone.
    is_kept: bool,
}

impl<K: Key, V: Send + Sync + 'static> Drop for Attempt<K, V> {
    fn drop(&mut self) {
        if !self.is_kept
            && let Some(own) = self.at.own.upgrade()
        {
            own.lives.give_up(&self.at.key, self.at.number);
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> Attempt<K, V> {
    /// With the value of before, if that is still there.
    fn begin(own: &Arc<Own<K, V>>, key: K) -> (Attempt<K, V>, Option<Arc<Inner<V>>>) {
        let (number, known) = own.lives.begin(&key);
        (Attempt { at: At { own: Arc::downgrade(own), key, number }, is_kept: false }, known)
    }

    fn at(&self) -> At<K, V> {
        At { own: self.at.own.clone(), key: self.at.key.clone(), number: self.at.number }
    }

    fn place(&self) -> Box<dyn Place> {
        Box::new(self.at())
    }

    /// Whoever asks gets it for a while, and whoever asks then asks again.
    fn pass(mut self, unsaid: impl Into<Unsaid>, later: &Later) -> Remoted<V> {
        let Unsaid { error, sooner } = unsaid.into();
        let (at, ended) = (self.at(), self.at());
        if let Some(sooner) = &sooner {
            sooner.then(move || ended.end());
        }
        later.then(&error, sooner, move || at.end());
        let value = Inner::new(Err(error), None, Standing::Passing);
        // It has its place until then.
        value.place(self.place());
        self.is_kept = true;
        Remoted(value)
    }

    /// A value that has its call.
    fn linked(self, value: Arc<Inner<V>>, end: Arc<End>) -> Remoted<V> {
        value.place(self.place());
        self.watched(value, &end)
    }

    /// The value that is known, by another call.
    fn again(self, value: Arc<Inner<V>>, end: Arc<End>, call: Made) -> Remoted<V> {
        value.bind(self.place(), || Standing::Live { end: end.clone(), call: Some(call) });
        self.watched(value, &end)
    }

    /// One that was replaced here before has a newer one in its place.
    fn watched(self, value: Arc<Inner<V>>, end: &End) -> Remoted<V> {
        let at = self.at();
        let kept = self.keep(value);
        end.then(move || at.end());
        kept
    }

    fn keep(mut self, value: Arc<Inner<V>>) -> Remoted<V> {
        // Those without a hash are of no use to the next.
        if value.hash.is_some()
            && let Some(own) = self.at.own.upgrade()
        {
            own.lives.keep(&self.at.key, self.at.number, &value);
        }
        self.is_kept = true;
        Remoted(value)
    }
}

impl How {
    fn asking(&self, written: Arc<[u8]>, known: Option<Hash>) -> Asking {
        let (remote, method) = (self.remote.clone(), self.method.clone());
        Box::pin(async move { remote.ask(Instant::now(), &method, || Ok(written.to_vec()), known).await })
    }

    /// As that, where nobody waits: the times that calls may take are for those who do.
    fn looking(&self, written: Arc<[u8]>, known: Option<Hash>) -> Asking {
        let (remote, method) = (self.remote.clone(), self.method.clone());
        Box::pin(async move { remote.asking(&method, || Ok(written.to_vec()), known).await })
    }

    /// A generation.
    async fn compute<K, V>(self: Arc<Self>, (attempt, mut known): (Attempt<K, V>, Option<Arc<Inner<V>>>)) -> Remoted<V>
    where
        K: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
    {
        let written: Arc<[u8]> = match self.remote.written(&attempt.at.key) {
            Ok(written) => written.into(),
            Err(error) => return attempt.pass(error, &Later::of(&self.remote)),
        };
        let cached_as = self.cache.as_ref().map(|cache| cache.key(self.remote.peer().format, &self.method, &written));
        let question = Question { how: self.clone(), written, cached_as };
        // What has come in the place of one that was given out before it was known to be true.
        if let Some(new) = known.as_ref().and_then(|known| known.successor()) {
            match new.end() {
                Some(end) if !end.has_come() => return attempt.linked(new, end),
                _ => known = Some(new),
            }
        }
        if known.is_none()
            && let Some(cached) = question.cached()
        {
            let looking = question.looking(cached.hash);
            return question.doubt(attempt, cached, looking);
        }
        let known = known.filter(|known| known.value.is_ok() && known.hash.is_some());
        let hash = known.as_ref().and_then(|known| known.hash);
        let mut asking = question.asking(hash);
        let answer = match &known {
            Some(known) if self.serve_stale => tokio::select! {
                biased;
                answer = &mut asking => answer,
                () = self.remote.disconnected() => return question.doubt(attempt, known.clone(), asking),
            },
            _ => asking.await,
        };
        match (question.said(answer, known.as_ref()), known) {
            (Said::Same { known, end, call }, _) => attempt.again(known, end, call),
            (Said::Is(value, end), _) => attempt.linked(value, end),
            (Said::Nothing(CallError::Unreachable), Some(known)) if self.serve_stale => {
                known.bind(attempt.place(), || Standing::Lost);
                attempt.keep(known)
            }
            (Said::Nothing(error), Some(known)) if self.serve_stale && is_silent(&error) => {
                let looking = question.looking(hash);
                question.doubt(attempt, known, looking)
            }
            (Said::Nothing(error), _) => attempt.pass(error, &Later::of(&self.remote)),
        }
    }
}

/// What is asked for a key, and where the answer is kept.
struct Question {
    how: Arc<How>,
    written: Arc<[u8]>,
    /// In the cache, if there is one.
    cached_as: Option<Arc<[u8]>>,
}

impl Question {
    fn asking(&self, known: Option<Hash>) -> Asking {
        self.how.asking(self.written.clone(), known)
    }

    fn looking(&self, known: Option<Hash>) -> Asking {
        self.how.looking(self.written.clone(), known)
    }

    /// What the cache has.
    fn cached<V: DeserializeOwned>(&self) -> Option<Arc<Inner<V>>> {
        let (cache, key) = (self.how.cache.as_ref()?, self.cached_as.as_ref()?);
        let (arguments, hash) = cache.get(key)?;
        match self.how.remote.read(System::Ok, &arguments) {
            Ok(value) => Some(Inner::new(Ok(value), Some(hash), Standing::Passing)),
            Err(_) => {
                // Without the reason, which may quote the result.
                tracing::debug!(target: "wellspring::rpc", method = self.how.method.name(), "a cached result cannot be read: it is forgotten");
                cache.remove(key.clone());
                None
            }
        }
    }

    /// What an answer says, of which the cache is told.
    fn said<V: DeserializeOwned>(&self, answer: Result<Answer, CallError>, known: Option<&Arc<Inner<V>>>) -> Said<V> {
        let Answer { call: kind, arguments, end, made: call } = match answer {
            Ok(answer) => answer,
            Err(error) => return Said::Nothing(error),
        };
        let hash = (kind == System::Ok).then(|| Hash::of(&arguments));
        // Not every server looks at what is known.
        if let Some(known) = known.filter(|known| kind == System::Match || (hash.is_some() && hash == known.hash)) {
            return Said::Same { known: known.clone(), end, call };
        }
        let value = self.how.remote.read(kind, &arguments);
        if let (Some(cache), Some(key)) = (&self.how.cache, &self.cached_as) {
            match (&value, &hash) {
                (Ok(_), Some(hash)) => cache.set(key.clone(), hash, &arguments),
                (Err(error), _) if is_silent(error) => {}
                _ => cache.remove(key.clone()),
            }
        }
        match value {
            Err(error) if !is_kept(&error) => Said::Nothing(error),
            value => Said::Is(Inner::new(value, hash, Standing::Live { end: end.clone(), call: Some(call) }), end),
        }
    }

    /// A value that is given out before it is known to be true, and looked into meanwhile.
    fn doubt<K, V>(self, attempt: Attempt<K, V>, value: Arc<Inner<V>>, asking: Asking) -> Remoted<V>
    where
        K: Key + ToArguments,
        V: DeserializeOwned + Send + Sync + 'static,
    {
        let remote = self.how.remote.clone();
        if value.bind(attempt.place(), || Standing::Unconfirmed { waiting: remote.unconfirmed().begin(), task: None }) {
            let at = attempt.at();
            let number = at.number;
            let look = look_into(Looking { at, value: Arc::downgrade(&value), has_begun: false }, self, asking);
            value.looked_into(number, Task(remote.runtime().spawn(look).abort_handle()));
        }
        attempt.keep(value)
    }
}

/// Whoever looks into a value. If it comes to no end (what reads values is the user's, and may panic), the next read meets that; if it does not begin,
/// its runtime is gone, and nobody else looks either.
struct Looking<K: Key, V: Send + Sync + 'static> {
    at: At<K, V>,
    value: Weak<Inner<V>>,
    has_begun: bool,
}

impl<K: Key, V: Send + Sync + 'static> Looking<K, V> {
    /// What is known now. Whoever waits for that goes on when it has been told to the graph.
    fn ends(&self, standing: Standing<V>) {
        let Some(value) = self.value.upgrade() else { return };
        let is_stale = matches!(standing, Standing::Replaced(_));
        let before = value.turn(self.at.number, standing);
        if is_stale && before.is_ok() {
            self.at.end();
        }
    }
}

impl<K: Key, V: Send + Sync + 'static> Drop for Looking<K, V> {
    fn drop(&mut self) {
        self.ends(if self.has_begun { Standing::Replaced(None) } else { Standing::Lost });
    }
}

/// Asks until it is known whether a value is true.
async fn look_into<K, V>(mut looking: Looking<K, V>, question: Question, mut asking: Asking)
where
    K: Key + ToArguments,
    V: DeserializeOwned + Send + Sync + 'static,
{
    looking.has_begun = true;
    loop {
        let answer = asking.await;
        let Some(known) = looking.value.upgrade() else { return };
        match question.said(answer, Some(&known)) {
            Said::Same { end, call, .. } => {
                looking.ends(Standing::Live { end: end.clone(), call: Some(call) });
                end.then(move || looking.at.end());
            }
            Said::Is(value, _) => looking.ends(Standing::Replaced(Some(value))),
            Said::Nothing(error) if is_silent(&error) => {
                asking = question.looking(known.hash);
                drop(known);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Said::Nothing(CallError::Unreachable) => looking.ends(Standing::Lost),
            // The next read meets it.
            Said::Nothing(_) => looking.ends(Standing::Replaced(None)),
        }
        return;
    }
}
