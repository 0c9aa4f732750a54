//! Several servers over one backend, in one process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use wellspring::{AsyncFunction, Cx, Engine, Fault};
use wellspring_commands::{
    Builder, Command, CommandError, Delivery, Done, Duplicate, Event, EventOptions, InvalidateError, LoggedFunctions, Notice, Op, Pause,
    Server,
};

use crate::backend::Backend;

/// How a handler of the suite fails.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

impl From<InvalidateError> for Refused {
    fn from(error: InvalidateError) -> Refused {
        Refused(error.to_string())
    }
}

impl Refused {
    pub(crate) fn by(error: impl std::fmt::Display) -> Refused {
        Refused(error.to_string())
    }
}

/// Writes a row, gives out an event if asked, and fails after all that if asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) emit: Option<Emitted>,
    pub(crate) fail: bool,
}

/// An event to be given out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Emitted {
    pub(crate) delay_ms: u64,
    pub(crate) partition: Option<String>,
    /// The de-duplication key and the rule, by its first letter.
    pub(crate) once: Option<(String, char)>,
}

impl Command for Put {
    const NAME: &'static str = "Put";
    type Output = String;
    type Error = Refused;
}

pub(crate) fn put(key: &str, value: &str) -> Put {
    Put { key: key.into(), value: value.into(), ..Put::default() }
}

pub(crate) fn emit(key: &str, emitted: Emitted) -> Put {
    Put { emit: Some(emitted), ..put(key, key) }
}

/// What `Put` gives out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WasPut {
    pub(crate) key: String,
    pub(crate) value: String,
}

impl Event for WasPut {
    const NAME: &'static str = "WasPut";
}

/// A cluster being tested.
pub(crate) struct Cluster<B: Backend> {
    pub(crate) backend: B,
}

/// One server of it.
pub(crate) struct Node<B: Backend> {
    pub(crate) server: Server<B::Store>,
    pub(crate) value: AsyncFunction<String, Option<String>>,
    pub(crate) notices: mpsc::UnboundedReceiver<Notice>,
}

/// Runs a test of the suite over a backend: nothing takes longer than a minute.
pub(crate) async fn run<B, T>(test: T)
where
    B: Backend,
    T: AsyncFn(&Cluster<B>),
{
    let Some(backend) = B::create().await else { return };
    let cluster = Cluster { backend };
    let over = tokio::time::timeout(Duration::from_secs(60), test(&cluster)).await;
    cluster.backend.end().await;
    over.expect("the test hangs");
}

impl<B: Backend> Cluster<B> {
    pub(crate) async fn node(&self) -> Node<B> {
        self.node_with(|builder| builder).await
    }

    /// A server that follows the log. Events are done by servers that are told to.
    pub(crate) async fn node_with(&self, build: impl FnOnce(Builder<B::Store>) -> Builder<B::Store>) -> Node<B> {
        let store = self.backend.open().await;
        let engine = Engine::new();
        let reader = store.clone();
        let value = engine.async_function("value", move |_: Cx, key: String| {
            let reader = reader.clone();
            async move { B::get(&reader, &key).await }
        });
        let value = value.expect("registered");
        let functions = LoggedFunctions::new(&engine);
        let logged = functions.log(&value).expect("logged");
        let (tell, notices) = mpsc::unbounded_channel();
        let handler = move |put: Put, op: Op<B::Store>| {
            let logged = logged.clone();
            async move {
                let Put { key, value, emit, fail } = put;
                op.invalidate(&logged, &key)?;
                op.set_item("value", &value).map_err(Refused::by)?;
                B::put(&op, key.clone(), value.clone()).await?;
                if let Some(Emitted { delay_ms, partition, once }) = emit {
                    let event = WasPut { key, value: value.clone() };
                    let mut emit = op.emit(&event).delay(Duration::from_millis(delay_ms));
                    if let Some(partition) = partition {
                        emit = emit.partition(partition);
                    }
                    if let Some((key, rule)) = once {
                        let rule = match rule {
                            's' => Duplicate::Skip,
                            'u' => Duplicate::Update,
                            _ => Duplicate::Fail,
                        };
                        emit = emit.once(key, rule);
                    }
                    emit.send().map_err(Refused::by)?;
                }
                if fail { Err(Refused("as asked".into())) } else { Ok(value) }
            }
        };
        let builder = Server::builder(&engine, store).functions(&functions).handler(handler).on_notice(move |notice| {
            let _ = tell.send(notice.clone());
        });
        let builder = self.backend.follow(builder).await;
        let server = build(builder).start().await.expect("started");
        Node { server, value, notices }
    }

    /// A server that does events: what it does arrives at the receiver.
    pub(crate) async fn worker(&self, options: EventOptions) -> (Node<B>, mpsc::UnboundedReceiver<WasPut>) {
        let (done, dones) = mpsc::unbounded_channel();
        (self.worker_to(options, done).await, dones)
    }

    /// A server that does events, and sends what it does.
    pub(crate) async fn worker_to(&self, options: EventOptions, done: mpsc::UnboundedSender<WasPut>) -> Node<B> {
        self.node_with(|builder| {
            builder.event_options(options).check_every(Duration::from_millis(200)).on_event(move |event: WasPut, _: Delivery<B::Store>| {
                let done = done.clone();
                async move {
                    if event.value == "bad" {
                        return Err("it is bad".into());
                    }
                    done.send(event).map_err(Into::into)
                }
            })
        })
        .await
    }
}

/// Event options that do not keep a test waiting.
pub(crate) fn quick() -> EventOptions {
    let pause = Pause::new(Duration::from_millis(10), Duration::from_millis(50));
    EventOptions { attempts: 2, pause, lease: Duration::from_secs(2), ..EventOptions::default() }
}

pub(crate) type Called = Result<Done<String>, CommandError<Refused>>;

impl<B: Backend> Node<B> {
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        self.value.get(self.server.engine(), key).await.unwrap_or_else(|fault: Fault| panic!("reading `{key}`: {fault}"))
    }

    pub(crate) async fn call(&self, put: Put) -> Called {
        self.server.call(put).await
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Done<String> {
        self.call(put(key, value)).await.expect("done")
    }

    /// Waits for a notice that `wanted` accepts.
    pub(crate) async fn notice<T>(&mut self, wanted: impl Fn(&Notice) -> Option<T>) -> T {
        loop {
            let notice = self.notices.recv().await.expect("the server is there");
            if let Some(found) = wanted(&notice) {
                return found;
            }
        }
    }

    pub(crate) async fn end(self) {
        self.server.shutdown().await;
        self.server.engine().assert_consistent();
    }
}

/// Ends nodes, in order.
pub(crate) async fn end<B: Backend>(nodes: impl IntoIterator<Item = Node<B>>) {
    for node in nodes {
        node.end().await;
    }
}

/// A node that tasks share.
pub(crate) type SharedNode<B> = Arc<Node<B>>;

/// The result of a task.
pub(crate) async fn join<T>(task: impl Future<Output = Result<T, tokio::task::JoinError>>) -> T {
    task.await.expect("the task does not panic")
}
