//! Several servers, and who asks them: keys have their servers, and move.

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::PATIENCE;
use support::cluster::{Cluster, key_of, method, remote, router};
use support::pipe::Wire;
use tokio::time::Instant;
use wellspring::{AsyncFunction, Engine};
use wellspring_rpc::{
    By, CallError, CallOptions, Failure, HashRing, Place, Remoted, Replica, Router, Routes, RpcStream, Single, ToArguments,
};

const AB: [&str; 2] = ["a", "b"];
const SECOND: Duration = Duration::from_secs(1);

/// A client by a ring.
struct Client {
    wires: HashMap<String, Wire>,
    routes: Routes<String>,
    router: Router<String>,
}

impl Client {
    /// One that stays connected to whatever server it has asked: then that has nothing left of it when it has nothing left.
    fn of(cluster: &Cluster, names: &[&str]) -> Client {
        Client::with_grace(cluster, names, Duration::from_secs(3_600))
    }

    fn with_grace(cluster: &Cluster, names: &[&str], grace: Duration) -> Client {
        let (wires, routes) = (cluster.wires(), Routes::new(HashRing::new(names.iter().copied())));
        let router = router(&routes, &wires).grace(grace).build();
        Client { wires, routes, router }
    }

    /// One whose calls are made so.
    fn limited(cluster: &Cluster, options: CallOptions) -> Client {
        let (wires, routes) = (cluster.wires(), Routes::new(HashRing::new(AB)));
        let ways = wires.clone();
        let router = Router::builder(&routes, move |name| remote(&ways[name]).with(options.clone())).build();
        Client { wires, routes, router }
    }

    fn set(&self, names: &[&str]) {
        self.routes.set(HashRing::new(names.iter().copied()));
    }

    async fn get(&self, key: &str) -> Replica<u64> {
        is_send(self.router.compute(&key.to_owned(), &method("IData.Get:2"), (key,))).await.expect("a value")
    }

    async fn write(&self, key: &str, value: u64) {
        self.router.call::<()>(&key.to_owned(), &method("IData.Set:3"), (key, value)).await.expect("set");
    }

    async fn slow(&self, name: &str, key: &str) -> Result<String, CallError> {
        self.router.call(&key.to_owned(), &method(name), (key, 1_000)).await
    }

    async fn once(&self, name: &str, key: &String, arguments: impl ToArguments + Sync) -> Result<String, CallError> {
        self.router.call_once(key, &method(name), arguments).await
    }

    fn function(&self, engine: &Engine) -> AsyncFunction<(String,), Remoted<u64>> {
        self.router.function(engine, "get", &method("IData.Get:2"), |(key,): &(String,)| key.clone()).expect("registered")
    }
}

async fn after<T>(pause: u64, does: impl FnOnce() -> T) -> T {
    tokio::time::sleep(Duration::from_millis(pause)).await;
    does()
}

fn is_send<T: Send>(does: T) -> T {
    does
}

async fn soon<T>(what: &str, does: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, does).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(start_paused = true)]
async fn each_key_is_asked_for_at_its_server_which_is_connected_to_when_it_is_needed() {
    let cluster = Cluster::new(&["a", "b", "c"]);
    let client = Client::of(&cluster, &["a", "b", "c"]);
    assert_eq!(client.router.servers(), 0);
    for number in 0..30_u32 {
        let key = format!("key {number}");
        let Place::At(server) = client.routes.place(&key) else { panic!("nobody has it") };
        let answered: String = is_send(client.router.call(&key, &method("IData.Where:1"), ())).await.expect("an answer");
        assert_eq!(*answered, *server);
        client.write(&key, 5).await;
        assert_eq!(*client.get(&key).await.value(), 5);
    }
    assert_eq!(client.router.servers(), 3);
    assert!(client.wires.values().all(|wire| wire.connections() == 1));
    let single = Routes::new(Single::new("b"));
    let one = router::<u32>(&single, &cluster.wires()).build();
    assert_eq!(one.call(&7, &method("IData.Where:1"), ()).await, Ok("b".to_owned()));
    assert_eq!(one.servers(), 1);
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_whose_key_moves_is_given_up_there_and_made_at_the_new_server() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    // The server does not know yet; then its body is dropped, because the caller has given it up.
    let moving = after(100, || client.set(&["b"]));
    cluster.hosts["b"].routes.set(Single::new("b"));
    let (answer, ()) = tokio::join!(client.slow("IData.SlowEntry:3", &key), moving);
    assert_eq!(answer, Ok("b".to_owned()));
    let (a, b) = (&cluster.hosts["a"].ran, &cluster.hosts["b"].ran);
    assert_eq!((a.begun(), a.done(), b.begun(), b.done()), (1, 0, 1, 1));
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_key_stays_is_not_touched_by_a_change() {
    let cluster = Cluster::new(&["a", "b", "c"]);
    let (client, key) = (Client::of(&cluster, &["a", "b", "c"]), key_of(&["a", "b", "c"], "a"));
    let (answer, ()) = tokio::join!(
        client.slow("IData.Slow:3", &key),
        after(100, || {
            client.set(&AB);
            cluster.set(&AB);
        })
    );
    assert_eq!((answer, cluster.hosts["a"].ran.begun()), (Ok("a".to_owned()), 1));
}

#[tokio::test(start_paused = true)]
async fn of_many_changes_at_once_only_the_last_counts() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    cluster.hosts["b"].routes.set(Single::new("b"));
    let (a, b) = (&cluster.hosts["a"].ran, &cluster.hosts["b"].ran);
    let burst = |servers: [&str; 5]| servers.into_iter().for_each(|server| client.set(&[server]));
    let call = client.slow("IData.SlowEntry:3", &key);
    let (answer, ()) = tokio::join!(call, after(100, || burst(["b", "a", "b", "a", "b"])));
    assert_eq!((answer, a.begun(), b.begun()), (Ok("b".to_owned()), 1, 1));
    // It is where it was in the end.
    let call = client.slow("IData.SlowEntry:3", &key);
    let (answer, ()) = tokio::join!(call, after(100, || burst(["a", "b", "a", "a", "b"])));
    assert_eq!((answer, a.begun(), b.begun()), (Ok("b".to_owned()), 1, 2));
    assert!(client.wires.values().all(|wire| wire.connections() == 1));
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_made_once_stays_where_it_was_sent() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    let call = client.once("IData.SlowEntry:3", &key, (&key, 1_000));
    let moving = after(100, || {
        client.set(&["b"]);
        cluster.set(&["b"]);
    });
    let (answer, ()) = tokio::join!(call, moving);
    assert_eq!(answer, Ok("a".to_owned()));
    assert_eq!((cluster.hosts["a"].ran.begun(), cluster.hosts["b"].ran.begun()), (1, 0));
    // A server that says that it has done nothing sends it on.
    let answer = client.once("IData.SlowEntry:3", &key, (&key, 10)).await;
    assert_eq!(answer, Ok("b".to_owned()));
    cluster.is_over().await;
}

/// A call that its server cannot be sent, until its key moves after so many milliseconds; then one whose connection breaks after it was sent, so many
/// before its key moves, which does not matter to it.
async fn moves_unless_it_was_sent(cluster: &Cluster, client: &Client, unsent: u64, broken: u64) {
    let (key, a, b) = (key_of(&AB, "a"), &cluster.hosts["a"], &cluster.hosts["b"]);
    client.wires["a"].set_down(true);
    let call = client.once("IData.SlowAnywhere:2", &key, (10_u64,));
    let (answer, ()) = tokio::join!(soon("an answer", call), after(unsent, || client.set(&["b"])));
    assert_eq!((answer, a.ran.begun(), b.ran.begun()), (Ok("b".to_owned()), 0, 1));
    client.wires["a"].set_down(false);
    client.set(&AB);
    let call = client.once("IData.SlowAnywhere:2", &key, (2_000_u64,));
    let breaking = async {
        after(1_000, || client.wires["a"].set_down(true)).await;
        after(broken, || client.set(&["b"])).await;
        after(5_000, || client.wires["a"].set_down(false)).await;
    };
    let (answer, ()) = tokio::join!(soon("an answer", call), breaking);
    assert_eq!((answer, a.ran.begun(), b.ran.begun()), (Ok("a".to_owned()), 1, 1));
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_sent_moves_also_if_it_is_made_once_and_one_that_was_waits_for_its_server() {
    let cluster = Cluster::new(&AB);
    moves_unless_it_was_sent(&cluster, &Client::of(&cluster, &AB), 100, 100).await;
}

#[tokio::test(start_paused = true)]
async fn how_long_a_call_that_is_made_once_waits_for_a_connection_is_of_no_account_once_it_was_sent() {
    let cluster = Cluster::new(&AB);
    let client = Client::limited(&cluster, CallOptions::new().connect_timeout(2 * SECOND));
    moves_unless_it_was_sent(&cluster, &client, 1_500, 500).await;
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_call_may_take_is_of_the_whole_wherever_its_key_moves() {
    let cluster = Cluster::new(&AB);
    let client = Client::limited(&cluster, CallOptions::new().timeout(3 * SECOND));
    let key = key_of(&AB, "a");
    let get = method("IData.Get:2");
    let late = Some(CallError::TimedOut(3 * SECOND));
    // Nobody is there.
    client.wires.values().for_each(|wire| wire.set_down(true));
    let began = Instant::now();
    let computing = client.router.compute::<u64>(&key, &get, (&key,));
    let (value, ()) = tokio::join!(computing, after(2_000, || client.set(&["b"])));
    assert_eq!((value.err(), began.elapsed()), (late.clone(), 3 * SECOND));
    client.set(&AB);
    let began = Instant::now();
    let (answer, ()) = tokio::join!(client.slow("IData.Slow:3", &key), after(2_000, || client.set(&["b"])));
    assert_eq!((answer.err(), began.elapsed()), (late.clone(), 3 * SECOND));
    // The server does not have the key: what is waited then counts, too.
    client.set(&AB);
    client.wires.values().for_each(|wire| wire.set_down(false));
    cluster.set(&["b"]);
    let began = Instant::now();
    assert_eq!((client.router.compute::<u64>(&key, &get, (&key,)).await.err(), began.elapsed()), (late.clone(), 3 * SECOND));
    let began = Instant::now();
    assert_eq!((client.slow("IData.Slow:3", &key).await.err(), began.elapsed()), (late, 3 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_key_moves_is_stale_at_once_and_read_at_the_new_server() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    let other = key_of(&AB, "b");
    let engine = Engine::new();
    let get = client.function(&engine);
    client.write(&key, 1).await;
    let (replica, stays) = (client.get(&key).await, client.get(&other).await);
    let computed = get.computed(&engine, &(key.clone(),)).await.expect("read");
    assert_eq!((computed.value().as_result(), cluster.open_calls()), (Ok(&1), 3));
    // The server at which it was does not know of it: the client has to say that nobody listens.
    cluster.hosts["b"].routes.set(Single::new("b"));
    client.set(&["b"]);
    assert!(replica.is_stale() && !stays.is_stale());
    assert!(!computed.is_consistent());
    assert_eq!(get.get(&engine, &(key.clone(),)).await.expect("read").as_result(), Ok(&1));
    assert_eq!(cluster.hosts["b"].ran.got.load(Ordering::SeqCst), 2);
    let over = async {
        while cluster.hosts["a"].hub.open_calls() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the former server hears that nobody listens", over).await;
    client.write(&key, 2).await;
    assert_eq!(get.get(&engine, &(key,)).await.expect("read").as_result(), Ok(&2));
    drop((replica, stays, computed, get, engine));
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_key_moves_while_there_is_no_connection_is_read_at_the_new_server() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    let engine = Engine::new();
    let get = client.function(&engine);
    let read = async || *get.get(&engine, &(key.clone(),)).await.expect("read").as_result().expect("a value");
    assert_eq!(read().await, 0);
    client.wires["a"].set_down(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.hosts["b"].routes.set(Single::new("b"));
    let direct = remote(&Wire::to(&cluster.hosts["b"].hub));
    direct.call::<()>(&method("IData.Set:3"), (&key, 3)).await.expect("set");
    assert_eq!(read().await, 0, "nobody could say so");
    // A read that waits for the server that cannot be reached.
    get.invalidate(&(key.clone(),));
    let (value, ()) = tokio::join!(read(), after(1_000, || client.set(&["b"])));
    assert_eq!(value, 3);
    drop((get, engine));
    // What the client could not tell the server that it has left, that one hears when the client is back.
    client.wires["a"].set_down(false);
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loses_a_key_says_so_to_all_and_has_nothing_to_do_with_it_any_more() {
    let cluster = Cluster::new(&AB);
    let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
    let (a, b) = (&cluster.hosts["a"], &cluster.hosts["b"]);
    client.write(&key, 1).await;
    let replica = client.get(&key).await;
    cluster.set(&["b"]);
    soon("the server says that it is stale", replica.stale()).await;
    // Asked by somebody who does not know yet.
    let direct = remote(&Wire::to(&a.hub));
    let begun = a.ran.begun();
    for failed in [
        direct.call::<u64>(&method("IData.Slow:3"), (&key, 1)).await.expect_err("it is not its own"),
        direct.call::<u64>(&method("IData.SlowEntry:3"), (&key, 1)).await.expect_err("it is not its own"),
        direct.compute::<u64>(&method("IData.Get:2"), (&key,)).await.expect_err("it is not its own"),
    ] {
        let CallError::Failed(failure) = failed else { panic!("{failed}") };
        assert_eq!((failure.is_reroute(), failure.type_name()), (true, "ActualLab.Rpc.RpcRerouteException"));
    }
    assert_eq!(a.ran.begun(), begun, "no body was begun");
    // The client asks again until it knows.
    let (replica, ()) = tokio::join!(client.get(&key), after(700, || client.set(&["b"])));
    assert_eq!((*replica.value(), b.ran.got.load(Ordering::SeqCst)), (1, 1));
    // What the former server had cached is not what it says when it has the key again.
    client.write(&key, 2).await;
    cluster.set(&AB);
    client.set(&AB);
    assert_eq!(*client.get(&key).await.value(), 2);
    drop(replica);
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_under_way_at_a_server_that_loses_its_key_is_dropped_or_goes_on_as_it_was_guarded() {
    for (name, expected) in [("IData.Slow:3", "b"), ("IData.SlowEntry:3", "a")] {
        let cluster = Cluster::new(&AB);
        let (client, key) = (Client::of(&cluster, &AB), key_of(&AB, "a"));
        let moving = async {
            after(100, || cluster.set(&["b"])).await;
            // The client hears of it from the server first.
            after(100, || client.set(&["b"])).await;
        };
        let call = client.once(name, &key, (&key, 1_000));
        let (answer, ()) = tokio::join!(call, moving);
        assert_eq!(answer, Ok(expected.to_owned()));
        assert_eq!(cluster.hosts["a"].ran.done(), usize::from(expected == "a"));
        cluster.is_over().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_disagrees_with_a_server_for_ever_is_told_after_a_number_of_tries() {
    let cluster = Cluster::new(&AB);
    let key = key_of(&AB, "a");
    cluster.set(&["b"]);
    let routes = Routes::new(HashRing::new(AB));
    let router = router(&routes, &cluster.wires()).retry(Duration::from_millis(100), Duration::from_secs(1), 5).build();
    let began = tokio::time::Instant::now();
    let failed = router.call::<String>(&key, &method("IData.Slow:3"), (&key, 1)).await;
    assert_eq!(failed, Err(CallError::Disowned { server: "a".into(), tries: 5 }));
    // 100, 200, 400 and 800 ms, give or take a quarter.
    let took = began.elapsed();
    assert!((Duration::from_millis(1_100)..Duration::from_millis(1_900)).contains(&took), "{took:?}");
    let failed = router.compute::<u64>(&key, &method("IData.Get:2"), (&key,)).await.map(Replica::into_value);
    assert_eq!(failed, Err(CallError::Disowned { server: "a".into(), tries: 5 }));
    let engine = Engine::new();
    let get = router.function::<(String,), u64>(&engine, "get", &method("IData.Get:2"), |(key,)| key.clone()).expect("registered");
    let got = get.get(&engine, &(key.clone(),)).await.expect("read");
    assert!(matches!(&*got, Err(CallError::Disowned { .. })), "{got:?}");
    routes.set(Single::new("b"));
    assert_eq!(get.get(&engine, &(key,)).await.expect("read").as_result(), Ok(&0), "the failure is not cached");
    drop((get, engine));
    cluster.is_over().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_has_is_waited_for_a_while() {
    let cluster = Cluster::new(&AB);
    let routes = Routes::<String>::new(HashRing::new([""; 0]));
    let router = router(&routes, &cluster.wires()).retry(Duration::from_millis(100), Duration::from_secs(1), 5).build();
    let key = "k".to_owned();
    assert_eq!(routes.place(&key), Place::Nowhere);
    assert_eq!(router.call::<String>(&key, &method("IData.Where:1"), ()).await, Err(CallError::Nowhere));
    let is_where = method("IData.Where:1");
    let call = router.call::<String>(&key, &is_where, ());
    let (answer, ()) = tokio::join!(call, after(500, || routes.set(Single::new("b"))));
    assert_eq!(answer, Ok("b".to_owned()));
    // A closure may say of single keys that nobody has them.
    routes.set(By::new(AB, |key: &String| key.bytes().next().map(|first| usize::from(first) - usize::from(b'a'))));
    for (key, expected) in
        [("apple", Ok("a".to_owned())), ("bean", Ok("b".to_owned())), ("", Err(CallError::Nowhere)), ("z", Err(CallError::Nowhere))]
    {
        assert_eq!(router.call::<String>(&key.to_owned(), &method("IData.Where:1"), ()).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_no_route_names_is_let_go_after_a_while_but_not_under_a_stream() {
    let cluster = Cluster::new(&AB);
    let (wires, routes) = (cluster.wires(), Routes::new(Single::new("a")));
    let router = router::<u32>(&routes, &wires).grace(Duration::from_secs(5)).build();
    let mut items: RpcStream<u64> = router.call(&1, &method("IData.Count:2"), (100_u64,)).await.expect("a stream");
    assert_eq!(items.next().await, Some(Ok(0)));
    routes.set(Single::new("b"));
    assert_eq!(router.call(&1, &method("IData.Where:1"), ()).await, Ok("b".to_owned()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(router.servers(), 2, "the stream goes on");
    for number in 1..100 {
        assert_eq!(items.next().await, Some(Ok(number)));
    }
    assert_eq!(items.next().await, None);
    drop(items);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(router.servers(), 1);
    routes.set(Single::new("a"));
    assert_eq!(router.call(&1, &method("IData.Where:1"), ()).await, Ok("a".to_owned()));
    assert_eq!((router.servers(), wires["a"].connections()), (2, 2), "it was connected to anew");
    routes.set(By::new(AB, |_: &u32| Some(1)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(router.servers(), 2, "a route that names it keeps it");
    drop(router);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.open_calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_no_route_names_is_not_let_go_while_a_call_is_under_way_there() {
    let cluster = Cluster::new(&AB);
    let key = key_of(&AB, "a");
    let client = Client::with_grace(&cluster, &AB, Duration::from_secs(1));
    let call = client.once("IData.SlowAnywhere:2", &key, (20_000_u64,));
    let (answer, ()) = tokio::join!(call, after(100, || client.set(&["b"])));
    assert_eq!((answer, client.router.servers()), (Ok("a".to_owned()), 1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.router.servers(), 0);
}

#[tokio::test(start_paused = true)]
async fn values_of_own_keys_are_computed_here_and_others_where_they_are_and_that_may_change() {
    let cluster = Cluster::new(&AB);
    let key = key_of(&AB, "a");
    // A process that is server `a` and asks the other one.
    let a = &cluster.hosts["a"];
    let router = router(&a.routes, &cluster.wires()).build();
    let stock = a.engine.source("stock", |_: &String| 10_u64).expect("registered");
    let (runs, here) = (Arc::<AtomicUsize>::default(), stock.clone());
    let counted = runs.clone();
    let get: AsyncFunction<(String,), Remoted<u64>> = router
        .function_or_here(
            &a.engine,
            "routed",
            &method("IData.Get:2"),
            |(key,): &(String,)| key.clone(),
            move |cx, (key,)| {
                let (here, counted) = (here.clone(), counted.clone());
                async move {
                    counted.fetch_add(1, Ordering::SeqCst);
                    Ok(match here.get(&cx, &key)? {
                        13 => Err(Failure::new("bad luck")),
                        value => Ok(value),
                    })
                }
            },
        )
        .expect("registered");
    let read = async || get.get(&a.engine, &(key.clone(),)).await.expect("read").as_result().copied().map_err(ToString::to_string);
    assert_eq!((read().await, read().await), (Ok(10), Ok(10)));
    stock.set(&key, 11);
    assert_eq!((read().await, runs.load(Ordering::SeqCst)), (Ok(11), 2));
    stock.set(&key, 13);
    assert_eq!((read().await, read().await), (Err("bad luck".to_owned()), Err("bad luck".to_owned())));
    assert_eq!((runs.load(Ordering::SeqCst), router.servers()), (3, 0));
    let computed = get.computed(&a.engine, &(key.clone(),)).await.expect("read");
    cluster.set(&["b"]);
    assert!(!computed.is_consistent(), "it is elsewhere");
    assert_eq!((read().await, router.servers()), (Ok(0), 1));
    stock.set(&key, 14);
    remote(&Wire::to(&cluster.hosts["b"].hub)).call::<()>(&method("IData.Set:3"), (&key, 3)).await.expect("set");
    let becomes = async {
        while read().await != Ok(3) {
            tokio::time::sleep(Duration::from_millis(1)).await
        }
    };
    soon("it follows the other server", becomes).await;
    cluster.set(&AB);
    assert_eq!(read().await, Ok(14), "and is its own again");
    // Calls, too: one that runs here when its key moves is dropped, and made there.
    let slow = method("IData.Slow:3");
    let begun = AtomicUsize::new(0);
    let here = || {
        begun.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok("here".to_owned())
        }
    };
    assert_eq!(is_send(router.call_or_here(&key, &slow, (&key, 10), here)).await, Ok("here".to_owned()));
    let (answer, ()) = tokio::join!(router.call_or_here(&key, &slow, (&key, 10), here), after(100, || cluster.set(&["b"])));
    assert_eq!((answer, begun.load(Ordering::SeqCst)), (Ok("b".to_owned()), 2));
    cluster.set(&AB);
    assert_eq!(router.call::<String>(&key, &slow, (&key, 10)).await, Err(CallError::Here));
    assert_eq!(router.compute::<u64>(&key, &method("IData.Get:2"), (&key,)).await.map(Replica::into_value), Err(CallError::Here));
    a.engine.assert_consistent();
}

/// Servers come and go, each process hears of it at another time, connections are cut, while a client writes and reads.
#[tokio::test(start_paused = true)]
async fn whatever_moves_every_replica_is_equal_to_its_owners_value_in_the_end() {
    const ALL: [&str; 4] = ["a", "b", "c", "d"];
    let keys: Vec<String> = (0..12).map(|number| format!("key {number}")).collect();
    for seed in 0..25 {
        let mut random = fastrand::Rng::with_seed(seed);
        let cluster = Cluster::new(&ALL);
        // Servers that are let go forget a client that does not come back only after minutes.
        let is_hasty = seed % 2 == 1;
        let client = Client::with_grace(&cluster, &ALL, Duration::from_millis(if is_hasty { 50 } else { 3_600_000 }));
        let engine = Engine::new();
        let get = client.function(&engine);
        let mut replicas: HashMap<&str, Replica<u64>> = HashMap::new();
        for round in 1..120_u64 {
            let key = random.choice(&keys).expect("one");
            match random.u8(0..10) {
                0 | 1 => {
                    let names: Vec<&str> = ALL.into_iter().filter(|_| random.bool()).collect();
                    let names = if names.is_empty() { vec!["a"] } else { names };
                    let mut told: Vec<&Routes<String>> = cluster.hosts.values().map(|host| &host.routes).chain([&client.routes]).collect();
                    random.shuffle(&mut told);
                    for routes in told {
                        routes.set(HashRing::new(names.iter().copied()));
                        if random.bool() {
                            tokio::time::sleep(Duration::from_millis(random.u64(0..30))).await;
                        }
                    }
                }
                2 => client.wires[random.choice(ALL).expect("one")].cut(),
                3 => tokio::time::sleep(Duration::from_millis(random.u64(0..200))).await,
                // Something moves, or is cut, while a call is under way.
                4 => {
                    let server = random.choice(ALL).expect("one");
                    let (pause, slow) = (random.u64(0..20), method("IData.Slow:3"));
                    let (answer, ()) = tokio::join!(
                        client.router.call::<String>(key, &slow, (key, 10_u64)),
                        after(pause, || {
                            client.wires[server].cut();
                            cluster.set(&[server]);
                            client.set(&[server]);
                        })
                    );
                    answer.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
                }
                5 | 6 => {
                    client.write(key, round).await;
                    assert_eq!(cluster.value(key), round, "seed {seed}: it was written");
                }
                7 => _ = replicas.insert(key, client.get(key).await),
                _ => {
                    let got = get.get(&engine, &(key.clone(),)).await.expect("read");
                    assert!(got.is_ok(), "seed {seed}, round {round}: {got:?}");
                }
            }
        }
        for key in &keys {
            let equal = async {
                while get.get(&engine, &(key.clone(),)).await.expect("read").as_result() != Ok(&cluster.value(key)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                if let Some(replica) = replicas.get(&**key).filter(|replica| *replica.value() != cluster.value(key)) {
                    replica.stale().await;
                }
            };
            soon(&format!("seed {seed}: `{key}` is what its owner says"), equal).await;
        }
        engine.assert_consistent();
        cluster.hosts.values().for_each(|host| host.engine.assert_consistent());
        // Also what servers have not been able to hear is over, once clients are taken to have said what they wait for.
        drop((replicas, get, engine));
        client.routes.set(By::new(ALL, |key: &String| key.parse().ok()));
        for server in 0..ALL.len() {
            client.router.call::<String>(&server.to_string(), &method("IData.Where:1"), ()).await.expect("called");
        }
        cluster.is_over_within(Duration::from_secs(if is_hasty { 1_200 } else { 30 })).await;
    }
}
