//! Entries that cannot be applied as they are.

use wellspring_tests::cluster::{Ask, Database, Job, News, Setup, group_key};

use crate::crowd::{Crowd, check, done, well};

/// Writes a row, and an entry that says so in its own way.
async fn poison(database: &Database, key: &str, value: i64, body: &str) {
    let row = match database {
        Database::Sqlite(_) => format!("INSERT OR REPLACE INTO rows VALUES ('{key}', {value})"),
        Database::Postgres { .. } => {
            format!("INSERT INTO rows VALUES ('{key}', {value}) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        }
    };
    let entry = database.entry(body);
    database.execute(&format!("BEGIN; {row}; {entry}; COMMIT")).await.expect("written");
}

everywhere!(a_poisoned_entry_is_reported_and_skipped_and_the_rest_is_applied, |place| {
    let setup = Setup::of(&place.backend);
    let crowd = Crowd::start(vec![setup; 2]).await;
    let key = |row| group_key(0, row);
    let bodies = [
        (r#"{"c":"of another version","k":[{"f":"nobody's","k":"1"},{"f":"row","k":"\"g0/0\""}]}"#, "no function `nobody's`"),
        (r#"{"c":"of another version","k":[{"f":"row","k":"[1,2]"}]}"#, "cannot be read"),
        ("}not JSON{", "its body cannot be read"),
    ];
    for index in 0..2 {
        well(&*crowd.member(index).await, Ask::Consume { name: format!("consumer {index}") }).await;
    }
    for (round, (body, told)) in (0..).zip(bodies) {
        // Something good before and after it.
        done(&*crowd.member(0).await, &format!("before {round}"), &Job::put(key(4), round)).await;
        for index in 0..2 {
            crowd.member(index).await.ask(Ask::Row { key: key(0) }).await.expect("read");
        }
        poison(&place.backend.database, &key(0), 1000 + round, body).await;
        let (_, position, _) = done(&*crowd.member(1).await, &format!("after {round}"), &Job::put(key(5), round)).await;
        for index in 0..2 {
            let member = crowd.member(index).await;
            well(&member, Ask::Until { key: key(0), value: Some(1000 + round) }).await;
            well(&member, Ask::Wait { position }).await;
            member.hear(told, |news| news.iter().any(|news| matches!(news, News::Poisoned(text) if text.contains(told)))).await;
            check(&member, told).await;
        }
    }
    // Consumers get what can be read of it.
    for index in 0..2 {
        let member = crowd.member(index).await;
        member
            .hear("an unreadable entry, consumed", |news| {
                news.iter().any(|news| matches!(news, News::ConsumedOther(text) if text.contains("Unreadable")))
            })
            .await;
    }
});
