//! A server and clients as hosts of a simulated network, in virtual time: partitions, packets that are held, and hosts that crash and start again, all by a seed. In
//! the end every replica is what the server's value is, and nobody has anything open that nobody waits for.

mod clients;
mod network;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring_rpc::Timings;
use wellspring_rpc::wire::Format;
use wellspring_tests::rpc::Services;

/// For how long there is trouble.
const TROUBLE: Duration = Duration::from_secs(60);

const CLIENTS: [(&str, Format); 3] = [("anna", Format::Json5np), ("bert", Format::Msgpack6), ("carl", Format::Msgpack6c)];

/// What everybody can look at, as nobody can in a network.
#[derive(Default)]
struct World {
    seed: u64,
    /// The server's present process.
    services: Mutex<Option<Arc<Services>>>,
    /// Nothing happens to anybody any more.
    over: AtomicBool,
    /// What was done, by all.
    acts: AtomicUsize,
    /// Clients for whom the trouble is over, and who write nothing any more.
    done: AtomicUsize,
    /// Clients that have found everything as it should be.
    content: AtomicUsize,
}

impl World {
    fn services(&self) -> Option<Arc<Services>> {
        self.services.lock().expect("no panic").clone()
    }

    /// The server's process is gone, or about to be.
    fn ends(&self) {
        self.services.lock().expect("no panic").take();
    }
}

/// Shorter than they are elsewhere: a partition is found out by silence.
fn timings() -> Timings {
    let mut timings = Timings::default();
    (timings.handshake, timings.keep_alive, timings.silence) = (Duration::from_secs(2), Duration::from_secs(1), Duration::from_secs(3));
    timings.retention = (Duration::from_secs(20), Duration::from_secs(20));
    timings
}

async fn serve(world: Arc<World>) -> turmoil::Result {
    let services = Arc::new(Services::with(|hub| hub.timings(timings())));
    *world.services.lock().expect("no panic") = Some(services.clone());
    let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, network::PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(network::serve(services.hub.clone(), stream));
    }
}

/// How much was done.
fn simulate(seed: u64) -> usize {
    // On this thread run all hosts.
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let world = Arc::new(World { seed, ..World::default() });
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(5))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(40))
        // Of segments; more are a panic of the simulation, not something that happens to the connection.
        .tcp_capacity(1 << 16)
        .build();
    let at_server = world.clone();
    sim.host("server", move || serve(at_server.clone()));
    let at_mortal = world.clone();
    sim.host("mortal", move || clients::goes_on_for_ever(at_mortal.clone()));
    for (name, format) in CLIENTS {
        sim.client(name, clients::lives(world.clone(), name, format));
    }
    let mut next = Duration::ZERO;
    let mut is_over = false;
    loop {
        match sim.step() {
            Ok(true) => return world.acts.load(Ordering::SeqCst),
            Ok(false) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
        if sim.elapsed() < next || is_over {
            continue;
        }
        next = sim.elapsed() + Duration::from_millis(random.u64(100..4_000));
        let (client, _) = CLIENTS[random.usize(..CLIENTS.len())];
        if sim.elapsed() > TROUBLE {
            is_over = true;
            for (client, _) in CLIENTS {
                sim.release(client, "server");
                sim.repair(client, "server");
            }
            if !sim.is_host_running("server") {
                sim.bounce("server");
            }
            // Whoever is dead in the end is forgotten.
            sim.crash("mortal");
            world.over.store(true, Ordering::SeqCst);
            continue;
        }
        match random.u8(..12) {
            0 => sim.partition(client, "server"),
            1 => sim.partition_oneway(client, "server"),
            2 => sim.partition_oneway("server", client),
            3..5 => sim.hold(client, "server"),
            5 => {
                world.ends();
                if sim.is_host_running("server") {
                    sim.crash("server");
                } else {
                    sim.bounce("server");
                }
            }
            6 => {
                world.ends();
                sim.bounce("server");
            }
            7 => sim.bounce("mortal"),
            8..10 => sim.release(client, "server"),
            _ => sim.repair(client, "server"),
        }
    }
}

#[test]
fn whatever_happens_to_a_network_clients_come_to_what_the_server_has_and_nothing_is_left() {
    let given = std::env::var("WELLSPRING_SEED").ok().and_then(|text| text.parse().ok());
    // Some, and one that nobody has tried.
    let seeds = given.map_or_else(|| [1, 2, 3, 4, 5, 6, 7, fastrand::u64(..)].to_vec(), |seed| vec![seed]);
    for seed in seeds {
        println!("rpc_simulation: WELLSPRING_SEED={seed}");
        let acts = simulate(seed);
        println!("{acts} acts");
        assert!(acts > 0, "nobody does anything");
    }
}
