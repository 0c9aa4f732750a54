//! What calling a command again costs.

use std::sync::Arc;
use std::time::Instant;

use wellspring_commands::CommandId;

use super::commands::{rate, rounds, slice};
use super::runtime;
use super::site::{Backend, Ground, text};
use crate::{Plan, Row, Unit};

pub(super) fn rows(name: &str, plan: Plan) -> Vec<Row> {
    [Backend::Sqlite, Backend::Postgres].into_iter().map(|backend| row(&format!("{name}/{}", backend.name()), plan, backend)).collect()
}

fn row(name: &str, plan: Plan, backend: Backend) -> Row {
    let peer = "one row by its key, without us";
    measure(name, plan, backend, peer).unwrap_or_else(|why| Row::skipped(name, Unit::RATE, peer, &why))
}

fn measure(name: &str, plan: Plan, backend: Backend, peer: &str) -> Result<Row, String> {
    let runtime = runtime()?;
    let ground = runtime.block_on(Ground::new(backend))?;
    let member = runtime.block_on(ground.site.join(true))?;
    let id = CommandId::random();
    runtime.block_on(member.server.put(1, 1, Some(id.clone())))?;
    let ours = || {
        let (server, id) = (member.server.clone(), id.clone());
        rate(&runtime, 1, plan, move |_, _| {
            let call = server.put(1, 1, Some(id.clone()));
            async move { call.await.map(drop) }
        })
    };
    let [ours, theirs] = match backend {
        Backend::Postgres => {
            let client = Arc::new(runtime.block_on(ground.site.postgres_client())?);
            let select = format!("SELECT value FROM {}.bench WHERE key = 1", ground.site.name);
            let statement = runtime.block_on(client.prepare(&select)).map_err(text)?;
            let theirs = || {
                let (client, statement) = (client.clone(), statement.clone());
                rate(&runtime, 1, plan, move |_, _| {
                    let (client, statement) = (client.clone(), statement.clone());
                    async move { client.query_one(&statement, &[]).await.map(drop).map_err(text) }
                })
            };
            rounds(plan, [&mut || ours(), &mut || theirs()])?
        }
        _ => {
            let connection = rusqlite::Connection::open(&ground.site.file).map_err(text)?;
            let mut statement = connection.prepare("SELECT value FROM bench WHERE key = 1").map_err(text)?;
            let mut theirs = || {
                let (begun, mut reads) = (Instant::now(), 0u32);
                while begun.elapsed() < slice(plan) {
                    statement.query_row([], |row| row.get::<_, i64>(0)).map_err(text)?;
                    reads += 1;
                }
                Ok(f64::from(reads) / begun.elapsed().as_secs_f64())
            };
            rounds(plan, [&mut || ours(), &mut || theirs()])?
        }
    };
    runtime.block_on(member.leave());
    runtime.block_on(ground.give_up())?;
    Ok(Row::versus(name, 1, Unit::RATE, &ours, peer, &theirs).note("nothing is written; the handler does not run"))
}
