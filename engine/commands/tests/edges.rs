//! What happens at the edges: waits that never end, servers that end, code of the user's that panics, logs that are not the store's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use wellspring::{Cx, Engine};
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{
    BoxFuture, Builder, Command, CommandError, CommandFault, CommandId, Consumed, Cursor, Delivery, Entry, Event, EventOptions, Head,
    Hinter, Hints, InvalidateError, LogId, LogPosition, Missed, Notice, Op, OperationId, OperationLog, Place, Reading, Server, ServerId,
    StartError, Store, StoreError, WaitError, Wakeup,
};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Put {
    rows: HashMap<String, String>,
}

impl Command for Put {
    const NAME: &'static str = "Put";
    type Output = ();
    type Error = InvalidateError;
}

#[derive(Serialize, Deserialize)]
struct WasPut;

impl Event for WasPut {
    const NAME: &'static str = "WasPut";
}

fn put(key: &str) -> Put {
    Put { rows: HashMap::from([(key.into(), "x".into())]) }
}

async fn handle(Put { rows: new }: Put, op: Op<Memory>) -> Result<(), InvalidateError> {
    op.write(move |rows: &mut Write<'_>| {
        rows.extend(new);
        Ok::<_, InvalidateError>(())
    });
    Ok(())
}

#[derive(Clone, Serialize, Deserialize)]
struct Emit;

impl Command for Emit {
    const NAME: &'static str = "Emit";
    type Output = ();
    type Error = InvalidateError;
}

async fn emit(_: Emit, op: Op<Memory>) -> Result<(), InvalidateError> {
    op.emit(&WasPut).send().expect("JSON");
    Ok(())
}

async fn server(memory: &Memory, build: impl FnOnce(Builder<Memory>) -> Builder<Memory>) -> Server<Memory> {
    build(Server::builder(&Engine::new(), memory.clone()).handler(handle).handler(emit)).start().await.expect("started")
}

fn made_up(memory: &Memory) -> LogPosition {
    LogPosition { log: memory.log().id(), place: Place::new(u64::MAX, 0), operation: OperationId::new() }
}

/// A log whose readings are counted, and may be lost.
#[derive(Debug, Clone)]
struct Watched {
    log: Arc<dyn OperationLog>,
    id: LogId,
    reads: Arc<AtomicU32>,
    /// Readings of followers that are to lose operations, and of consumers.
    lose: Arc<[AtomicU32; 2]>,
    /// Whether a loss says where to go on: at the next operation.
    goes_on: bool,
}

impl Watched {
    fn new(memory: &Memory) -> Watched {
        let log = memory.log();
        Watched { id: log.id(), log, reads: Arc::default(), lose: Arc::default(), goes_on: false }
    }
}

impl Watched {
    async fn next(&self, kind: usize, since: &Cursor, most: usize) -> Result<Reading, StoreError> {
        if self.lose[kind].fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let next = self.goes_on.then(|| since.clone());
            return Ok(Reading::Lost { reason: "as asked".to_owned(), next });
        }
        self.log.read(since, most).await
    }
}

impl OperationLog for Watched {
    fn id(&self) -> LogId {
        self.id
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.log.head()
    }

    fn read<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Box::pin(self.next(0, since, most))
    }

    fn read_settled<'a>(&'a self, since: &'a Cursor, most: usize) -> BoxFuture<'a, Result<Reading, StoreError>> {
        Box::pin(self.next(1, since, most))
    }

    fn trim(&self, keep: Duration) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.log.trim(keep)
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_position_that_never_comes_costs_one_reading_and_not_an_endless_row_of_them() {
    let memory = Memory::new();
    let watched = Watched::new(&memory);
    let log = watched.clone();
    let server = server(&memory, |builder| builder.log(log).check_every(Duration::from_secs(1))).await;
    let before = watched.reads.load(Ordering::SeqCst);
    let waited = tokio::time::timeout(Duration::from_secs(10), server.wait_for(made_up(&memory))).await;
    assert!(waited.is_err(), "it came");
    let reads = watched.reads.load(Ordering::SeqCst) - before;
    assert!((8..=14).contains(&reads), "{reads} readings in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_waits_and_may_be_dropped_repeated_and_called_by_several() {
    let memory = Memory::new();
    let (running, mut runs) = mpsc::unbounded_channel();
    let server = server(&memory, |builder| {
        builder.on_event(move |_: WasPut, _: Delivery<Memory>| {
            let _ = running.send(());
            async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok(())
            }
        })
    })
    .await;
    server.call(Emit).await.expect("done");
    runs.recv().await.expect("begun");
    let waiting = tokio::spawn({
        let (server, position) = (server.clone(), made_up(&memory));
        async move { server.wait_for(position).await }
    });
    assert!(tokio::time::timeout(Duration::from_secs(1), server.shutdown()).await.is_err(), "the event was not waited for");
    tokio::join!(server.shutdown(), server.shutdown());
    assert_eq!(waiting.await.expect("no panic"), Err(WaitError::Closed));
    assert_eq!(server.wait_for(made_up(&memory)).await, Err(WaitError::Closed));
    assert!(matches!(server.call(put("b")).await, Err(CommandError::Fault(CommandFault::Closed { .. }))));
    server.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_not_filled_from_the_store_is_refused() {
    let memory = Memory::new();
    let foreign = Watched { id: LogId::random(), ..Watched::new(&memory) };
    let started = Server::builder(&Engine::new(), memory).log(foreign).start().await;
    assert!(matches!(started, Err(StartError::ForeignLog { .. })), "{started:?}");
}

fn entry(body: &str) -> Entry {
    Entry { place: Place::default(), operation: OperationId::new(), origin: ServerId::random(), body: body.to_owned() }
}

#[tokio::test]
async fn a_function_that_was_forgotten_to_be_logged_is_stale_all_the_same_and_one_that_is_not_there_is_told_once() {
    let memory = Memory::new();
    let engine = Engine::new();
    let (rows, plain) = (memory.clone(), memory.clone());
    let value = engine.function("value", move |_: &Cx, key: &String| rows.read(|rows| rows.get(key).cloned())).expect("registered");
    let merged = engine.define("merged").cut_off_eq().consolidate(Duration::ZERO);
    let merged = merged.function(move |_: &Cx, key: &String| plain.read(|rows| rows.get(key).cloned())).expect("registered");
    let (tell, mut told) = mpsc::unbounded_channel();
    let builder = Server::builder(&engine, memory.clone()).handler(handle).on_notice(move |notice| {
        let _ = tell.send(notice.clone());
    });
    let server = builder.start().await.expect("started");
    assert_eq!((value.get(&engine, "a"), merged.get(&engine, "a")), (Ok(None), Ok(None)));
    server.call(put("a")).await.expect("done");
    for _ in 0..2 {
        memory.append_raw(entry(r#"{"k":[{"f":"value","k":"\"a\""},{"f":"merged","k":"\"a\""},{"f":"nowhere","k":"1"}]}"#));
    }
    let mut reasons = Vec::new();
    while reasons.len() < 5 {
        let Some(Notice::Poisoned { reason, .. }) = told.recv().await else { panic!("another notice") };
        reasons.push(reason);
    }
    assert_eq!(reasons.iter().filter(|reason| reason.contains("`nowhere`")).count(), 1, "{reasons:?}");
    assert_eq!(value.get(&engine, "a"), Ok(Some("x".to_owned())));
    merged.when_consolidated("a").await;
    assert_eq!(merged.get(&engine, "a"), Ok(Some("x".to_owned())));
    engine.assert_consistent();
}

/// Hints that cannot be given.
#[derive(Debug, Default)]
struct Broken(Hinter);

impl Wakeup for Broken {
    fn notify(&self) {
        panic!("no hint");
    }

    fn hints(&self) -> Hints {
        self.0.hints()
    }
}

#[tokio::test]
async fn a_hint_that_panics_after_the_commit_leaves_the_command_done() {
    let memory = Memory::new();
    let server = server(&memory, |builder| builder.wakeup(Broken::default())).await;
    server.call(put("a")).await.expect("it is committed, and says so");
    assert!(memory.read(|rows| rows.contains_key("a")));
}

#[tokio::test]
async fn a_closure_that_panics_refuses_its_operation_and_nothing_else() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Panic;
    impl Command for Panic {
        const NAME: &'static str = "Panic";
        type Output = ();
        type Error = InvalidateError;
    }
    let memory = Memory::new();
    let server = server(&memory, |builder| {
        builder.handler(|_: Panic, op: Op<Memory>| {
            op.write(|rows: &mut Write<'_>| -> Result<(), InvalidateError> {
                rows.insert("a".into(), "half".into());
                panic!("at commit")
            });
            std::future::ready(Ok(()))
        })
    })
    .await;
    let refused = server.call(Panic).await.expect_err("it panicked");
    assert!(refused.to_string().contains("at commit"), "{refused}");
    assert!(memory.read(|rows| rows.is_empty()));
    server.call(put("b")).await.expect("the server goes on");
}

#[tokio::test]
async fn a_repeat_whose_maps_are_in_another_order_is_the_same_command() {
    let memory = Memory::new();
    let (one, two) = (server(&memory, |builder| builder).await, server(&memory, |builder| builder).await);
    // Each hash map has an order of its own.
    let many = || Put { rows: (0..20).map(|key| (key.to_string(), "x".to_owned())).collect() };
    let id = CommandId::random();
    one.call(many()).id(id.clone()).await.expect("done");
    for _ in 0..5 {
        assert!(two.call(many()).id(id.clone()).await.expect("the same command").repeated);
    }
}

#[tokio::test]
async fn listeners_are_told_where_operations_are_missing() {
    let memory = Memory::new();
    let watched = Watched::new(&memory);
    let log = watched.clone();
    let server = server(&memory, |builder| builder.log(log)).await;
    let mut applied = server.applied();
    let done = server.call(put("a")).await.expect("done");
    assert_eq!(applied.next().await.expect("heard").expect("there").position, done.position);
    watched.lose[0].store(1, Ordering::SeqCst);
    memory.append_raw(entry("{}"));
    assert_eq!(applied.next().await, Err(Missed::CoverageLost));
}

#[tokio::test]
async fn a_consumer_gets_what_the_log_still_has_after_a_gap() {
    let memory = Memory::new();
    let mut watched = Watched::new(&memory);
    watched.goes_on = true;
    let log = watched.clone();
    let server = server(&memory, |builder| builder.log(log)).await;
    let (heard, mut hears) = mpsc::unbounded_channel();
    let handler = move |consumed| {
        let heard = heard.clone();
        async move { Ok(heard.send(consumed)?) }
    };
    let consumer = server.consume("projection", handler.clone());
    while hears.try_recv().is_err() {
        server.call(put("start")).await.expect("done");
        tokio::task::yield_now().await;
    }
    consumer.stop().await;
    let missed = server.call(put("missed")).await.expect("done");
    watched.lose[1].store(1, Ordering::SeqCst);
    let consumer = server.consume("projection", handler);
    let mut gaps = 0;
    loop {
        match hears.recv().await.expect("it goes on") {
            Consumed::Gap { .. } => gaps += 1,
            Consumed::Operation(operation) if operation.position == missed.position => break,
            _ => {}
        }
    }
    assert_eq!(gaps, 1);
    consumer.stop().await;
}

#[tokio::test]
async fn what_is_committed_while_a_consumer_makes_up_for_a_gap_comes_after_it() {
    let memory = Memory::new();
    let watched = Watched::new(&memory);
    let log = watched.clone();
    let server = server(&memory, |builder| builder.log(log)).await;
    let (heard, mut hears) = mpsc::unbounded_channel();
    let (rebuilt, rebuilding) = tokio::sync::watch::channel(false);
    let consumer = server.consume("projection", move |consumed| {
        let (heard, mut rebuilding) = (heard.clone(), rebuilding.clone());
        async move {
            let gap = matches!(consumed, Consumed::Gap { .. });
            heard.send(consumed)?;
            if gap {
                rebuilding.wait_for(|rebuilt| *rebuilt).await?;
            }
            Ok(())
        }
    });
    while hears.try_recv().is_err() {
        server.call(put("start")).await.expect("done");
        tokio::task::yield_now().await;
    }
    watched.lose[1].store(1, Ordering::SeqCst);
    loop {
        server.call(put("more")).await.expect("done");
        match hears.try_recv() {
            Ok(Consumed::Gap { .. }) => break,
            _ => tokio::task::yield_now().await,
        }
    }
    let during = server.call(put("during")).await.expect("done");
    rebuilt.send_replace(true);
    loop {
        if let Consumed::Operation(operation) = hears.recv().await.expect("it goes on")
            && operation.position == during.position
        {
            break;
        }
    }
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_server_does_not_live_to_say_that_it_failed_dies_in_the_end() {
    let memory = Memory::new();
    let writer = server(&memory, |builder| builder).await;
    writer.call(Emit).await.expect("done");
    let queue = memory.events();
    let kinds = [WasPut::NAME.to_owned()];
    // Three servers take it, and are not heard of again.
    for _ in 0..3 {
        assert_eq!(queue.claim(&kinds, 1, Duration::from_secs(1)).await.expect("claimed").events.len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (ran, runs) = (Arc::new(AtomicU32::new(0)), mpsc::unbounded_channel());
    let (count, (tell, mut told)) = (ran.clone(), runs);
    let _worker = server(&memory, |builder| {
        builder
            .event_options(EventOptions { attempts: 3, ..EventOptions::default() })
            .on_notice(move |notice| {
                let _ = tell.send(notice.clone());
            })
            .on_event(move |_: WasPut, _: Delivery<Memory>| {
                count.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(()))
            })
    })
    .await;
    assert!(matches!(told.recv().await, Some(Notice::EventDead { .. })));
    assert_eq!((ran.load(Ordering::SeqCst), writer.dead_events(9).await.expect("listed").len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_checks_are_never_due_lives_by_hints() {
    let memory = Memory::new();
    let (one, two) = (server(&memory, |builder| builder.check_every(Duration::MAX)).await, server(&memory, |builder| builder).await);
    for round in 0..20 {
        let done = two.call(put(&round.to_string())).await.expect("done");
        let waited = tokio::time::timeout(Duration::from_secs(60), one.wait_for(done.position)).await;
        waited.expect("it is followed").expect("the same log");
    }
    assert!(!one.stats().is_blind);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_command_from_a_log_that_was_replaced_does_not_wait_for_it() {
    // As after a dump was restored elsewhere: the journal is there, and the log is another one.
    #[derive(Debug, Clone)]
    struct Restored(Memory, LogId);
    impl Store for Restored {
        type Tx = <Memory as Store>::Tx;
        async fn begin(&self) -> Result<Self::Tx, StoreError> {
            self.0.begin().await
        }
        async fn commit(
            &self,
            tx: Self::Tx,
            draft: wellspring_commands::Draft,
        ) -> Result<wellspring_commands::Committed, wellspring_commands::CommitError> {
            self.0.commit(tx, draft).await
        }
        async fn verify(&self, doubt: &wellspring_commands::Doubt) -> Result<wellspring_commands::Verdict, StoreError> {
            self.0.verify(doubt).await
        }
        async fn journaled(&self, id: &CommandId) -> Result<Option<wellspring_commands::JournalEntry>, StoreError> {
            let found = self.0.journaled(id).await?;
            Ok(found.map(|mut entry| {
                entry.position = LogPosition { log: self.1, place: Place::new(u64::MAX, 0), ..entry.position };
                entry
            }))
        }
        fn is_transient(&self, _: &(dyn std::error::Error + 'static)) -> bool {
            false
        }
        async fn trim_journal(&self, keep: Duration) -> Result<u64, StoreError> {
            self.0.trim_journal(keep).await
        }
        fn log(&self) -> Arc<dyn OperationLog> {
            self.0.log()
        }
        fn wakeup(&self) -> Arc<dyn Wakeup> {
            self.0.wakeup()
        }
        fn consumers(&self) -> Arc<dyn wellspring_commands::Consumers> {
            self.0.consumers()
        }
        fn events(&self) -> Arc<dyn wellspring_commands::EventQueue> {
            self.0.events()
        }
    }
    let memory = Memory::new();
    let id = CommandId::random();
    server(&memory, |builder| builder).await.call(put("a")).id(id.clone()).await.expect("done");
    let restored = Server::builder(&Engine::new(), Restored(memory, LogId::random()));
    let restored = restored.handler(|_: Put, _: Op<Restored>| std::future::ready(Ok(()))).start().await.expect("started");
    let repeat = tokio::time::timeout(Duration::from_secs(60), async { restored.call(put("a")).id(id).await }).await;
    assert!(repeat.expect("it does not wait").expect("done before").repeated);
}
