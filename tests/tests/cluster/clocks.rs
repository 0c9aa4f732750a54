//! Wrong clocks.

use wellspring_tests::cluster::{Ask, Job, Ledger, Setup, group_key};

use crate::crowd::{Crowd, done, losses, well};

everywhere!(clocks_that_are_minutes_apart_change_nothing, |place| {
    let setup = |skew_seconds| Setup { skew_seconds, ..Setup::of(&place.backend) };
    let crowd = Crowd::start(vec![setup(0), setup(600), setup(-600)]).await;
    let mut ledger = Ledger::default();
    for number in 0..30 {
        let (key, id) = (group_key(0, number % 3), format!("{number}"));
        let member = crowd.member(number as usize % 3).await;
        let (token, position, _) = done(&member, &id, &Job::put(key.clone(), i64::from(number))).await;
        ledger.done(&id, token);
        for index in 0..3 {
            let member = crowd.member(index).await;
            well(&member, Ask::Until { key: key.clone(), value: Some(i64::from(number)) }).await;
            well(&member, Ask::Wait { position }).await;
            // What every server does once in a while: by nobody's clock is anything half an hour old.
            well(&member, Ask::Trim { keep_ms: 30 * 60 * 1000 }).await;
        }
        let again = done(&*crowd.member((number as usize + 1) % 3).await, &id, &Job::put(key, i64::from(number))).await;
        assert_eq!(again, (token, position, true));
    }
    crowd.check("at the end").await;
    for index in 0..3 {
        let member = crowd.member(index).await;
        assert_eq!(losses(&member), 0, "{:?}", member.news());
    }
    let dump = place.backend.database.dump().await.expect("dumped");
    assert_eq!(ledger.compare(&dump, false), [""; 0]);
});
