//! The peer's cases of commands and operations (fusion-semantics §9.5), as far as they are not the conformance suite's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::params;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wellspring::{Cx, Engine, Function};
use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::sqlite::{self, Sqlite};
use wellspring_commands::{
    Builder, Call, Command, CommandError, CommandFault, Delivery, Event, InvalidateError, Logged, LoggedFunctions, Op, Pause, Reply,
    Server, StoreError, StoreErrorKind,
};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Key(#[from] InvalidateError),
    #[error("nested: {0}")]
    Nested(#[source] Box<CommandError<Failed>>),
    #[error("later, perhaps")]
    Transient(#[source] StoreError),
}

fn nested(error: CommandError<Failed>) -> Failed {
    Failed::Nested(Box::new(error))
}

macro_rules! command {
    ($name:ident { $($field:ident: $type:ty),* } -> $output:ty) => {
        #[derive(Clone, Debug, Serialize, Deserialize)]
        struct $name { $($field: $type),* }
        impl Command for $name {
            const NAME: &'static str = stringify!($name);
            type Output = $output;
            type Error = Failed;
        }
    };
}

command!(Log { message: String } -> ());
command!(Divide { dividend: i64, divisor: i64 } -> i64);
command!(Sum { numbers: Vec<i64> } -> i64);
command!(SetAll { keys: Vec<u32>, value: String } -> ());
command!(AddUsers { names: Vec<String> } -> usize);
command!(Flaky {} -> u32);
command!(Remind { after_s: Vec<u64> } -> ());

#[derive(Debug, Serialize, Deserialize)]
struct Reminder(u64);

impl Event for Reminder {
    const NAME: &'static str = "Reminder";
}

async fn server(database: &Memory, build: impl FnOnce(Builder<Memory>) -> Builder<Memory>) -> Server<Memory> {
    let builder = Server::builder(&Engine::new(), database.clone())
        .handler(|Log { message }: Log, op: Op<Memory>| async move {
            op.write(move |rows: &mut Write<'_>| {
                rows.insert("log".into(), message);
                Ok::<_, Failed>(())
            });
            Ok(())
        })
        .handler(|Divide { dividend, divisor }: Divide, _: Op<Memory>| async move {
            dividend.checked_div(divisor).ok_or_else(|| Failed::Said("divided by zero".into()))
        })
        .handler(|Sum { mut numbers }: Sum, op: Op<Memory>| async move {
            let Some(last) = numbers.pop() else { return Ok(0) };
            Ok(last + op.nest(Sum { numbers }).await.map_err(nested)?)
        });
    build(builder).start().await.expect("started")
}

#[tokio::test]
async fn command_r_basic() {
    let database = Memory::new();
    let server = server(&database, |builder| builder).await;
    server.call(Log { message: "hello".into() }).await.expect("nothing to return");
    assert_eq!(database.read(|rows| rows.get("log").cloned()).as_deref(), Some("hello"));
    assert_eq!(server.call(Divide { dividend: 4, divisor: 2 }).await.expect("a result").value, 2);
    let error = server.call(Divide { dividend: 4, divisor: 0 }).await.expect_err("an exception");
    assert!(matches!(error, CommandError::Handler(Failed::Said(text)) if text == "divided by zero"));
    assert_eq!(server.call(Sum { numbers: vec![1, 2, 3, 4] }).await.expect("a recursive one").value, 10);
}

#[tokio::test]
async fn execution_audit_a_filter_sees_a_command_once_and_none_that_is_nested_in_it() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let server = server(&Memory::new(), |builder| {
        builder.layer(tower::util::MapRequestLayer::new(move |call: Call| {
            count.fetch_add(1, Ordering::Relaxed);
            call
        }))
    })
    .await;
    server.call(Sum { numbers: vec![1, 2, 3] }).await.expect("done");
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn handler_filter_a_command_without_a_handler_is_an_error_and_an_event_waits_for_a_server_that_has_one() {
    let database = Memory::new();
    let remind = |Remind { after_s }: Remind, op: Op<Memory>| async move {
        for seconds in after_s {
            let emit = op.emit(&Reminder(seconds)).delay(Duration::from_secs(seconds)).send();
            emit.map_err(|error| Failed::Said(error.to_string()))?;
        }
        Ok(())
    };
    let without = server(&database, |builder| builder.handler(remind)).await;
    let unknown = without.call(SetAll { keys: vec![1], value: "x".into() }).await;
    assert!(matches!(unknown, Err(CommandError::Fault(CommandFault::NoHandler { .. }))));
    without.call(Remind { after_s: vec![0] }).await.expect("the event is nobody's here");
    let (tell, mut told) = mpsc::unbounded_channel();
    let _with = server(&database, |builder| {
        builder.on_event(move |Reminder(seconds): Reminder, _: Delivery<Memory>| std::future::ready(tell.send(seconds).map_err(Into::into)))
    })
    .await;
    assert_eq!(told.recv().await, Some(0));
}

/// One server over SQLite, whose users are rows.
async fn users(folder: &tempfile::TempDir) -> (Server<Sqlite>, Sqlite) {
    let store = Sqlite::open(folder.path().join("users.db")).expect("opened");
    rusqlite::Connection::open(store.path()).expect("opened").execute_batch("CREATE TABLE users (name TEXT PRIMARY KEY)").expect("created");
    let add = |AddUsers { mut names }: AddUsers, op: Op<Sqlite>| async move {
        let Some(name) = names.pop() else { return Ok(0) };
        if name.is_empty() {
            return Err(Failed::Said("a user has a name".into()));
        }
        op.write(move |sql: &mut sqlite::Write<'_>| sql.execute("INSERT INTO users VALUES (?)", params![name]).map(drop));
        Ok(1 + op.nest(AddUsers { names }).await.map_err(nested)?)
    };
    let server = Server::builder(&Engine::new(), store.clone()).handler(add).start().await.expect("started");
    (server, store)
}

#[tokio::test]
async fn db_operation_two_users_and_one_operation_or_nothing_at_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, store) = users(&folder).await;
    let counts = || {
        let sql = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM wellspring_operations)";
        store
            .read_blocking(|connection| connection.query_row(sql, [], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?))))
            .expect("read")
    };
    let names = |names: [&str; 2]| AddUsers { names: names.map(str::to_owned).to_vec() };
    server.call(names(["", "Ann"])).await.expect_err("one is invalid");
    assert_eq!(counts(), (0, 0));
    assert_eq!(server.call(names(["Bob", "Ann"])).await.expect("done").value, 2);
    assert_eq!(counts(), (2, 1));
    server.call(names(["Carol", "Ann"])).await.expect_err("one is there already");
    assert_eq!(counts(), (2, 1));
}

#[tokio::test]
async fn nested_operation_logger_what_every_nested_command_has_changed_is_stale() {
    let database = Memory::new();
    let node = async |count: Arc<AtomicU32>| {
        let engine = Engine::new();
        let rows = database.clone();
        let value: Function<u32, Option<String>> = engine
            .function("value", move |_: &Cx, key: &u32| {
                count.fetch_add(1, Ordering::Relaxed);
                rows.read(|rows| rows.get(&key.to_string()).cloned())
            })
            .expect("registered");
        let functions = LoggedFunctions::new(&engine);
        let logged: Logged<u32> = functions.log(&value).expect("logged");
        let set = move |SetAll { mut keys, value }: SetAll, op: Op<Memory>| {
            let logged = logged.clone();
            async move {
                let Some(key) = keys.pop() else { return Ok(()) };
                op.invalidate(&logged, &key)?;
                let row = format!("{value}{key}");
                op.write(move |rows: &mut Write<'_>| {
                    rows.insert(key.to_string(), row);
                    Ok::<_, Failed>(())
                });
                op.nest(SetAll { keys, value }).await.map_err(nested)
            }
        };
        let server = Server::builder(&engine, database.clone()).functions(&functions).handler(set).start().await.expect("started");
        (server, value)
    };
    let count = Arc::new(AtomicU32::new(0));
    let ((one, _), (two, value)) = (node(Arc::default()).await, node(count.clone()).await);
    let all = || [1, 2, 3].map(|key| value.get(two.engine(), &key).expect("computed"));
    assert_eq!(all(), [None, None, None]);
    let done = one.call(SetAll { keys: vec![1, 2, 3], value: "v".into() }).await.expect("done");
    two.wait_for(done.position).await.expect("the same log");
    assert_eq!(all(), ["v1", "v2", "v3"].map(|text| Some(text.to_owned())));
    assert_eq!((count.load(Ordering::Relaxed), two.stats().sweeps), (6, 1));
}

/// A handler that fails twice, for a reason that passes.
fn flaky(
    runs: &Arc<AtomicU32>,
    passes_after: u32,
) -> impl Fn(Flaky, Op<Memory>) -> std::future::Ready<Result<u32, Failed>> + Send + Sync + 'static {
    let runs = runs.clone();
    move |_, _| {
        let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
        std::future::ready(match run > passes_after {
            true => Ok(run),
            false => Err(Failed::Transient(StoreError::new(StoreErrorKind::Conflict, "writing"))),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn reprocessor_two_failures_that_pass_are_three_runs_and_two_retries_counted() {
    let runs = Arc::new(AtomicU32::new(0));
    let server = server(&Memory::new(), |builder| builder.handler(flaky(&runs, 2))).await;
    assert_eq!(server.call(Flaky {}).await.expect("the third time").value, 3);
    assert_eq!((server.stats().retries, server.stats().applied_own), (2, 1));
    let runs = Arc::new(AtomicU32::new(0));
    let impatient =
        self::server(&Memory::new(), |builder| builder.handler(flaky(&runs, 9)).retry(2, Pause::new(Duration::ZERO, Duration::ZERO))).await;
    impatient.call(Flaky {}).await.expect_err("twice is enough");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn reprocessor_nothing_is_tried_again_after_the_commit() {
    let runs = Arc::new(AtomicU32::new(0));
    let database = Memory::new();
    // A filter that fails for a passing reason once the command is done.
    let server = server(&database, |builder| {
        builder.handler(flaky(&runs, 0)).layer(tower::util::AndThenLayer::new(|reply: Reply| {
            let _ = reply.position();
            std::future::ready(Err::<Reply, tower::BoxError>(Box::new(StoreError::new(StoreErrorKind::Conflict, "afterwards"))))
        }))
    })
    .await;
    let error = server.call(Flaky {}).await.expect_err("it says so");
    assert!(matches!(error, CommandError::Filter(_)), "{error:?}");
    assert_eq!((runs.load(Ordering::Relaxed), server.stats().applied_own), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn log_watcher_local_wake_a_server_hears_its_own_hints() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = server(&Memory::new(), |builder| {
        builder
            .check_every(Duration::from_secs(3600))
            .handler(|_: Remind, op: Op<Memory>| {
                std::future::ready(op.emit(&Reminder(0)).send().map_err(|error| Failed::Said(error.to_string())))
            })
            .on_event(move |_: Reminder, _: Delivery<Memory>| std::future::ready(tell.send(()).map_err(Into::into)))
    })
    .await;
    let began = Instant::now();
    server.call(Remind { after_s: vec![] }).await.expect("done");
    told.recv().await.expect("done");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn events_delayed_timing_each_is_done_at_its_time_and_not_a_second_later() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let server = server(&Memory::new(), |builder| {
        builder
            .handler(|Remind { after_s }: Remind, op: Op<Memory>| async move {
                for seconds in after_s {
                    let emit = op.emit(&Reminder(seconds)).delay(Duration::from_secs(seconds)).send();
                    emit.map_err(|error| Failed::Said(error.to_string()))?;
                }
                Ok(())
            })
            .on_event(move |Reminder(seconds): Reminder, _: Delivery<Memory>| std::future::ready(tell.send(seconds).map_err(Into::into)))
    })
    .await;
    let began = Instant::now();
    server.call(Remind { after_s: vec![3, 1, 5, 2, 4] }).await.expect("done");
    for expected in 1..=5 {
        let seconds = told.recv().await.expect("done");
        let late = began.elapsed().saturating_sub(Duration::from_secs(seconds));
        assert!(
            seconds == expected && began.elapsed() >= Duration::from_secs(seconds) && late < Duration::from_secs(1),
            "{seconds} after {:?}",
            began.elapsed()
        );
    }
}
