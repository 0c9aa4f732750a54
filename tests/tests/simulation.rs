//! A cluster in one process on a simulated clock: servers over one database in memory, a log that shows operations late and out of
//! order, fails, repeats and forgets, hints that are lost, doubled and late, servers that stop and come back. One seed is one history.
//!
//! At the end of each history everything is let through, and then every value on every server is what the database has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{
    BoxFuture, Command, CommandId, Cursor, Entry, Head, Hinter, Hints, InvalidateError, LogId, LoggedFunctions, Op, OperationId,
    OperationLog, Place, Reading, Server, Store, StoreError, StoreErrorKind, Wakeup,
};

const SERVERS: usize = 4;
const KEYS: u32 = 12;
const STEPS: usize = 300;

/// Moves an amount from one key to another: the sum of all stays 0.
#[derive(Clone, Serialize, Deserialize)]
struct Move {
    from: u32,
    to: u32,
    amount: i64,
}

impl Command for Move {
    const NAME: &'static str = "Move";
    type Output = i64;
    type Error = InvalidateError;
}

/// The chance and the state of one history, shared by all that is faulty in it.
#[derive(Clone, Debug)]
struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    random: fastrand::Rng,
    faulty: bool,
    /// When an operation becomes visible, once it was asked for.
    shown_at: BTreeMap<Place, Instant>,
}

impl World {
    fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(Inner { random: fastrand::Rng::with_seed(seed), faulty: true, shown_at: BTreeMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below(&self, limit: u32) -> u32 {
        self.inner().random.u32(..limit)
    }

    /// Whether a fault of this chance in a hundred happens now.
    fn strikes(&self, percent: u32) -> bool {
        let mut inner = self.inner();
        inner.faulty && inner.random.u32(..100) < percent
    }

    async fn pause(&self, most_ms: u32) {
        let pause = if self.inner().faulty { self.below(most_ms) } else { 0 };
        tokio::time::sleep(Duration::from_millis(pause.into())).await;
    }

    /// From now on nothing is faulty, and what was committed is visible.
    fn heal(&self) {
        let mut inner = self.inner();
        inner.faulty = false;
        inner.shown_at.clear();
    }

    /// Whether an operation is visible by now. Each becomes so at a time of its own.
    fn shows(&self, place: Place) -> bool {
        let mut inner = self.inner();
        if !inner.faulty {
            return true;
        }
        let late = Duration::from_millis(inner.random.u64(..40));
        let now = Instant::now();
        *inner.shown_at.entry(place).or_insert(now + late) <= now
    }
}

/// A log over a database in memory in which a later operation can be seen before an earlier one, as with transactions that overlap.
/// Its cursor is what was seen: all below a place, and some above it.
#[derive(Debug)]
struct LateLog {
    memory: Memory,
    world: World,
}

#[derive(Serialize, Deserialize, Default)]
struct Seen {
    below: u64,
    above: BTreeSet<u64>,
}

impl LateLog {
    async fn all(&self, below: u64) -> Result<Result<Vec<Entry>, String>, StoreError> {
        match self.memory.log().read(&Cursor::new(below.to_string()), usize::MAX).await? {
            Reading::Entries { entries, .. } => Ok(Ok(entries)),
            Reading::Lost { reason, .. } => Ok(Err(reason)),
        }
    }

    fn advance(seen: &mut Seen) {
        while seen.above.remove(&(seen.below + 1)) {
            seen.below += 1;
        }
    }

    fn cursor(seen: &Seen) -> Cursor {
        Cursor::new(serde_json::to_string(seen).expect("numbers"))
    }
}

impl OperationLog for LateLog {
    fn id(&self) -> LogId {
        self.memory.log().id()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(async move {
            self.world.pause(20).await;
            if self.world.strikes(10) {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "finding the log's end"));
            }
            let end = self.memory.log().head().await?.horizon.major - 1;
            // What is visible now, with gaps as deep as operations can be late.
            let mut seen = Seen { below: end.saturating_sub(64), above: BTreeSet::new() };
            let entries = loop {
                match self.all(seen.below).await? {
                    Ok(entries) => break entries,
                    Err(_) => seen.below += 1,
                }
            };
            let mut recent = Vec::new();
            for entry in entries {
                if self.world.shows(entry.place) {
                    seen.above.insert(entry.place.major);
                    recent.push((entry.place, entry.operation));
                }
            }
            Self::advance(&mut seen);
            let horizon = Place::new(seen.below + 1, 0);
            recent.retain(|(place, _)| *place >= horizon);
            Ok(Head { cursor: Self::cursor(&seen), horizon, recent })
        })
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(async move {
            self.world.pause(10).await;
            if self.world.strikes(8) {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "reading the log"));
            }
            let mut seen: Seen = serde_json::from_str(since.as_str()).expect("a cursor of this log");
            let mut entries = match self.all(seen.below).await? {
                Ok(entries) => entries,
                Err(reason) => return Ok(Reading::lost(reason)),
            };
            entries.retain(|entry| !seen.above.contains(&entry.place.major) && self.world.shows(entry.place));
            let more = entries.len() > most;
            entries.truncate(most);
            seen.above.extend(entries.iter().map(|entry| entry.place.major));
            Self::advance(&mut seen);
            if self.world.strikes(10) {
                // At least once: as a stream whose relay was killed gives them.
                entries.extend(entries.clone());
            }
            let horizon = Place::new(seen.below + 1, 0);
            Ok(Reading::Entries { entries, cursor: Self::cursor(&seen), horizon, more })
        })
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { self.memory.log().trim(keep).await })
    }
}

/// Hints that are lost, doubled or late, for each server by itself.
#[derive(Debug)]
struct Rumours {
    at: usize,
    hinters: Arc<[Hinter; SERVERS]>,
    world: World,
}

impl Wakeup for Rumours {
    fn notify(&self) {
        for hinter in self.hinters.iter() {
            for _ in 0..self.world.below(3) {
                let (hinter, world) = (hinter.clone(), self.world.clone());
                tokio::spawn(async move {
                    world.pause(30).await;
                    hinter.hint();
                });
            }
        }
    }

    fn hints(&self) -> Hints {
        self.hinters[self.at].hints()
    }
}

struct Node {
    server: Server<Memory>,
    row: AsyncFunction<u32, i64>,
    total: AsyncFunction<(), i64>,
}

async fn start(memory: &Memory, world: &World, hinters: &Arc<[Hinter; SERVERS]>, at: usize) -> Node {
    loop {
        let engine = Engine::new();
        let rows = memory.clone();
        let slow = world.clone();
        let row = engine.async_function("row", move |_: Cx, key: u32| {
            let (rows, slow) = (rows.clone(), slow.clone());
            async move {
                let value = read(&rows, key);
                // What was read may be old by the time it is stored.
                slow.pause(15).await;
                value
            }
        });
        let row = row.expect("registered");
        let each = row.clone();
        let total = engine.async_function("total", move |cx: Cx, (): ()| {
            let each = each.clone();
            async move {
                let mut total = 0;
                for key in 0..KEYS {
                    total += each.get(&cx, &key).await.unwrap_or(i64::MIN / 100);
                }
                total
            }
        });
        let total = total.expect("registered");
        let functions = LoggedFunctions::new(&engine);
        let logged = functions.log(&row).expect("logged");
        let pace = world.clone();
        let handler = move |Move { from, to, amount }: Move, op: Op<Memory>| {
            let (logged, pace) = (logged.clone(), pace.clone());
            async move {
                for (key, change) in [(from, -amount), (to, amount)] {
                    op.invalidate(&logged, &key)?;
                    op.write(move |rows: &mut Write<'_>| {
                        let now = rows.get(&key.to_string()).map_or(0, |value| value.parse().expect("a number"));
                        rows.insert(key.to_string(), (now + change).to_string());
                        Ok::<_, InvalidateError>(())
                    });
                    pace.pause(5).await;
                }
                Ok(amount)
            }
        };
        let builder = Server::builder(&engine, memory.clone())
            .functions(&functions)
            .handler(handler)
            .log(LateLog { memory: memory.clone(), world: world.clone() })
            .wakeup(Rumours { at, hinters: hinters.clone(), world: world.clone() })
            .check_every(Duration::from_millis(100));
        // A log that cannot be read is no reason to serve.
        if let Ok(server) = builder.start().await {
            return Node { server, row, total };
        }
    }
}

fn read(memory: &Memory, key: u32) -> i64 {
    memory.read(|rows| rows.get(&key.to_string()).map_or(0, |value| value.parse().expect("a number")))
}

/// What happened, for comparing two runs of one seed.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    rows: Vec<i64>,
    operations: u64,
    restarts: usize,
    losses: u64,
    steps: Vec<(usize, u32)>,
    ended_ms: u128,
}

async fn history(seed: u64) -> Summary {
    fastrand::seed(seed);
    let (memory, world, hinters) = (Memory::new(), World::new(seed), Arc::new(std::array::from_fn(|_| Hinter::new())));
    let began = Instant::now();
    let mut nodes = Vec::new();
    for at in 0..SERVERS {
        nodes.push(start(&memory, &world, &hinters, at).await);
    }
    let mut summary = Summary::default();
    let mut done: BTreeMap<OperationId, i64> = BTreeMap::new();
    for _ in 0..STEPS {
        let (at, action) = (world.below(SERVERS as u32) as usize, world.below(100));
        let node = &nodes[at];
        summary.steps.push((at, action));
        match action {
            0..40 => {
                let call = Move { from: world.below(KEYS), to: world.below(KEYS), amount: world.below(100).into() };
                let id = CommandId::random();
                let limit = Duration::from_millis(world.below(12).into());
                // Some callers go before it is done, and some of those ask again, elsewhere.
                let first = tokio::time::timeout(limit, async { node.server.call(call.clone()).id(id.clone()).await }).await;
                let answer = match first {
                    Ok(answer) => Some(answer),
                    Err(_) if world.below(2) == 0 => {
                        let other = &nodes[world.below(SERVERS as u32) as usize];
                        Some(other.server.call(call).id(id).await)
                    }
                    Err(_) => None,
                };
                if let Some(answer) = answer {
                    let answer = answer.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                    done.insert(answer.position.operation, answer.value);
                }
            }
            40..70 => {
                let key = world.below(KEYS);
                let _ = tokio::time::timeout(Duration::from_millis(20), node.row.get(node.server.engine(), &key)).await;
            }
            70..85 => drop(node.total.get(node.server.engine(), &()).await),
            85..90 => tokio::time::sleep(Duration::from_millis(world.below(60).into())).await,
            90..93 => drop(memory.log().trim(Duration::from_millis(50)).await.expect("trimmed")),
            _ => {
                summary.restarts += 1;
                nodes[at] = start(&memory, &world, &hinters, at).await;
            }
        }
    }
    world.heal();
    let marker = loop {
        let call = Move { from: 0, to: 0, amount: 0 };
        if let Ok(done) = nodes[0].server.call(call).await {
            break done;
        }
    };
    for node in &nodes {
        node.server.wait_for(marker.position).await.expect("the same log");
        // Commits whose callers had gone are over too, and what they have left is read.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for key in 0..KEYS {
            let value = node.row.get(node.server.engine(), &key).await.expect("computed");
            assert_eq!(value, read(&memory, key), "seed {seed}: key {key} is stale");
        }
        assert_eq!(node.total.get(node.server.engine(), &()).await, Ok(0), "seed {seed}: an operation was half done, or done twice");
        node.server.engine().assert_consistent();
        summary.losses += node.server.stats().coverage_lost;
    }
    summary.rows = (0..KEYS).map(|key| read(&memory, key)).collect();
    summary.operations = done.len() as u64;
    summary.ended_ms = began.elapsed().as_millis();
    summary
}

fn simulate(seed: u64) -> Summary {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(history(seed))
}

#[test]
fn whatever_happens_on_the_way_in_the_end_every_server_has_what_the_database_has() {
    let seconds = std::env::var("WELLSPRING_SIMULATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let limit = Duration::from_secs(seconds);
    let began = std::time::Instant::now();
    let (mut seeds, mut losses, mut restarts) = (0, 0, 0);
    while seeds < 8 || began.elapsed() < limit {
        let summary = simulate(seeds);
        losses += summary.losses;
        restarts += summary.restarts;
        seeds += 1;
    }
    println!("{seeds} histories, {restarts} restarts, {losses} losses of coverage");
    assert!(losses > 0 && restarts > 0, "the histories are too tame");
}

#[test]
fn one_seed_is_one_history() {
    assert_eq!(simulate(7), simulate(7));
}
