//! `kill -9` at every step between the beginning of a command and its reply.

use wellspring_tests::cluster::{Answer, Ask, Database, Job, Ledger, Place, Setup, Step};

use crate::crowd::{Crowd, done, run, well};
use crate::{is_long, seed};

/// Rounds: in each one member dies at a step of a command, another one comes, does the same again under the same id, and everything is
/// looked at.
async fn rounds(place: &Place, rounds: u32, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let crowd = Crowd::start(vec![Setup::of(&place.backend); 3]).await;
    let database = &place.backend.database;
    let mut ledger = Ledger::default();
    let mut cached = 0;
    for round in 0..rounds {
        let step = Step::ALL[round as usize % Step::ALL.len()];
        let (id, job, victim) = (format!("{seed}-{round}"), Job::random(&mut random), random.usize(..crowd.len()));
        let when = format!("WELLSPRING_SEED={seed}, round {round}: {job:?} killed at {step:?}");
        let member = crowd.member(victim).await;
        well(&member, Ask::Arm { step, micros: random.u64(..3000) }).await;
        ledger.asked(&id);
        match run(&member, &id, &job).await {
            Err(_) => {}
            // Death may come after the reply.
            Ok(Answer::Done { token, .. }) if step == Step::Committing => ledger.done(&id, token),
            other => panic!("{when}: it went on: {other:?}"),
        }
        assert!(member.ended().await, "{when}: it did not die by a signal");
        let dump = database.dump().await.expect("dumped");
        assert_eq!(ledger.compare(&dump, false), [""; 0], "{when}");
        let was_done = dump.done.iter().any(|done| done.id == id);
        if let Some(commits) = step.commits() {
            assert_eq!(was_done, commits, "{when}: whether it was committed");
        }
        let member = crowd.replace(victim).await;
        let (token, position, repeated) = done(&member, &id, &job).await;
        // A server goes on with a commit that it got, also when whoever sent it is dead.
        let certain = step != Step::Committing || matches!(database, Database::Sqlite(_));
        assert!(repeated == was_done || (!certain && repeated), "{when}: repeated: {repeated}, was done: {was_done}");
        ledger.done(&id, token);
        let dump = database.dump().await.expect("dumped");
        assert_eq!(ledger.compare(&dump, false), [""; 0], "{when}, and repeated");
        for index in 0..crowd.len() {
            let member = crowd.member(index).await;
            for key in job.keys() {
                let value = dump.rows.get(&key).copied();
                well(&member, Ask::Until { key, value }).await;
            }
            well(&member, Ask::Wait { position }).await;
        }
        cached += crowd.check(&when).await;
    }
    assert!(cached > 10 * rounds as usize, "only {cached} values were cached when they were checked");
    println!("{rounds} rounds, {cached} cached values checked");
}

everywhere!(a_server_killed_at_any_step_of_a_command_leaves_all_of_it_or_nothing_and_a_repeat_does_it_once, |place| {
    let (short, long) = match place.backend.stream {
        None => (60, 500),
        Some(_) => (20, 200),
    };
    rounds(&place, if is_long() { long } else { short }, seed("kills")).await;
});
