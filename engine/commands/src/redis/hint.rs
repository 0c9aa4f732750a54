//! Hints through a channel of Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::redis::log::Connection;
use crate::wakeup::Hinter;

/// Aborted when dropped.
pub(crate) type Tasks = JoinSet<()>;

/// How long to wait before the first attempt to listen again, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// After how long without a message the connection is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(15);

/// Listens, and says what is notified here.
pub(crate) fn spawn(client: Client, link: &Connection, hinter: &Hinter, publish: &Arc<Notify>) -> Tasks {
    let mut tasks = Tasks::new();
    tasks.spawn(listen(client, link.clone(), hinter.clone()));
    tasks.spawn(say(link.clone(), publish.clone()));
    tasks
}

async fn listen(client: Client, link: Connection, hinter: Hinter) {
    let mut pause = AGAIN.0;
    loop {
        match tokio::time::timeout(link.options.timeout, subscribe(&client, &link.hint)).await {
            Ok(Ok(channel)) => {
                pause = AGAIN.0;
                // Whatever came while nobody listened.
                hinter.hint();
                hear(channel, &hinter, link.options.timeout).await;
                tracing::debug!("no hints from Redis: listening again");
            }
            Ok(Err(error)) => tracing::debug!(%error, "no hints from Redis: listening again"),
            Err(_) => tracing::debug!("no hints from Redis: listening again"),
        }
        tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// Until the connection breaks, which a silent one has to be asked for.
async fn hear(channel: redis::aio::PubSub, hinter: &Hinter, timeout: Duration) {
    let (mut commands, mut messages) = channel.split();
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(_) => hinter.hint(),
                None => return,
            },
            () = tokio::time::sleep(SILENCE) => match tokio::time::timeout(timeout, commands.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            },
        }
    }
}

async fn subscribe(client: &Client, channel: &str) -> redis::RedisResult<redis::aio::PubSub> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

async fn say(link: Connection, publish: Arc<Notify>) {
    loop {
        publish.notified().await;
        let mut command = redis::cmd("PUBLISH");
        command.arg(&link.hint).arg("");
        if let Err(error) = link.query::<u64>("hinting", &command).await {
            tracing::debug!(%error, "a hint could not be given");
        }
    }
}
