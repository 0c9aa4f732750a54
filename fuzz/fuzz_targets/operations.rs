//! Two servers over one database in memory, one thread on a paused clock: commands, repeats and failures, callers that go
//! before they are answered, a log that shows operations late, in any order and twice, removes them, and servers that stop and come
//! back. Against a model: rows and results are what the commands say, no server ever sees an older value than it has written or seen,
//! and when everything was shown every value on every server is its row's.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde::{Deserialize, Serialize};
use wellspring::{Engine, Function};
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{
    BoxFuture, Command, CommandError, CommandFault, CommandId, Cursor, Head, InvalidateError, LogId, LogPosition, LoggedFunctions, Op,
    OperationLog, Place, Reading, Server, StoreError,
};

const SERVERS: usize = 2;
const KEYS: u8 = 4;
const CHECK: Duration = Duration::from_millis(100);

#[derive(Arbitrary, Debug)]
enum Act {
    Put {
        server: u8,
        key: u8,
        id: Option<u8>,
        end: End,
    },
    /// Of the same content as the first one of this id, if there was one.
    Repeat {
        server: u8,
        id: u8,
    },
    /// The caller goes after so many polls.
    Leave {
        server: u8,
        key: u8,
        polls: u8,
    },
    Read {
        server: u8,
        key: u8,
    },
    Total {
        server: u8,
    },
    /// Shows one more operation to a server: the one so far down among those hidden from it.
    Show {
        server: u8,
        index: u8,
    },
    Double {
        server: u8,
    },
    Trim,
    Restart {
        server: u8,
    },
    Sleep {
        millis: u8,
    },
    /// What was written at a server, read at another.
    Follow {
        from: u8,
        to: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum End {
    Well,
    Again,
    /// The handler fails after it has written.
    Fails,
    /// The write fails at the commit.
    IsRefused,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Put {
    key: u8,
    value: u64,
    end: End,
}

impl Command for Put {
    const NAME: &'static str = "Put";
    type Output = u64;
    type Error = Refused;
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Key(#[from] InvalidateError),
    #[error("as asked")]
    Asked,
}

/// The log as one server sees it.
#[derive(Clone, Debug)]
struct View {
    memory: Memory,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Operations that may be given out, though an earlier one may not.
    shown: BTreeSet<u64>,
    all: bool,
    double: bool,
}

impl View {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end(&self) -> u64 {
        self.memory.head().await.expect("in memory").horizon.major - 1
    }
}

/// `<all below and this>:<some above>,…`
fn cursor(below: u64, above: &BTreeSet<u64>) -> Cursor {
    Cursor::new(format!("{below}:{}", above.iter().map(u64::to_string).collect::<Vec<_>>().join(",")))
}

fn parse(cursor: &Cursor) -> (u64, BTreeSet<u64>) {
    let (below, above) = cursor.as_str().split_once(':').expect("a cursor of this log");
    let above = above.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().expect("a number")).collect();
    (below.parse().expect("a number"), above)
}

impl OperationLog for View {
    fn id(&self) -> LogId {
        self.memory.id()
    }

    /// Everything of now is shown to a server that starts now.
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        Box::pin(async {
            let end = self.end().await;
            self.seen().shown.clear();
            Ok(Head { cursor: cursor(end, &BTreeSet::new()), horizon: Place::new(end + 1, 0), recent: Vec::new() })
        })
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(async move {
            let (mut below, mut above) = parse(since);
            let mut entries = match self.memory.read_all(below).await? {
                Reading::Entries { entries, .. } => entries,
                lost @ Reading::Lost { .. } => return Ok(lost),
            };
            let mut seen = self.seen();
            entries.retain(|entry| !above.contains(&entry.place.major) && (seen.all || seen.shown.contains(&entry.place.major)));
            let more = entries.len() > most;
            entries.truncate(most);
            above.extend(entries.iter().map(|entry| entry.place.major));
            while above.remove(&(below + 1)) {
                below += 1;
            }
            if std::mem::take(&mut seen.double) {
                entries.extend(entries.clone());
            }
            Ok(Reading::Entries { entries, cursor: cursor(below, &above), horizon: Place::new(below + 1, 0), more })
        })
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.memory.trim(keep)
    }
}

trait ReadAll {
    fn read_all(&self, below: u64) -> impl Future<Output = Result<Reading, StoreError>> + Send;
}

impl ReadAll for Memory {
    async fn read_all(&self, below: u64) -> Result<Reading, StoreError> {
        OperationLog::read(self, &Cursor::new(below.to_string()), usize::MAX).await
    }
}

fn row(memory: &Memory, key: u8) -> u64 {
    memory.read(|rows| rows.get(&key.to_string()).map_or(0, |value| value.parse().expect("a number")))
}

struct Node {
    engine: Engine,
    server: Server<Memory>,
    value: Function<u8, u64>,
    total: Function<(), u64>,
    view: View,
    /// No older value of a key may be seen here: values only grow.
    floor: [u64; KEYS as usize],
    /// The last operation done here.
    last: Option<(LogPosition, u8, u64)>,
}

impl Node {
    async fn start(memory: &Memory) -> Node {
        let engine = Engine::builder().sweep_threads(1).build();
        let rows = memory.clone();
        let value = engine.function("value", move |_, key: &u8| row(&rows, *key)).expect("registered");
        let each = value.clone();
        let total = engine.function("total", move |cx, (): &()| (0..KEYS).map(|key| each.get(cx, &key).expect("a row")).sum::<u64>());
        let total = total.expect("registered");
        let functions = LoggedFunctions::new(&engine);
        let logged = functions.log(&value).expect("logged");
        let handler = move |Put { key, value, end }: Put, op: Op<Memory>| {
            let logged = logged.clone();
            async move {
                op.invalidate(&logged, &key)?;
                // Twice: half an operation would show.
                for name in [format!("copy of {key}"), key.to_string()] {
                    op.write(move |rows: &mut Write<'_>| {
                        rows.insert(name, value.to_string());
                        if end == End::IsRefused { Err(Refused::Asked) } else { Ok(()) }
                    });
                    tokio::task::yield_now().await;
                }
                match end {
                    End::Fails => Err(Refused::Asked),
                    _ => Ok(value),
                }
            }
        };
        let view = View { memory: memory.clone(), seen: Arc::default() };
        let builder = Server::builder(&engine, memory.clone()).functions(&functions).handler(handler).log(view.clone()).check_every(CHECK);
        let server = builder.start().await.expect("started");
        Node { engine, server, value, total, view, floor: [0; KEYS as usize], last: None }
    }

    fn saw(&mut self, key: u8, value: u64) {
        let floor = &mut self.floor[usize::from(key)];
        assert!(value >= *floor, "key {key}: {value} after {floor}");
        *floor = value;
    }

    fn read(&mut self, key: u8) -> u64 {
        let value = self.value.get(&self.engine, &key).expect("a row");
        self.saw(key, value);
        value
    }
}

struct World {
    memory: Memory,
    nodes: Vec<Node>,
    rows: BTreeMap<u8, u64>,
    /// What was asked under an id, and what came of it.
    journal: BTreeMap<u8, (Put, u64)>,
    next: u64,
}

/// Polls a future a few times; what it came to, if it is over by then.
async fn polled<F: Future>(future: F, polls: u8) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

impl World {
    async fn put(&mut self, at: usize, put: Put, id: Option<u8>) {
        let node = &mut self.nodes[at];
        let call = node.server.call(put.clone());
        let call = match id {
            Some(id) => call.id(CommandId::new(format!("id {id}")).expect("short")),
            None => call,
        };
        // Waiting for a repeated operation that is hidden here would not end: what is hidden is shown by and by, as in life.
        let hurry = node.view.clone();
        let show = async move {
            tokio::time::sleep(CHECK * 3).await;
            let end = hurry.end().await;
            hurry.seen().shown.extend(0..=end);
            std::future::pending::<()>().await;
        };
        let answer = tokio::select! {
            answer = async { call.await } => answer,
            () = show => unreachable!("it is pending"),
        };
        let journaled = id.and_then(|id| self.journal.get(&id));
        match (journaled, answer) {
            (Some((first, result)), Ok(done)) => {
                assert!((first.key, first.value, first.end) == (put.key, put.value, put.end) && done.repeated && done.value == *result);
                // Stale here by the time it is told of.
                let (key, written) = (first.key, *result);
                assert!(node.read(key) >= written, "a repeated command's own write is not read");
            }
            (Some((first, _)), Err(CommandError::Fault(CommandFault::IdReused { .. }))) => {
                assert!((first.key, first.value, first.end) != (put.key, put.value, put.end));
            }
            (None, Ok(done)) => {
                assert!(!done.repeated && done.value == put.value && matches!(put.end, End::Well | End::Again));
                self.rows.insert(put.key, put.value);
                node.last = Some((done.position, put.key, put.value));
                if let Some(id) = id {
                    self.journal.insert(id, (put.clone(), put.value));
                }
                assert_eq!(node.read(put.key), put.value, "its own write is not read");
            }
            (None, Err(CommandError::Handler(Refused::Asked))) => assert!(matches!(put.end, End::Fails | End::IsRefused)),
            (journaled, answer) => panic!("{put:?} under {id:?}, where {journaled:?} was journaled: {answer:?}"),
        }
        self.check_rows();
    }

    fn check_rows(&self) {
        let rows = |key: &u8| self.rows.get(key).map(u64::to_string);
        self.memory.read(|there| {
            for key in 0..KEYS {
                for name in [format!("copy of {key}"), key.to_string()] {
                    assert_eq!(there.get(&name).cloned(), rows(&key), "row {name}");
                }
            }
        });
    }

    fn fresh(&mut self, key: u8, end: End) -> Put {
        self.next += 1;
        Put { key: key % KEYS, value: self.next, end }
    }

    async fn act(&mut self, act: Act) {
        let at = |server: u8| usize::from(server) % SERVERS;
        match act {
            Act::Put { server, key, id, end } => {
                let put = self.fresh(key, end);
                self.put(at(server), put, id.map(|id| id % 4)).await;
            }
            Act::Repeat { server, id } => {
                let id = id % 4;
                if let Some((put, _)) = self.journal.get(&id).cloned() {
                    self.put(at(server), put, Some(id)).await;
                }
            }
            Act::Leave { server, key, polls } => {
                let put = self.fresh(key, End::Well);
                let node = &mut self.nodes[at(server)];
                let call = node.server.call(put.clone());
                let answered = polled(async { call.await }, polls % 8).await;
                // A commit that has begun goes on; after that nobody is left who could still do it.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let done = row(&self.memory, put.key) == put.value;
                if let Some(answer) = answered {
                    answer.expect("nothing was in its way");
                    assert!(done, "an answered command was not done");
                }
                if done {
                    assert_eq!(node.read(put.key), put.value, "a commit whose caller has gone is not seen where it was made");
                    self.rows.insert(put.key, put.value);
                }
                self.check_rows();
            }
            Act::Read { server, key } => drop(self.nodes[at(server)].read(key % KEYS)),
            Act::Total { server } => {
                let node = &mut self.nodes[at(server)];
                let total = node.total.get(&node.engine, &()).expect("rows");
                let values: u64 = (0..KEYS).map(|key| node.read(key)).sum();
                assert_eq!(total, values);
            }
            Act::Show { server, index } => {
                let view = self.nodes[at(server)].view.clone();
                let end = view.end().await;
                let mut seen = view.seen();
                let hidden: Vec<u64> = (1..=end).rev().take(32).filter(|place| !seen.shown.contains(place)).collect();
                if let Some(place) = hidden.get(usize::from(index) % hidden.len().max(1)) {
                    seen.shown.insert(*place);
                }
            }
            Act::Double { server } => self.nodes[at(server)].view.seen().double = true,
            Act::Trim => drop(self.memory.trim(Duration::ZERO).await.expect("in memory")),
            Act::Restart { server } => self.nodes[at(server)] = Node::start(&self.memory).await,
            Act::Sleep { millis } => tokio::time::sleep(Duration::from_millis(millis.into())).await,
            Act::Follow { from, to } => {
                let Some((position, key, value)) = self.nodes[at(from)].last else { return };
                let node = &mut self.nodes[at(to)];
                node.view.seen().shown.insert(position.place.major);
                node.server.wait_for(position).await.expect("the same log");
                assert!(node.read(key) >= value, "what was waited for is not read");
            }
        }
    }

    async fn settle(&mut self) {
        self.nodes.iter().for_each(|node| node.view.seen().all = true);
        let put = self.fresh(0, End::Well);
        self.put(0, put, None).await;
        let (marker, ..) = self.nodes[0].last.expect("it was done");
        for node in &mut self.nodes {
            node.server.wait_for(marker).await.expect("the same log");
            // Below the marker, too: one reading is one sweep, in no order that could be relied on.
            tokio::time::sleep(CHECK * 2).await;
            for (key, value) in (0..KEYS).map(|key| (key, self.rows.get(&key).copied().unwrap_or(0))) {
                assert_eq!(node.read(key), value, "key {key} is stale");
            }
            assert_eq!(node.total.get(&node.engine, &()), Ok(self.rows.values().sum()));
            assert_eq!(node.server.stats().poisoned, 0);
            node.engine.assert_consistent();
        }
    }
}

async fn run(acts: Vec<Act>) {
    fastrand::seed(7);
    let memory = Memory::new();
    let mut nodes = Vec::new();
    for _ in 0..SERVERS {
        nodes.push(Node::start(&memory).await);
    }
    let mut world = World { memory, nodes, rows: BTreeMap::new(), journal: BTreeMap::new(), next: 0 };
    for act in acts {
        world.act(act).await;
    }
    world.settle().await;
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(acts) = Vec::<Act>::arbitrary_take_rest(Unstructured::new(data)) else { return Corpus::Reject };
    if acts.is_empty() || acts.len() > 200 {
        return Corpus::Reject;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(run(acts));
    Corpus::Keep
});
