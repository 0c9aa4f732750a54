//! All services, on an engine and a hub of their own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use wellspring::Engine;
use wellspring_rpc::{Hub, HubBuilder};

use super::control::Restart;
use super::counter::Counters;
use super::demo::{Runs, demo};
use super::{inspection, matrix, typescript};

/// What a process offers. All of it goes with it, and with the connections that are served.
pub struct Services {
    /// Where values are made.
    pub engine: Engine,
    /// Where they are asked for.
    pub hub: Hub,
    /// How often bodies have run.
    pub runs: Arc<Runs>,
    /// What `ICounter` counts.
    pub counters: Counters,
    /// Whether somebody has asked to start anew.
    pub restart: Restart,
    _inspected: Arc<OnceLock<Hub>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("hub", &self.hub).field("runs", &self.runs).finish_non_exhaustive()
    }
}

impl Default for Services {
    fn default() -> Services {
        Services::new()
    }
}

impl Services {
    /// All of them.
    pub fn new() -> Services {
        Services::with(|hub| hub)
    }

    /// All of them, and whatever else the hub is to have.
    ///
    /// # Panics
    /// If that has a service of the same name.
    pub fn with(more: impl FnOnce(HubBuilder) -> HubBuilder) -> Services {
        let (engine, runs, restart) = (Engine::new(), Arc::<Runs>::default(), Restart::default());
        let counters = Counters::new(&engine, &runs);
        let inspected = Arc::<OnceLock<Hub>>::default();
        let services = [
            demo(&runs),
            counters.service(),
            typescript::plain(),
            typescript::computed(&engine),
            matrix::computed(&engine),
            matrix::plain(),
            restart.service(),
            inspection::service(&Arc::downgrade(&inspected), &runs),
        ];
        let add = |hub: HubBuilder, service| hub.service(service).expect("a service of another name");
        let hub = services.into_iter().fold(more(Hub::builder()), add).build();
        // It is set once.
        let _ = inspected.set(hub.clone());
        Services { engine, hub, runs, counters, restart, _inspected: inspected }
    }
}
