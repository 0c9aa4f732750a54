//! Several servers, each of which has a part of the keys.
//!
//! [`Routes`] say where a key is now. A [`Router`] calls there, and calls again elsewhere when that changes. A server that answers for its own keys only
//! guards its methods with [`Owned`].

mod function;
mod owned;
mod reroute;
mod ring;
mod route;
mod routes;
mod servers;
mod ties;

use std::fmt;
use std::future::{Future, ready};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::time::Instant;

use self::routes::Follow;
use self::servers::{Server, Servers};
use self::ties::Ties;
use crate::arguments::ToArguments;
use crate::end::End;
use crate::failure::Failure;
use crate::later::Unsaid;
use crate::outbound::Reply;
use crate::remote::{CallError, Remote, Replica};
use crate::remote_function::Subscribed;
use crate::wire::MethodId;

pub use self::owned::{Entered, Guarded, Owned};
pub use self::ring::{HashRing, RingKey};
pub use self::route::{By, Place, Route, Single};
pub use self::routes::Routes;

/// Calls each key's server. Clones are the same router.
///
/// A server is connected to when it is first called, and let go when no route names it any more, no call and no stream is under way there, and a while
/// has passed.
///
/// What happens when a key moves to another server:
/// - A value that was got ([`compute`](Router::compute), [`function`](Router::function)) ends, as if the server had said that it is stale; the next
///   read goes to the new one.
/// - A call under way is given up, which cancels its body if it still runs, and made at the new server: its body may have run at both
///   ([`call`](Router::call)); or it goes on where it is ([`call_once`](Router::call_once)).
/// - A stream goes on where it is.
///
/// A server that is asked for a key that is not its own says so ([`Failure::is_reroute`]), before anything is done. It is asked again after a short
/// wait, which gets longer, or as soon as the route has changed for the key; so often, until the call fails with [`CallError::Disowned`].
pub struct Router<K>(Arc<Shared<K>>);

struct Shared<K> {
    routes: Routes<K>,
    servers: Servers,
    ties: Ties<K>,
    how: How,
    runtime: Handle,
}

#[derive(Clone, Copy, Debug)]
struct How {
    first: Duration,
    most: Duration,
    tries: u32,
    grace: Duration,
}

/// The server that is asked, if it is not this one.
type Asked = Option<(Arc<str>, Arc<Server>)>;

/// How a [`Router`] goes about its work.
pub struct RouterBuilder<K> {
    routes: Routes<K>,
    servers: Servers,
    how: How,
}

impl<K> Clone for Router<K> {
    fn clone(&self) -> Router<K> {
        Router(self.0.clone())
    }
}

impl<K> fmt::Debug for Router<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { routes, servers, how, .. } = &*self.0;
        f.debug_struct("Router").field("routes", routes).field("servers", servers).field("how", how).finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for RouterBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterBuilder").field("routes", &self.routes).field("how", &self.how).finish_non_exhaustive()
    }
}

impl<K: Clone + Send + Sync + 'static> RouterBuilder<K> {
    /// How long to wait after a server has said first that a key is not its own, and after it has said so often, give or take a quarter; and after how
    /// many times it is not asked again: 100 ms, 5 s and 10 times if nothing is said.
    #[must_use]
    pub fn retry(mut self, first: Duration, most: Duration, tries: u32) -> RouterBuilder<K> {
        self.how = How { first, most: most.max(first), tries: tries.max(1), ..self.how };
        self
    }

    /// How long a server is kept that no route names any more: 10 s if nothing is said.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> RouterBuilder<K> {
        self.how.grace = grace;
        self
    }

    /// Makes it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn build(self) -> Router<K> {
        let RouterBuilder { routes, servers, how } = self;
        let shared = Arc::new(Shared { routes, servers, ties: Ties::new(), how, runtime: Handle::current() });
        let follower: Weak<Shared<K>> = Arc::downgrade(&shared);
        shared.routes.follow(follower);
        Router(shared)
    }
}

impl<K: Clone + Send + Sync + 'static> Router<K> {
    /// By routes. The closure begins to connect to a server whose name it gets; it is asked once for each, until that is let go.
    pub fn builder(routes: &Routes<K>, connect: impl Fn(&str) -> Remote + Send + Sync + 'static) -> RouterBuilder<K> {
        let how = How { first: Duration::from_millis(100), most: Duration::from_secs(5), tries: 10, grace: Duration::from_secs(10) };
        RouterBuilder { routes: routes.clone(), servers: Servers::new(connect), how }
    }

    /// The routes that it goes by.
    pub fn routes(&self) -> &Routes<K> {
        &self.0.routes
    }

    /// How many servers it is connected to, or tries to be.
    pub fn servers(&self) -> usize {
        self.0.servers.len()
    }

    /// Calls a method at the key's server, and waits for its result. If the key moves meanwhile, the call is given up there and made again at the new
    /// server: the method may run more than once, and at the former server, if that does not know yet that it has lost the key, even after it has run at
    /// the new one. What must not be repeated is called [once](Router::call_once), or is a command with an id.
    ///
    /// A call that has a stream among its arguments cannot be made again, and fails then as [`CallError::Unsendable`].
    ///
    /// Dropping the future gives the call up, and tells the server.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Here`] for a key of this process's own.
    pub async fn call<T: DeserializeOwned>(&self, key: &K, method: &MethodId, arguments: impl ToArguments + Sync) -> Result<T, CallError> {
        self.answer(key, method, &arguments, false, || ready(Err(CallError::Here))).await
    }

    /// As [`call`](Router::call), but a call that its server may know of stays there, whatever moves: no change of routes has a method run twice. Only
    /// the server itself can send it elsewhere, by saying that it has done nothing. If the server does not come back, neither does the call: whoever
    /// cannot wait for that sets a time.
    ///
    /// # Errors
    /// As [`call`](Router::call).
    pub async fn call_once<T: DeserializeOwned>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: impl ToArguments + Sync,
    ) -> Result<T, CallError> {
        self.answer(key, method, &arguments, true, || ready(Err(CallError::Here))).await
    }

    /// As [`call`](Router::call); what this process does for keys of its own, the closure does. If the key moves meanwhile, that is dropped.
    ///
    /// # Errors
    /// As [`call`](Router::call).
    pub async fn call_or_here<T, F>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: impl ToArguments + Sync,
        here: impl Fn() -> F + Sync,
    ) -> Result<T, CallError>
    where
        T: DeserializeOwned,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        self.answer(key, method, &arguments, false, || {
            let answer = here();
            async move { Ok(answer.await?) }
        })
        .await
    }

    /// Calls a compute method at the key's server, and waits for its value, which ends when the server says so or the key moves.
    ///
    /// # Errors
    /// See [`CallError`]; [`CallError::Here`] for a key of this process's own.
    pub async fn compute<T: DeserializeOwned>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: impl ToArguments + Sync,
    ) -> Result<Replica<T>, CallError> {
        let mut from = Place::Nowhere;
        let (value, end, call) = self.got(key, method, &arguments, || ready(Err(CallError::Here)), &mut from).await?;
        // A value without a call is this process's own.
        Ok(Replica::new(value?, end, call.ok_or(CallError::Here)?))
    }

    async fn answer<T, F>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: &(impl ToArguments + Sync),
        once: bool,
        here: impl Fn() -> F,
    ) -> Result<T, CallError>
    where
        T: DeserializeOwned,
        F: Future<Output = Result<T, CallError>>,
    {
        let (mut tries, began) = (0, Instant::now());
        loop {
            let (place, server) = self.server(key, &mut tries).await?;
            let answer = if let Some((name, server)) = &server {
                let remote = self.0.servers.remote(name, server);
                let mut asked = remote.asked();
                let call = remote.reply(&mut asked, began, method, remote.written(arguments)?);
                let reply = match self.unless_moved(key, &place, call).await {
                    Some(reply) => reply?,
                    None if once && !asked.withdraw() => remote.rest(began, async { Ok(asked.reply().await) }).await?,
                    None => continue,
                };
                match reply {
                    Reply::Answer { call, arguments, .. } => remote.read(call, &arguments),
                    Reply::Cancelled => Err(CallError::Stale),
                    Reply::Never => Err(CallError::Unreachable),
                }
            } else {
                match self.unless_moved(key, &place, here()).await {
                    Some(answer) => answer,
                    None => continue,
                }
            };
            match answer {
                Err(CallError::Failed(failure)) if failure.is_reroute() => {
                    self.again_in_time(key, &place, &mut tries, &server, began).await?
                }
                answer => return answer,
            }
        }
    }

    /// A value, or why there is none, and in either case its end, which comes if the key moves.
    async fn subscribe<T, F>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: &(impl ToArguments + Sync),
        here: impl Fn() -> F,
    ) -> Result<Subscribed<T>, Unsaid>
    where
        T: DeserializeOwned,
        F: Future<Output = Result<Result<T, CallError>, CallError>>,
    {
        let mut from = Place::Nowhere;
        match self.got(key, method, arguments, here, &mut from).await {
            Ok(got) => Ok(got),
            Err(error) => {
                let moves = Arc::<End>::default();
                self.0.ties.tie(&self.0.routes, key.clone(), from, &moves, None);
                Err(Unsaid { error, sooner: Some(moves) })
            }
        }
    }

    /// As that; where the key was when it was looked for last is said, too.
    async fn got<T, F>(
        &self,
        key: &K,
        method: &MethodId,
        arguments: &(impl ToArguments + Sync),
        here: impl Fn() -> F,
        from: &mut Place,
    ) -> Result<Subscribed<T>, CallError>
    where
        T: DeserializeOwned,
        F: Future<Output = Result<Result<T, CallError>, CallError>>,
    {
        let (mut tries, began) = (0, Instant::now());
        loop {
            *from = Place::Nowhere;
            let (place, server) = self.server(key, &mut tries).await?;
            *from = place.clone();
            let got = if let Some((name, server)) = &server {
                let remote = self.0.servers.remote(name, server);
                let got = self.unless_moved(key, &place, remote.subscribe(began, method, arguments)).await;
                got.map(|got| got.map(|(value, end, call)| (value, end, Some(call))))
            } else {
                self.unless_moved(key, &place, here()).await.map(|value| Ok((value?, Arc::<End>::default(), None)))
            };
            let Some(got) = got else { continue };
            let (value, end, call) = got?;
            if matches!(&value, Err(CallError::Failed(failure)) if failure.is_reroute()) {
                drop(call);
                self.again_in_time(key, &place, &mut tries, &server, began).await?;
                continue;
            }
            self.0.ties.tie(&self.0.routes, key.clone(), place, &end, call.as_ref());
            return Ok((value, end, call));
        }
    }

    /// Where a key is; and the server, if it is another one.
    async fn server(&self, key: &K, tries: &mut u32) -> Result<(Place, Asked), CallError> {
        loop {
            let place = self.0.routes.place(key);
            match &place {
                Place::Here => return Ok((place, None)),
                Place::At(name) => {
                    let (name, server) = (name.clone(), self.0.servers.get(name));
                    // Another route may have been set meanwhile, and not have found it to be let go.
                    if !self.0.routes.names(&name) {
                        self.0.leave(name.clone(), &server);
                    }
                    return Ok((place, Some((name, server))));
                }
                Place::Nowhere => self.again(key, &place, tries).await?,
            }
        }
    }

    /// What comes of something, if it comes before the key moves.
    async fn unless_moved<R>(&self, key: &K, from: &Place, does: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            done = does => Some(done),
            () = self.0.routes.moved(key, from) => None,
        }
    }

    /// Waits until the key is looked for again, because it was not where it should be; or fails, if that was tried often enough.
    async fn again(&self, key: &K, place: &Place, tries: &mut u32) -> Result<(), CallError> {
        let How { first, most, tries: enough, .. } = self.0.how;
        *tries += 1;
        if *tries >= enough {
            return Err(match place {
                Place::At(server) => CallError::Disowned { server: server.clone(), tries: *tries },
                _ => CallError::Nowhere,
            });
        }
        tracing::debug!(target: "wellspring::rpc", ?place, tries, "a key is not where it should be: it is looked for again");
        let pause = first.saturating_mul(1 << (*tries - 1).min(16)).min(most).mul_f64(0.75 + 0.5 * fastrand::f64());
        tokio::select! {
            () = self.0.routes.moved(key, place) => *tries = 0,
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }

    /// As that, in what is left of the time that a call may take by who was asked.
    async fn again_in_time(&self, key: &K, place: &Place, tries: &mut u32, asked: &Asked, began: Instant) -> Result<(), CallError> {
        let again = self.again(key, place, tries);
        match asked {
            Some((name, server)) => self.0.servers.remote(name, server).rest(began, again).await,
            None => again.await,
        }
    }
}

impl<K: Clone + Send + Sync + 'static> Follow for Shared<K> {
    fn moved(self: Arc<Shared<K>>) {
        self.ties.cut(&self.routes);
        for (name, server) in self.servers.names() {
            if !self.routes.names(&name) {
                self.leave(name, &server);
            }
        }
    }
}

impl<K: Clone + Send + Sync + 'static> Shared<K> {
    /// Lets a server go that no route names, in a while.
    fn leave(self: &Arc<Shared<K>>, name: Arc<str>, server: &Arc<Server>) {
        if !server.begins_to_leave() {
            return;
        }
        let (router, server, grace) = (Arc::downgrade(self), Arc::downgrade(server), self.how.grace);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(grace).await;
                let (Some(router), Some(server)) = (router.upgrade(), server.upgrade()) else { return };
                // Before it looks: a route that does not name it and is set after that begins anew.
                server.is_leaving.store(false, Ordering::SeqCst);
                if router.routes.names(&name) || !server.begins_to_leave() || router.servers.close(&name, server) {
                    return;
                }
            }
        });
    }
}
