//! Hints through a channel of Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backoff::Pause;
use crate::redis::RedisOptions;
use crate::redis::log::Connection;
use crate::wakeup::Hinter;

/// Aborted when dropped.
pub(crate) type Tasks = JoinSet<()>;

/// Before listening again.
const AGAIN: Pause = Pause::new(Duration::from_millis(50), Duration::from_secs(2));

/// Listens, and says what is notified here.
pub(crate) fn spawn(client: Client, link: &Connection, hinter: &Hinter, publish: &Arc<Notify>) -> Tasks {
    let mut tasks = Tasks::new();
    tasks.spawn(listen(client, link.clone(), hinter.clone()));
    tasks.spawn(say(link.clone(), publish.clone()));
    tasks
}

async fn listen(client: Client, link: Connection, hinter: Hinter) {
    let mut failures = 0;
    loop {
        match tokio::time::timeout(link.options.timeout, subscribe(&client, &link.hint)).await {
            Ok(Ok(channel)) => {
                failures = 0;
                // Whatever came while nobody listened.
                hinter.hint();
                hear(channel, &hinter, &link.options).await;
                tracing::debug!("no hints from Redis: listening again");
            }
            Ok(Err(error)) => tracing::debug!(%error, "no hints from Redis: listening again"),
            Err(_) => tracing::debug!("no hints from Redis: listening again"),
        }
        failures += 1;
        tokio::time::sleep(AGAIN.after(failures)).await;
    }
}

/// Until the connection breaks, which a silent one has to be asked for.
async fn hear(channel: redis::aio::PubSub, hinter: &Hinter, options: &RedisOptions) {
    let (mut commands, mut messages) = channel.split();
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(_) => hinter.hint(),
                None => return,
            },
            () = tokio::time::sleep(options.ping) => match tokio::time::timeout(options.timeout, commands.ping::<redis::Value>()).await {
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
