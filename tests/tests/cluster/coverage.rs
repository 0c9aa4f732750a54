//! Sleeping while the log is trimmed.

use wellspring_tests::cluster::{Ask, Job, Setup, every_key, group_key};

use crate::crowd::{check, done, losses, start, well};

everywhere!(a_server_that_slept_while_the_log_was_trimmed_says_so_and_is_fresh, |place| {
    let setup = Setup::of(&place.backend);
    // What it held while it sleeps, others would wait for.
    let reader = Setup { relays: false, ..setup.clone() };
    let (awake, watcher, asleep) = (start(&setup).await, start(&reader).await, start(&reader).await);
    let (_, position, _) = done(&awake, "first", &Job::put(group_key(0, 0), 1)).await;
    well(&asleep, Ask::Wait { position }).await;
    // All of it is cached there, and all of it old when it wakes up.
    for key in every_key() {
        asleep.ask(Ask::Row { key }).await.expect("read");
    }
    asleep.stop();
    let mut last = position;
    for (number, key) in (100..).zip(every_key()) {
        last = done(&awake, &format!("{key} while it sleeps"), &Job::put(key.clone(), number)).await.1;
    }
    well(&watcher, Ask::Wait { position: last }).await;
    well(&awake, Ask::Trim { keep_ms: 0 }).await;
    asleep.go_on();
    asleep.hear("that coverage was lost", |_| losses(&asleep) == 1).await;
    well(&asleep, Ask::Wait { position: last }).await;
    check(&asleep, "awake again").await;
    check(&awake, "who was awake").await;
    for member in [awake, watcher] {
        assert_eq!(losses(&member), 0, "{:?}", member.news());
    }
});
