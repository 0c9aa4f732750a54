//! `wellspring-shop watch --url`: the figures of a server somewhere, a line each time one of them changes.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use wellspring_rpc::web::WebAddress;
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{CallError, Connected, Remote, ToArguments};

use crate::error::ShopError;
use crate::figure::{Figure, Words};
use crate::functions::Ranked;
use crate::line::{Cents, UnitPrice};
use crate::names::SERVICE;

/// Pauses between attempts to connect: somebody is looking.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What to watch where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWatch {
    /// The server.
    pub url: WebAddress,
    /// The address as it was said.
    pub said: String,
    /// Of which every change is printed; one at least.
    pub figures: Vec<Figure>,
}

impl RemoteWatch {
    /// Prints until it is interrupted.
    ///
    /// # Errors
    /// Nobody reads what is printed, or the server speaks another language. One that cannot be reached is tried again.
    pub fn run(&self) -> Result<(), ShopError> {
        let failed = |error: std::io::Error| ShopError::File(format!("a runtime: {error}").into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            tokio::select! {
                ended = self.watch() => ended,
                interrupted = tokio::signal::ctrl_c() => interrupted.map_err(failed),
            }
        })
    }

    async fn watch(&self) -> Result<(), ShopError> {
        let remote = Remote::builder(self.url.clone()).backoff(BACKOFF.0, BACKOFF.1).connect();
        let started = Instant::now();
        let mut all = JoinSet::new();
        all.spawn(tell_connection(remote.clone(), self.said.clone(), started));
        for figure in &self.figures {
            all.spawn(tell_figure(remote.clone(), figure.clone(), started));
        }
        // None of them ends but with an error, and then all do.
        match all.join_next().await {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) | None => Err(ShopError::Worker("watch")),
        }
    }
}

fn tell(started: Instant, what: &str) -> Result<(), ShopError> {
    crate::say(&format!("{:9.4} s  {what}\n", started.elapsed().as_secs_f64()))
}

async fn tell_connection(remote: Remote, said: String, started: Instant) -> Result<Infallible, ShopError> {
    let mut states = remote.connected();
    loop {
        let state = *states.borrow_and_update();
        match state {
            Connected::Yes => tell(started, &format!("connected to {said}"))?,
            Connected::Again(at) => {
                let pause = at.saturating_duration_since(tokio::time::Instant::now());
                let why = remote.disconnected_by().map(|why| format!(": {why}")).unwrap_or_default();
                tell(started, &format!("not connected, trying again in {:.1} s{why}", pause.as_secs_f64()))?;
            }
            Connected::Never => return Err(unspoken()),
            _ => {}
        }
        states.changed().await.map_err(|_| unspoken())?;
    }
}

fn unspoken() -> ShopError {
    ShopError::Server("at this address does not speak this program's language".into())
}

async fn tell_figure(remote: Remote, figure: Figure, started: Instant) -> Result<Infallible, ShopError> {
    match &figure {
        Figure::Price(product) => tell_values::<Option<UnitPrice>>(&remote, &figure, (*product,), started).await,
        Figure::BasketTotal(basket) => tell_values::<Cents>(&remote, &figure, (*basket,), started).await,
        Figure::HouseholdSpend(household) => tell_values::<Cents>(&remote, &figure, (*household,), started).await,
        Figure::StoreRevenue(store) => tell_values::<Cents>(&remote, &figure, (*store,), started).await,
        Figure::DepartmentRevenue(department) => tell_values::<Cents>(&remote, &figure, (department.as_str(),), started).await,
        Figure::TopProducts(department, n) => tell_values::<Vec<Ranked>>(&remote, &figure, (department.as_str(), *n), started).await,
    }
}

async fn tell_values<V: Words + DeserializeOwned>(
    remote: &Remote,
    figure: &Figure,
    key: impl ToArguments + Copy,
    started: Instant,
) -> Result<Infallible, ShopError> {
    let failed = |error: &dyn std::fmt::Display| ShopError::Server(format!("asked for {figure}: {error}").into());
    let method = MethodId::new(format!("{SERVICE}.{}", figure.method())).map_err(|error| failed(&error))?;
    let mut last: Option<String> = None;
    loop {
        let replica = match remote.try_compute::<V>(&method, key).await {
            Ok(replica) => replica,
            // It changes all the time: there will be a moment.
            Err(CallError::Stale) => continue,
            Err(CallError::Unreachable) => return Err(unspoken()),
            Err(error) => return Err(failed(&error)),
        };
        let value = match replica.value() {
            Ok(value) => value.words(),
            Err(failure) => format!("the error \"{failure}\""),
        };
        match last.replace(value.clone()) {
            None => tell(started, &format!("{figure} is {value}"))?,
            Some(old) if old != value => tell(started, &format!("{figure} {old} -> {value}"))?,
            Some(_) => {}
        }
        replica.stale().await;
    }
}
