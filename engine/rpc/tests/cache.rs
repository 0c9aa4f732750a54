//! What a client knows when it starts.

mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use support::near::{Near, key, method, set, soon};
use support::pipe::Wire;
use support::script::Script;
use support::services::World;
use wellspring::{AsyncFunction, Capacity, Cx, Engine};
use wellspring_rpc::wire::{Format, Head, System};
use wellspring_rpc::{Cache, CacheError, Change, ClientCache, Freshness, NotSynchronized, RedbCache, Remote, Remoted};

type Entries = HashMap<Vec<u8>, Vec<u8>>;

/// A store in memory.
#[derive(Clone, Debug, Default)]
struct Memory {
    entries: Arc<Mutex<Entries>>,
    fails: Arc<AtomicBool>,
    /// A write waits for one of these.
    gate: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
}

impl Memory {
    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().expect("no panic")
    }

    fn cache(&self) -> Cache {
        Cache::new(self.clone(), "server", "1").expect("a thread")
    }

    fn fail(&self) -> Result<(), CacheError> {
        if self.fails.load(Ordering::SeqCst) { Err(CacheError::Other("on purpose".to_owned())) } else { Ok(()) }
    }
}

impl ClientCache for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CacheError> {
        self.fail()?;
        Ok(self.entries().get(key).cloned())
    }

    fn write(&self, changes: &[Change]) -> Result<(), CacheError> {
        if let Some(gate) = &self.gate {
            // Open for ever, when nobody holds it any more.
            let _ = gate.lock().expect("no panic").recv();
        }
        self.fail()?;
        let mut entries = self.entries();
        for Change { key, value } in changes {
            match value {
                Some(value) => _ = entries.insert(key.to_vec(), value.to_vec()),
                None => _ = entries.remove(&**key),
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), CacheError> {
        self.entries().clear();
        Ok(())
    }
}

/// A client that has the cache.
fn near(wire: &Wire, cache: &Cache) -> Near {
    Near::to(wire.clone(), |define| define.cache(cache))
}

/// What a process before this has left.
async fn left(world: &World, store: &Memory, a: i64, b: i64) {
    let cache = store.cache();
    let near = near(&Wire::to(&world.hub), &cache);
    set(&near.remote, "a", a).await;
    set(&near.remote, "b", b).await;
    near.sum().await;
    cache.flush();
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_and_still_true_is_there_at_once_and_not_sent_again() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    let (wire, cache) = (Wire::to(&world.hub), store.cache());
    let near = near(&wire, &cache);
    let a = near.now("a").await;
    assert_eq!(((*a).as_ref(), a.freshness()), (Ok(&1), Freshness::Unconfirmed));
    assert_eq!(near.sum().await, 3);
    soon(near.remote.when_synchronized()).await.expect("there is a connection");
    assert!(a.is_synchronized());
    let sent = wire.heard().into_iter().filter(|(call, _)| matches!(call, System::Ok | System::Match)).collect::<Vec<_>>();
    assert_eq!(sent, vec![(System::Match, 0); 2], "no byte of a result is sent");
    assert_eq!((near.sum().await, near.sums()), (3, 1), "nothing is made again");
    assert_eq!(near.remote.open_calls(), 2);
    set(&near.remote, "a", 5).await;
    near.becomes(7).await;
    assert_eq!(near.sums(), 2);
    cache.flush();
    let again = near_of_entries(&store, &world);
    assert_eq!(*again.now("a").await, Ok(5), "what has come since is kept");
}

/// A client of a server that it does not reach.
fn near_of_entries(store: &Memory, world: &World) -> Near {
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    near(&wire, &store.cache())
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_since_takes_the_place_of_what_is_cached_without_a_call_more() {
    for format in Format::ALL {
        let (world, store) = (World::new(), Memory::default());
        let cache = store.cache();
        let wire = Wire::to(&world.hub);
        let process = || {
            let (engine, remote) = (Engine::new(), Remote::builder(wire.clone()).format(format).connect());
            let counter: AsyncFunction<(String,), Remoted<i64>> =
                remote.define("counter", &method("ICounter.Get:2")).cache(&cache).function(&engine).expect("registered");
            (engine, remote, counter)
        };
        {
            let (engine, remote, counter) = process();
            set(&remote, "a", 1).await;
            assert_eq!(*counter.get(&engine, &key("a")).await.expect("read"), Ok(1));
            set(&remote, "a", 2).await;
        }
        let answers = wire.heard_of(System::Ok);
        let (engine, remote, counter) = process();
        let before = counter.computed(&engine, &key("a")).await.expect("read");
        assert_eq!((**before.value()).as_ref(), Ok(&1), "{format}");
        soon(before.invalidated()).await;
        let now = counter.get(&engine, &key("a")).await.expect("read");
        assert_eq!(((*now).as_ref(), now.freshness()), (Ok(&2), Freshness::Synchronized));
        assert_eq!(before.value().freshness(), Freshness::Stale);
        assert_eq!((wire.heard_of(System::Ok) - answers, wire.heard_of(System::Match)), (1, 0));
        drop(before);
        soon(async {
            while remote.open_calls() != 1 {
                engine.collect();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        set(&remote, "a", 3).await;
        soon(async { while *counter.get(&engine, &key("a")).await.expect("read") != Ok(3) {} }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_of_cached_values_is_made_once_more_if_one_of_them_has_changed() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    set(&Remote::builder(Wire::to(&world.hub)).connect(), "b", 20).await;
    let wire = Wire::to(&world.hub);
    let near = near(&wire, &store.cache());
    assert_eq!((near.sum().await, near.sums()), (3, 1));
    near.becomes(21).await;
    assert_eq!((near.sums(), wire.heard_of(System::Match)), (2, 1));
    near.calls_become(2).await;
    near.engine.assert_consistent();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_what_is_true_never_gets_what_is_cached_and_is_not() {
    for pause in 0..30 {
        let (world, store) = (World::new(), Memory::default());
        left(&world, &store, 1, 2).await;
        let far = Remote::builder(Wire::to(&world.hub)).connect();
        set(&far, "a", 10).await;
        let near = near(&Wire::to(&world.hub), &store.cache());
        for _ in 0..pause {
            tokio::task::yield_now().await;
        }
        let read = near.remote.synchronized(Duration::from_secs(60), || near.sum()).await;
        assert_eq!(read, Ok(12), "pause: {pause}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_what_is_cached_is_there_and_looked_into_when_there_is_one() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let near = near(&wire, &store.cache());
    assert_eq!(near.sum().await, 3);
    let read = near.remote.synchronized(Duration::from_secs(60), || near.sum()).await;
    assert_eq!(read, Err(NotSynchronized::TimedOut));
    assert!(tokio::time::timeout(Duration::from_secs(60), near.get("never read")).await.is_err());
    wire.set_down(false);
    soon(near.get("a").await.when_synchronized()).await.expect("there is a connection");
    assert_eq!((near.sum().await, near.sums()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn failures_are_not_cached_and_what_was_before_them_is_forgotten() {
    let (world, store) = (World::new(), Memory::default());
    let cache = store.cache();
    let (engine, remote) = (Engine::new(), Remote::builder(Wire::to(&world.hub)).connect());
    let or_fail: AsyncFunction<(String,), Remoted<i64>> =
        remote.define("or_fail", &method("ICounter.GetOrFail:2")).cache(&cache).function(&engine).expect("registered");
    assert!(or_fail.get(&engine, &key("k")).await.expect("read").is_err());
    cache.flush();
    assert_eq!(store.entries().len(), 0);
    let mut changes = or_fail.computed(&engine, &key("k")).await.expect("read").changes();
    for (value, entries) in [(3, 1), (0, 0)] {
        set(&remote, "k", value).await;
        soon(async { while changes.next().await.expect("endless").expect("read").value().as_result().copied().unwrap_or(0) != value {} })
            .await;
        cache.flush();
        assert_eq!(store.entries().len(), entries);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_is_kept_when_the_server_gives_up_what_it_is_asked() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    let cache = store.cache();
    let (script, mut links) = Script::new();
    let near = Near::to(script, |define| define.cache(&cache));
    let a = near.get("a").await;
    let mut link = links.next().await;
    link.names = vec!["ICounter.Get:2".to_owned()];
    link.greet(7, 1).await;
    link.gives_up("ICounter.Get:2", 6).await;
    assert_eq!(((*a).as_ref(), a.freshness()), (Ok(&1), Freshness::Unconfirmed));
    cache.flush();
    assert_eq!(store.entries().len(), 2);
    let then = async {
        let call = link.call("ICounter.Get:2").await;
        link.say(&Head::system(System::Match, call.id), |_| Ok(()));
    };
    let (known, ()) = tokio::join!(soon(a.when_synchronized()), then);
    known.expect("there is a connection");
    assert!(a.is_synchronized());
}

#[tokio::test(start_paused = true)]
async fn what_is_of_another_server_version_format_or_method_is_not_taken() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    let named = |name, version| Cache::new(store.clone(), name, version).expect("a thread");
    let (same, other) = (named("server", "1"), named("another", "1"));
    let cases = [
        (&same, "ICounter.Get:2", Format::Msgpack6c, true),
        (&other, "ICounter.Get:2", Format::Msgpack6c, false),
        (&other.named("server"), "ICounter.Get:2", Format::Msgpack6c, true),
        (&named("server", "2"), "ICounter.Get:2", Format::Msgpack6c, false),
        (&named("server1", ""), "ICounter.Get:2", Format::Msgpack6c, false),
        (&same, "ICounter.GetOrFail:2", Format::Msgpack6c, false),
        (&same, "ICounter.Get:2", Format::Msgpack6, false),
        (&same, "ICounter.Get:2", Format::Json5, false),
    ];
    for (cache, name, format, found) in cases {
        let wire = Wire::to(&world.hub);
        wire.set_down(true);
        let (engine, remote) = (Engine::new(), Remote::builder(wire).format(format).connect());
        let counter: AsyncFunction<(String,), Remoted<i64>> =
            remote.define("counter", &method(name)).cache(cache).function(&engine).expect("registered");
        let read = tokio::time::timeout(Duration::from_secs(1), counter.get(&engine, &key("a"))).await;
        assert_eq!(read.is_ok(), found, "{cache:?}, {name}, {format}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_or_cannot_be_read_is_asked_for() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    let whole = store.entries().clone();
    let wire = Wire::to(&world.hub);
    for damage in 0..4 {
        for value in store.entries().values_mut() {
            match damage {
                0 => value[0] ^= 1,
                1 => value[5] ^= 1,
                2 => *value.last_mut().expect("bytes") ^= 1,
                _ => value.clear(),
            }
        }
        let cache = store.cache();
        let near = near(&wire, &cache);
        assert!(near.get("a").await.is_synchronized(), "damage {damage}");
        assert_eq!(near.sum().await, 3);
        cache.flush();
        assert_eq!(*store.entries(), whole, "it is kept as it should be");
    }
    let cache = store.cache();
    let (engine, remote) = (Engine::new(), Remote::builder(wire).connect());
    let strange: AsyncFunction<(String,), Remoted<String>> =
        remote.define("strange", &method("ICounter.Get:2")).cache(&cache).function(&engine).expect("registered");
    assert!(strange.get(&engine, &key("a")).await.expect("read").is_err());
    cache.flush();
    assert_eq!(store.entries().len(), 1);
    assert_eq!((remote.open_calls(), remote.unconfirmed_values()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_evicted_before_it_is_known_to_be_true_leaves_no_call_and_what_was_made_of_it_follows() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    set(&Remote::builder(Wire::to(&world.hub)).connect(), "a", 9).await;
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let (cache, engine) = (store.cache(), Engine::builder().capacity(Capacity::entries(16)).build());
    let near = Near::with(engine.clone(), wire.clone(), |define| define.cache(&cache));
    let others = engine.define("others").function(|_: &Cx, n: &u32| *n).expect("registered");
    assert_eq!(near.sum().await, 3);
    let sum = near.sum.computed(&engine, &("a".to_owned(), "b".to_owned())).await.expect("a sum");
    let mut sums = sum.changes();
    assert_eq!(*sums.next().await.expect("endless").expect("a sum").value(), 3);
    drop(sum);
    for n in 0..200 {
        others.get(&engine, &n).expect("read");
    }
    engine.collect();
    assert_eq!(near.remote.unconfirmed_values(), 0, "they are evicted");
    wire.set_down(false);
    soon(async { while *sums.next().await.expect("endless").expect("a sum").value() != 11 {} }).await;
    let Near { engine: own, remote, counter, sum, .. } = near;
    drop((own, engine, counter, sum, sums, others));
    soon(async {
        while remote.open_calls() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_is_being_written_and_it_is_read_all_the_same() {
    let world = World::new();
    let (open, gate) = mpsc::channel();
    let store = Memory { gate: Some(Arc::new(Mutex::new(gate))), ..Memory::default() };
    let cache = store.cache();
    {
        let near = near(&Wire::to(&world.hub), &cache);
        set(&near.remote, "a", 4).await;
        assert_eq!(near.sum().await, 4);
    }
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let near = near(&wire, &cache);
    assert_eq!(*near.now("a").await, Ok(4));
    assert_eq!(store.entries().len(), 0);
    drop(open);
    cache.flush();
    assert_eq!(store.entries().len(), 2);
    cache.clear().expect("cleared");
    assert_eq!(store.entries().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_not_asked_again_and_nobody_else_notices() {
    let (world, store) = (World::new(), Memory::default());
    left(&world, &store, 1, 2).await;
    store.fails.store(true, Ordering::SeqCst);
    let cache = store.cache();
    let near = near(&Wire::to(&world.hub), &cache);
    assert_eq!(near.sum().await, 3);
    set(&near.remote, "a", 2).await;
    near.becomes(4).await;
    cache.flush();
    store.fails.store(false, Ordering::SeqCst);
    assert!(near.get("never read").await.is_synchronized());
    cache.flush();
    assert_eq!(store.entries().len(), 2);
}

fn file(path: &Path) -> Cache {
    Cache::new(RedbCache::open(path, 1 << 20).expect("opened"), "server", "1").expect("a thread")
}

#[tokio::test(start_paused = true)]
async fn a_file_outlives_its_process() {
    let world = World::new();
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("client.redb");
    {
        let near = near(&Wire::to(&world.hub), &file(&path));
        set(&near.remote, "a", 1).await;
        assert_eq!(near.sum().await, 1);
        let other = RedbCache::open(&path, 1 << 20).expect_err("in use");
        assert!(matches!(&other, CacheError::InUse(at) if *at == path), "{other}");
    }
    let wire = Wire::to(&world.hub);
    wire.set_down(true);
    let near = near(&wire, &file(&path));
    assert_eq!(near.sum().await, 1);
    assert!(!path.with_extension("redb.damaged").exists());
    wire.set_down(false);
    soon(near.remote.when_synchronized()).await.expect("there is a connection");
    assert_eq!(wire.heard_of(System::Match), 2);
}

fn entry(number: u64, bytes: usize) -> Change {
    Change { key: number.to_le_bytes().into(), value: Some(vec![number as u8; bytes].into()) }
}

fn has(cache: &RedbCache, number: u64, bytes: usize) -> bool {
    let kept = cache.get(&number.to_le_bytes()).expect("read");
    assert!(kept.as_ref().is_none_or(|kept| *kept == vec![number as u8; bytes]), "entry {number} is another");
    kept.is_some()
}

#[test]
fn a_file_that_is_damaged_or_another_is_moved_to_the_side_and_begun_anew() {
    let place = tempfile::tempdir().expect("a place");
    let (path, aside) = (place.path().join("client.redb"), place.path().join("client.redb.damaged"));
    {
        let cache = RedbCache::open(&path, 1 << 20).expect("opened");
        cache.write(&(0..100).map(|number| entry(number, 1000)).collect::<Vec<_>>()).expect("written");
        assert!(has(&cache, 99, 1000));
    }
    let whole = std::fs::read(&path).expect("read");
    let mut damaged = vec![b"not a database, but a text".to_vec(), vec![0; 100_000], whole[..300].to_vec()];
    for length in [1, whole.len() / 3, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        damaged.push(whole[..length].to_vec());
    }
    for at in (64..whole.len()).step_by(whole.len() / 50) {
        let mut file = whole.clone();
        file[at..(at + 100).min(whole.len())].iter_mut().for_each(|byte| *byte ^= 0x55);
        damaged.push(file);
    }
    let mut moved = 0;
    for (case, file) in damaged.iter().enumerate() {
        let _ = std::fs::remove_file(&aside);
        std::fs::write(&path, file).expect("written");
        let cache = RedbCache::open(&path, 1 << 20).unwrap_or_else(|error| panic!("case {case}: {error}"));
        if aside.exists() {
            moved += 1;
            assert!(!std::fs::read(&aside).expect("read").is_empty(), "case {case}");
        }
        // What is there is whole, and more can be kept.
        (0..100).for_each(|number| _ = has(&cache, number, 1000));
        cache.write(&[entry(1000, 10)]).expect("written");
        assert!(has(&cache, 1000, 10), "case {case}");
    }
    assert!(moved > 8, "{moved} of {} were found out", damaged.len());
    let missing = RedbCache::open(place.path().join("no such place/client.redb"), 1).expect_err("no place");
    assert!(matches!(missing, CacheError::Io { .. }), "{missing}");
}

#[test]
fn a_file_keeps_so_many_bytes_and_forgets_the_oldest_first() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("client.redb");
    let cache = RedbCache::open(&path, 1 << 20).expect("opened");
    for round in 0..40 {
        let mut changes: Vec<Change> = (0..100).map(|number| entry(round * 100 + number, 4000)).collect();
        // Written again, it is as new.
        changes.push(entry(7, 4000));
        cache.write(&changes).expect("written");
    }
    let kept: Vec<u64> = (0..4000).filter(|number| has(&cache, *number, 4000)).collect();
    assert_eq!(kept[0], 7);
    let last = 4000 - kept.len() as u64 + 1;
    assert_eq!(kept[1..], (last..4000).collect::<Vec<_>>(), "the newest");
    assert!((200..262).contains(&kept.len()), "{}", kept.len());
    let length = std::fs::metadata(&path).expect("a file").len();
    assert!(length < 8 << 20, "{length} bytes");
    cache.clear().expect("cleared");
    assert!(!has(&cache, 3999, 4000));
    cache.write(&[entry(1, 1), Change { key: 2_u64.to_le_bytes().into(), value: None }]).expect("written");
    assert!(has(&cache, 1, 1));
}

const CHILD: &str = "WELLSPRING_CACHE_OF_A_CHILD";

/// Not a test by itself: what the process does that is killed by the next one.
#[test]
fn a_child_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let cache = RedbCache::open(path, 1 << 20).expect("opened");
    for batch in 0.. {
        cache.write(&(0..50).map(|number| entry(batch % 7 * 50 + number, 1000)).collect::<Vec<_>>()).expect("written");
        println!("written {batch}");
    }
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_a_whole_file() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("client.redb");
    for round in 1..6 {
        let mut child = Command::new(std::env::current_exe().expect("this"))
            .args(["--exact", "a_child_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let written = lines.map(|line| line.expect("a line")).filter(|line| line.starts_with("written"));
        assert_eq!(written.take(round * 3).count(), round * 3, "it ended by itself");
        // In the middle of the next, most likely.
        child.kill().expect("killed");
        child.wait().expect("gone");
        let cache = RedbCache::open(&path, 1 << 20).expect("opened");
        assert!(!place.path().join("client.redb.damaged").exists(), "round {round}");
        for batch in 0..7_u64 {
            let whole = (0..50).filter(|number| has(&cache, batch * 50 + number, 1000)).count();
            assert!(whole == 0 || whole == 50, "batch {batch} is there in part: {whole}");
        }
        assert!(has(&cache, 0, 1000));
    }
}
