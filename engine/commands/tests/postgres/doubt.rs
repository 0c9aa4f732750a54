//! Commits whose end was not seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wellspring_commands::{CommitError, Store, Verdict};

use crate::database::{Database, draft, on_database};
use wellspring_commands::postgres::Postgres;

/// What a go-between does when it sees a `COMMIT` on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// Closes both sides instead of passing it on.
    Before,
    /// Passes it on, and closes the client's side before the answer.
    After,
    /// Closes the client's side, and leaves the server in the transaction.
    Silent,
}

/// Stands between a store and the database; its cut happens once, when it is armed.
async fn between(db: &Database, cut: Cut) -> (Postgres, Arc<AtomicBool>) {
    let config: tokio_postgres::Config = db.url.parse().expect("a url");
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        other => panic!("these tests need a server on TCP, not {other:?}"),
    };
    let server = (host, config.get_ports().first().copied().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let armed = Arc::new(AtomicBool::new(false));
    let arm = armed.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("accepted");
            let server = TcpStream::connect(server.clone()).await.expect("connected");
            tokio::spawn(pass(client, server, cut, arm.clone()));
        }
    });
    let user = config.get_user().unwrap_or("postgres");
    let password = config.get_password().map(|p| format!(":{}", String::from_utf8_lossy(p))).unwrap_or_default();
    let url = format!("postgres://{user}{password}@127.0.0.1:{port}/{}", config.get_dbname().unwrap_or("postgres"));
    let store = Postgres::builder(&url).schema(&db.schema).pool(2).connect().await.expect("connected");
    (store, armed)
}

async fn pass(client: TcpStream, server: TcpStream, cut: Cut, armed: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut bytes = [0; 8192];
    while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
        let commits = bytes[..n].windows(6).any(|window| window == b"COMMIT");
        if commits && armed.swap(false, Ordering::SeqCst) {
            back.abort();
            let _ = back.await;
            match cut {
                Cut::Before => {}
                Cut::After => to_server.write_all(&bytes[..n]).await.expect("passed on"),
                Cut::Silent => {
                    // The client's side closes with this task's halves; the server's stays, as behind a broken cable.
                    drop(from_client);
                    std::mem::forget(to_server);
                }
            }
            return;
        }
        if to_server.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
    back.abort();
}

async fn end(store: &Postgres, error: CommitError) -> (Box<wellspring_commands::Doubt>, Verdict) {
    let CommitError::InDoubt { doubt, .. } = error else { panic!("{error:?}") };
    for _ in 0..2_000 {
        match store.verify(&doubt).await.expect("asked") {
            Verdict::Running => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            verdict => return (doubt, verdict),
        }
    }
    panic!("running for ever");
}

#[tokio::test]
async fn a_commit_that_never_reached_the_server_is_found_to_be_rolled_back() {
    on_database(async |db| {
        let (store, armed) = between(db, Cut::Before).await;
        for _ in 0..5 {
            let tx = store.begin().await.expect("begun");
            armed.store(true, Ordering::SeqCst);
            let error = store.commit(tx, draft()).await.expect_err("cut");
            assert_eq!(end(&store, error).await.1, Verdict::RolledBack);
        }
        assert_eq!(db.count("operations").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_to_have_happened_at_its_place() {
    on_database(async |db| {
        let (store, armed) = between(db, Cut::After).await;
        for n in 1..=5 {
            let mut cursor = db.head().await;
            let tx = store.begin().await.expect("begun");
            armed.store(true, Ordering::SeqCst);
            let error = store.commit(tx, draft()).await.expect_err("cut");
            let (doubt, verdict) = end(&store, error).await;
            assert_eq!(verdict, Verdict::Committed);
            let (entries, _) = crate::database::read(&db.store, &mut cursor, 10).await;
            let found: Vec<_> = entries.iter().map(|entry| (entry.place, entry.operation)).collect();
            assert_eq!(found, [(doubt.position.place, doubt.position.operation)]);
            assert_eq!(db.count("operations").await, n);
        }
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_the_server_still_holds_open_is_running_until_it_ends() {
    on_database(async |db| {
        let (store, armed) = between(db, Cut::Silent).await;
        let tx = store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        armed.store(true, Ordering::SeqCst);
        let error = store.commit(tx, draft()).await.expect_err("cut");
        let CommitError::InDoubt { doubt, .. } = &error else { panic!("{error:?}") };
        assert_eq!(store.verify(doubt).await.expect("asked"), Verdict::Running);
        db.kill(pid).await;
        assert_eq!(end(&store, error).await.1, Verdict::RolledBack);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_ended_within_its_commit_is_in_doubt_whatever_it_said_last() {
    on_database(async |db| {
        let slow = db.slow_commits().await;
        let tx = db.store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        tx.batch_execute(&slow.insert).await.expect("inserted");
        let store = db.store.clone();
        let commit = tokio::spawn(async move { store.commit(tx, draft()).await });
        db.until(&slow.waiting).await;
        db.kill(pid).await;
        let error = commit.await.expect("ran").expect_err("killed");
        assert_eq!(end(&db.store, error).await.1, Verdict::RolledBack);
    })
    .await;
}

#[tokio::test]
async fn a_commit_that_is_dropped_while_it_waits_is_made_or_undone_and_leaves_nothing_behind() {
    on_database(async |db| {
        let slow = db.slow_commits().await;
        let tx = db.store.begin().await.expect("begun");
        let pid = db.backend_of(&tx).await;
        tx.batch_execute(&slow.insert).await.expect("inserted");
        {
            let mut commit = std::pin::pin!(db.store.commit(tx, draft()));
            tokio::select! {
                result = commit.as_mut() => panic!("{result:?}"),
                () = db.until(&slow.waiting) => {}
            }
        }
        db.until_gone(pid).await;
        assert_eq!(db.count("operations").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_killed_around_its_commit_never_leaves_a_wrong_word_about_it() {
    on_database(async |db| {
        let mut seen = [0; 3];
        for round in 0..90_u64 {
            let tx = db.store.begin().await.expect("begun");
            let pid = db.backend_of(&tx).await;
            let draft = draft();
            let id = uuid::Uuid::from_u128(draft.operation.as_u128());
            let commit = tokio::spawn({
                let store = db.store.clone();
                async move { store.commit(tx, draft).await }
            });
            // The kill falls at another moment of the commit each time.
            let delay = (round % 30) as f64 * 25e-6;
            db.other.execute("SELECT pg_sleep($1), pg_terminate_backend($2)", &[&delay, &pid]).await.expect("asked");
            let result = commit.await.expect("ran");
            db.until_gone(pid).await;
            let (which, committed) = match result {
                Ok(_) => (0, true),
                Err(CommitError::Failed(_)) => (1, false),
                Err(error) => (2, end(&db.store, error).await.1 == Verdict::Committed),
            };
            seen[which] += 1;
            let there = format!("SELECT count(*) FROM {}.operations WHERE id = $1", db.quoted());
            let there: i64 = db.other.query_one(&there, &[&id]).await.expect("asked").get(0);
            assert_eq!(there == 1, committed, "round {round}: {which}");
        }
        println!("committed, failed, in doubt: {seen:?}");
    })
    .await;
}
