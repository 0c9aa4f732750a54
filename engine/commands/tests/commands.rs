//! Commands, filters, nesting, the journal and events, over the store in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wellspring::{Cx, Engine, Function};
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{
    Command, CommandError, CommandFault, CommandId, Delivery, Duplicate, Event, EventOptions, InvalidateError, Logged, LoggedFunctions,
    Notice, Op, Pause, Server, StoreError, StoreErrorKind,
};

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl From<InvalidateError> for Refused {
    fn from(error: InvalidateError) -> Refused {
        Refused(error.to_string())
    }
}

macro_rules! command {
    ($name:ident { $($field:ident: $type:ty),* } -> $output:ty) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name { $($field: $type),* }
        impl Command for $name {
            const NAME: &'static str = stringify!($name);
            type Output = $output;
            type Error = Refused;
        }
    };
}

command!(Put { key: String, value: String } -> usize);
command!(PutBoth { first: String, second: String } -> ());
command!(Fail { after: Option<String> } -> ());

/// One server over a database that others share.
struct Shop {
    server: Server<Memory>,
    value: Function<String, Option<String>>,
    runs: Arc<AtomicU32>,
}

fn put(key: &str, value: &str) -> Put {
    Put { key: key.into(), value: value.into() }
}

async fn shop(
    database: &Memory,
    build: impl FnOnce(wellspring_commands::Builder<Memory>, &Logged<String>) -> wellspring_commands::Builder<Memory>,
) -> Shop {
    let engine = Engine::new();
    let rows = database.clone();
    let value = engine.function("value", move |_: &Cx, key: &String| rows.read(|rows| rows.get(key).cloned())).expect("registered");
    let functions = LoggedFunctions::new(&engine);
    let logged = functions.log(&value).expect("logged");
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let keys = logged.clone();
    let handler = move |Put { key, value }: Put, op: Op<Memory>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let keys = keys.clone();
        async move {
            op.invalidate(&keys, &key)?;
            let length = value.len();
            op.write(move |rows: &mut Write<'_>| {
                rows.insert(key, value);
                Ok::<_, Refused>(())
            });
            Ok(length)
        }
    };
    let both = |PutBoth { first, second }: PutBoth, op: Op<Memory>| async move {
        for key in [first, second] {
            op.nest(put(&key, "both")).await.map_err(|error| Refused(error.to_string()))?;
        }
        Ok(())
    };
    let fail = |Fail { after }: Fail, op: Op<Memory>| async move {
        if let Some(key) = after {
            op.nest(put(&key, "never")).await.map_err(|error| Refused(error.to_string()))?;
        }
        Err(Refused("it was to fail".into()))
    };
    let builder = Server::builder(&engine, database.clone()).functions(&functions).handler(handler).handler(both).handler(fail);
    let server = build(builder, &logged).start().await.expect("started");
    Shop { server, value, runs }
}

async fn plain(database: &Memory) -> Shop {
    shop(database, |builder, _| builder).await
}

impl Shop {
    fn get(&self, key: &str) -> Option<String> {
        self.value.get(self.server.engine(), key).expect("computed")
    }

    fn end(self) {
        self.server.engine().assert_consistent();
    }
}

#[tokio::test]
async fn a_caller_reads_its_own_write() {
    let one = plain(&Memory::new()).await;
    assert_eq!(one.get("a"), None);
    for value in ["x", "xy"] {
        let done = one.server.call(put("a", value)).await.expect("done");
        assert_eq!((done.value, done.repeated), (value.len(), false));
        assert_eq!(one.get("a").as_deref(), Some(value));
    }
    one.end();
}

#[tokio::test]
async fn a_change_on_one_server_is_stale_on_another_that_waits_for_its_position() {
    let database = Memory::new();
    let (one, two) = (plain(&database).await, plain(&database).await);
    assert_eq!(two.get("a"), None);
    let done = one.server.call(put("a", "x")).await.expect("done");
    two.server.wait_for(done.position).await.expect("the same log");
    assert_eq!(two.get("a").as_deref(), Some("x"));
    let other = plain(&Memory::new()).await;
    assert!(other.server.wait_for(done.position).await.is_err(), "a position of another log was accepted");
    one.end();
    two.end();
}

#[tokio::test]
async fn nested_commands_are_one_operation() {
    let database = Memory::new();
    let (one, two) = (plain(&database).await, plain(&database).await);
    let mut applied = two.server.applied();
    one.get("a");
    one.server.call(PutBoth { first: "a".into(), second: "b".into() }).await.expect("done");
    assert_eq!((one.get("a").as_deref(), one.get("b").as_deref()), (Some("both"), Some("both")));
    let done = one.server.call(put("c", "last")).await.expect("done");
    let names = [applied.next().await, applied.next().await].map(|next| next.expect("not too slow").expect("not over"));
    assert_eq!(names[0].command, "PutBoth");
    assert_eq!(names[1].position, done.position);
    one.end();
}

#[tokio::test]
async fn a_command_that_fails_leaves_nothing_behind() {
    let database = Memory::new();
    let one = plain(&database).await;
    let failed = one.server.call(Fail { after: Some("a".into()) }).await;
    assert!(matches!(failed, Err(CommandError::Handler(Refused(text))) if text == "it was to fail"));
    assert_eq!(one.get("a"), None);
    assert_eq!(one.server.stats().applied_own, 0);
    one.end();
}

#[tokio::test]
async fn a_repeat_of_a_named_command_gets_the_journaled_result_on_any_server() {
    let database = Memory::new();
    let (one, two) = (plain(&database).await, plain(&database).await);
    let id = CommandId::random();
    let first = one.server.call(put("a", "x")).id(id.clone()).await.expect("done");
    let again = two.server.call(put("a", "x")).id(id.clone()).await.expect("done before");
    assert_eq!((again.value, again.position, again.repeated), (1, first.position, true));
    assert_eq!(two.runs.load(Ordering::Relaxed), 0, "the handler ran again");
    assert_eq!(two.get("a").as_deref(), Some("x"));
    let other = two.server.call(put("a", "another")).id(id).await;
    assert!(matches!(other, Err(CommandError::Fault(CommandFault::IdReused { .. }))), "{other:?}");
}

#[tokio::test]
async fn of_many_calls_with_one_id_at_once_one_is_done() {
    let database = Memory::new();
    let one = Arc::new(plain(&database).await);
    let id = CommandId::random();
    let calls = (0..16).map(|_| {
        let (one, id) = (one.clone(), id.clone());
        tokio::spawn(async move { one.server.call(put("a", "x")).id(id).await.expect("done") })
    });
    let mut fresh = 0;
    for call in calls.collect::<Vec<_>>() {
        fresh += u32::from(!call.await.expect("no panic").repeated);
    }
    assert_eq!((fresh, one.server.stats().applied_own), (1, 1));
}

#[tokio::test]
async fn filters_are_tower_layers_and_the_first_is_the_outermost() {
    use tower::ServiceBuilder;
    let database = Memory::new();
    let one = shop(&database, |builder, _| {
        builder
            .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)))
            .layer(ServiceBuilder::new().map_request(|call: wellspring_commands::Call| call.with("from the filter")).into_inner())
            .layer(tower::util::MapRequestLayer::new(|call: wellspring_commands::Call| {
                assert_eq!(call.extension::<&str>(), Some(&"from the filter"));
                assert!(call.command::<Put>().is_some() && call.name() == "Put");
                call
            }))
    })
    .await;
    one.server.call(put("a", "x")).await.expect("done");
}

#[tokio::test]
async fn a_filter_can_refuse_and_nothing_is_done() {
    let one = shop(&Memory::new(), |builder, _| {
        builder.layer(tower::filter::FilterLayer::new(|call: wellspring_commands::Call| match call.extension::<Role>() {
            Some(Role("clerk")) => Ok(call),
            _ => Err(Box::<dyn std::error::Error + Send + Sync>::from(Refused("not allowed".into()))),
        }))
    })
    .await;
    let refused = one.server.call(put("a", "x")).await;
    assert!(matches!(&refused, Err(CommandError::Handler(Refused(text))) if text == "not allowed"), "{refused:?}");
    one.server.call(put("a", "x")).with(Role("clerk")).await.expect("allowed");
    assert_eq!(one.runs.load(Ordering::Relaxed), 1);
}

#[derive(Clone, Copy)]
struct Role(&'static str);

#[tokio::test]
async fn a_handler_that_panics_or_lets_its_operation_escape_is_a_fault_and_writes_nothing() {
    let database = Memory::new();
    let kept = Arc::new(std::sync::Mutex::new(None));
    let keep = kept.clone();
    command!(Escape {} -> ());
    command!(Panic {} -> ());
    let one = shop(&database, |builder, _| {
        builder
            .handler(move |_: Escape, op: Op<Memory>| {
                *keep.lock().expect("no panic") = Some(op);
                async { Ok(()) }
            })
            .handler(|_: Panic, _: Op<Memory>| async { panic!("as asked") })
    })
    .await;
    let escaped = one.server.call(Escape {}).await;
    assert!(matches!(escaped, Err(CommandError::Fault(CommandFault::Escaped { .. }))), "{escaped:?}");
    let panicked = one.server.call(Panic {}).await;
    assert!(matches!(panicked, Err(CommandError::Fault(CommandFault::Panicked { message, .. })) if message == "as asked"));
    one.server.call(put("a", "x")).await.expect("the server goes on");
}

#[tokio::test]
async fn what_has_no_handler_or_two_is_an_error() {
    command!(Unknown {} -> ());
    let one = plain(&Memory::new()).await;
    let unknown = one.server.call(Unknown {}).await;
    assert!(matches!(unknown, Err(CommandError::Fault(CommandFault::NoHandler { .. }))));
    let twice = Server::builder(&Engine::new(), Memory::new())
        .handler(|_: Unknown, _: Op<Memory>| async { Ok(()) })
        .handler(|_: Unknown, _: Op<Memory>| async { Ok(()) });
    assert!(twice.start().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_as_the_same_operation() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tries = seen.clone();
    #[derive(Debug, thiserror::Error)]
    #[error("below")]
    struct Below(#[source] StoreError);
    #[derive(Clone, Serialize, Deserialize)]
    struct Busy;
    impl Command for Busy {
        const NAME: &'static str = "Busy";
        type Output = usize;
        type Error = Below;
    }
    let one = shop(&Memory::new(), |builder, _| {
        builder.retry(3, Pause::new(Duration::from_millis(10), Duration::from_secs(1))).handler(move |_: Busy, op: Op<Memory>| {
            let mut tries = tries.lock().expect("no panic");
            tries.push(op.id());
            let count = tries.len();
            async move { if count % 3 == 0 { Ok(count) } else { Err(Below(StoreError::new(StoreErrorKind::Conflict, "writing"))) } }
        })
    })
    .await;
    assert_eq!(one.server.call(Busy).await.expect("the third time").value, 3);
    let ids = seen.lock().expect("no panic").clone();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(one.server.stats().retries, 2);
}

#[tokio::test]
async fn a_key_that_would_come_back_as_another_is_an_error_at_the_call() {
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Sly {
        #[serde(skip)]
        hidden: u32,
    }
    command!(Touch { hidden: u32 } -> ());
    let engine = Engine::new();
    let function = engine.function("sly", |_: &Cx, sly: &Sly| sly.hidden).expect("registered");
    let functions = LoggedFunctions::new(&engine);
    let sly = functions.log(&function).expect("logged");
    let foreign = Engine::new();
    assert!(LoggedFunctions::new(&foreign).log(&function).is_err());
    let server = Server::builder(&engine, Memory::new()).functions(&functions).handler(move |Touch { hidden }: Touch, op: Op<Memory>| {
        let touched = op.invalidate(&sly, &Sly { hidden }).map_err(Refused::from);
        async move { touched }
    });
    let server = server.start().await.expect("started");
    server.call(Touch { hidden: 0 }).await.expect("comes back as itself");
    let refused = server.call(Touch { hidden: 1 }).await;
    assert!(matches!(&refused, Err(CommandError::Handler(Refused(text))) if text.contains("`sly`")), "{refused:?}");
}

#[derive(Debug, Serialize, Deserialize)]
struct Sold {
    key: String,
}

impl Event for Sold {
    const NAME: &'static str = "Sold";
}

#[tokio::test(start_paused = true)]
async fn an_event_is_done_after_its_delay_and_its_command_once_however_often_it_fails() {
    command!(Sell { key: String } -> ());
    let database = Memory::new();
    let attempts = Arc::new(AtomicU32::new(0));
    let count = attempts.clone();
    let done = Arc::new(tokio::sync::Notify::new());
    let tell = done.clone();
    let one = shop(&database, |builder, _| {
        builder
            .handler(|Sell { key }: Sell, op: Op<Memory>| async move {
                let emit = op.emit(&Sold { key }).delay(Duration::from_secs(60)).once("sold", Duplicate::Fail).send();
                emit.map_err(|error| Refused(error.to_string()))
            })
            .on_event(move |sold: Sold, delivery: Delivery<Memory>| {
                let attempt = count.fetch_add(1, Ordering::Relaxed) + 1;
                let tell = tell.clone();
                async move {
                    let put = delivery.server().call(put(&sold.key, "sold")).id(delivery.command_id(0)).await?;
                    assert_eq!(put.repeated, attempt > 1);
                    if attempt < 3 {
                        return Err("not yet".into());
                    }
                    tell.notify_one();
                    Ok(())
                }
            })
    })
    .await;
    one.server.call(Sell { key: "a".into() }).await.expect("done");
    let twice = one.server.call(Sell { key: "a".into() }).await;
    assert!(matches!(twice, Err(CommandError::Fault(CommandFault::Store { .. }))), "a second event of the key was accepted");
    let began = tokio::time::Instant::now();
    done.notified().await;
    assert!(began.elapsed() >= Duration::from_secs(60), "too early: {:?}", began.elapsed());
    assert_eq!((attempts.load(Ordering::Relaxed), one.runs.load(Ordering::Relaxed)), (3, 1));
    one.server.shutdown().await;
    one.end();
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_too_often_is_dead_until_it_is_requeued() {
    command!(Sell { key: String } -> ());
    let database = Memory::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_broken = broken.clone();
    let one = shop(&database, |builder, _| {
        let done = tell.clone();
        builder
            .event_options(EventOptions { attempts: 2, ..EventOptions::default() })
            .on_notice(move |notice| {
                let _ = tell.send(format!("{notice:?}").split(' ').next().unwrap_or_default().to_owned());
            })
            .handler(|Sell { key }: Sell, op: Op<Memory>| async move {
                op.emit(&Sold { key }).partition("p").send().map_err(|error| Refused(error.to_string()))
            })
            .on_event(move |sold: Sold, _: Delivery<Memory>| {
                let (broken, done) = (is_broken.load(Ordering::Relaxed) && sold.key == "bad", done.clone());
                async move {
                    if broken {
                        return Err("broken".into());
                    }
                    let _ = done.send(sold.key);
                    Ok(())
                }
            })
    })
    .await;
    for key in ["bad", "good"] {
        one.server.call(Sell { key: key.into() }).await.expect("done");
    }
    let mut next = async || told.recv().await.expect("told");
    assert_eq!([next().await, next().await, next().await], ["EventFailed", "EventDead", "good"], "the partition's order");
    let dead = one.server.dead_events(10).await.expect("listed");
    assert_eq!((dead.len(), dead[0].attempts, dead[0].error.as_str()), (1, 2, "broken"));
    broken.store(false, Ordering::Relaxed);
    assert!(one.server.requeue(dead[0].id).await.expect("requeued"));
    assert_eq!(next().await, "bad");
    assert!(!one.server.requeue(dead[0].id).await.expect("asked"), "it is not dead any more");
}

#[tokio::test]
async fn a_server_that_is_shut_down_does_nothing_any_more() {
    let one = plain(&Memory::new()).await;
    one.server.shutdown().await;
    let closed = one.server.call(put("a", "x")).await;
    assert!(matches!(closed, Err(CommandError::Fault(CommandFault::Closed { .. }))), "{closed:?}");
    assert_eq!((one.get("a"), one.runs.load(Ordering::Relaxed)), (None, 0), "its handler ran");
}

#[tokio::test]
async fn poison_is_told_and_leaves_nothing_stale() {
    use wellspring_commands::{Entry, OperationId, Place, ServerId};
    let database = Memory::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let two = shop(&database, |builder, _| {
        builder.on_notice(move |notice| {
            let _ = tell.send(notice.clone());
        })
    })
    .await;
    assert_eq!(two.get("a"), None);
    for (body, expected) in [("nonsense", "everything"), (r#"{"k":[{"f":"unknown","k":"1"},{"f":"value","k":"7"}]}"#, "no function")] {
        let entry = Entry { place: Place::default(), operation: OperationId::new(), origin: ServerId::random(), body: body.into() };
        let computes = two.server.engine().stats().computes;
        database.append_raw(entry);
        let Some(Notice::Poisoned { reason, .. }) = told.recv().await else { panic!("not told") };
        assert!(reason.contains(expected), "{reason}");
        if body != "nonsense" {
            let Some(Notice::Poisoned { reason, .. }) = told.recv().await else { panic!("not told") };
            assert!(reason.contains("all its keys are stale"), "{reason}");
        }
        assert_eq!(two.get("a"), None);
        assert_eq!(two.server.engine().stats().computes, computes + 1, "{body} left `a` as it was");
    }
    two.end();
}

/// Polls a call up to the given number of times and drops it.
async fn abandon<F: IntoFuture>(call: F, polls: u32) -> bool {
    let mut future = std::pin::pin!(call.into_future());
    for poll in 0..polls {
        if poll > 0 {
            tokio::task::yield_now().await;
        }
        let ready = std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ready {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_caller_that_goes_at_any_point_of_waiting_leaves_all_or_nothing_and_never_something_stale() {
    let mut outcomes = std::collections::HashSet::new();
    for polls in 0..12 {
        let database = Memory::new();
        let one = plain(&database).await;
        assert_eq!(one.get("a"), None);
        abandon(one.server.call(put("a", "x")), polls).await;
        one.server.shutdown().await;
        let there = database.read(|rows| rows.contains_key("a"));
        assert_eq!(one.get("a").is_some(), there, "after {polls} polls a stale value was left");
        outcomes.insert(there);
        one.end();
    }
    assert_eq!(outcomes.len(), 2, "the call was never left before its commit, or never after");
}

#[tokio::test]
async fn a_commit_whose_caller_has_gone_goes_on_and_is_told() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let database = Memory::new();
    let one = shop(&database, |builder, _| {
        builder.on_notice(move |notice| {
            let _ = tell.send(notice.clone());
        })
    })
    .await;
    // With a database in memory the first poll comes to the commit.
    assert!(!abandon(one.server.call(put("a", "x")), 1).await);
    let told = tokio::time::timeout(Duration::from_secs(10), told.recv()).await;
    assert!(matches!(told, Ok(Some(Notice::Abandoned { .. }))), "{told:?}");
    assert_eq!(one.get("a").as_deref(), Some("x"));
}

/// A log that another one fills, and that has not brought anything yet.
#[derive(Debug, Clone, Default)]
struct Behind {
    memory: Memory,
    lost: Arc<std::sync::atomic::AtomicBool>,
    trims: Arc<AtomicU32>,
}

impl wellspring_commands::OperationLog for Behind {
    fn id(&self) -> wellspring_commands::LogId {
        self.memory.id()
    }

    fn head(&self) -> wellspring_commands::BoxFuture<'_, Result<wellspring_commands::Head, StoreError>> {
        let (cursor, horizon) = (wellspring_commands::Cursor::new("0"), wellspring_commands::Place::new(1, 0));
        Box::pin(std::future::ready(Ok(wellspring_commands::Head { cursor, horizon, recent: Vec::new() })))
    }

    fn read<'a>(
        &'a self,
        since: &'a wellspring_commands::Cursor,
        _: usize,
    ) -> wellspring_commands::BoxFuture<'a, Result<wellspring_commands::Reading, StoreError>> {
        use wellspring_commands::{Place, Reading};
        let reading = match self.lost.swap(false, Ordering::SeqCst) {
            true => Reading::lost("as asked"),
            false => Reading::Entries { entries: Vec::new(), cursor: since.clone(), horizon: Place::new(1, 0), more: false },
        };
        Box::pin(std::future::ready(Ok(reading)))
    }

    fn trim(&self, _: Duration) -> wellspring_commands::BoxFuture<'_, Result<u64, StoreError>> {
        self.trims.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(0)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_operation_that_the_log_has_not_brought_stays_applied_when_coverage_is_lost() {
    let behind = Behind::default();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let log = behind.clone();
    let one = shop(&behind.memory, |builder, _| {
        builder.log(log).on_notice(move |notice| {
            let _ = tell.send(notice.clone());
        })
    })
    .await;
    let done = one.server.call(put("a", "x")).await.expect("done");
    behind.lost.store(true, Ordering::SeqCst);
    assert!(matches!(told.recv().await, Some(Notice::CoverageLost { .. })));
    let waited = tokio::time::timeout(Duration::from_secs(60), one.server.wait_for(done.position)).await;
    waited.expect("it is applied here").expect("the same log");
    assert_eq!(one.get("a").as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_removed_from_the_store_too_where_another_log_is_followed() {
    use wellspring_commands::{Cursor, OperationLog, Reading, Retention};
    let behind = Behind::default();
    let log = behind.clone();
    let retention = Retention { log: Duration::from_secs(5), period: Duration::from_secs(10), ..Retention::default() };
    let one = shop(&behind.memory, |builder, _| builder.log(log).retention(retention)).await;
    one.server.call(put("a", "x")).await.expect("done");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(behind.trims.load(Ordering::SeqCst) > 0);
    assert!(matches!(OperationLog::read(&behind.memory, &Cursor::new("0"), 10).await, Ok(Reading::Lost { .. })));
}
