//! Without hints.

use wellspring_tests::cluster::{Ask, Job, Setup, group_key};

use crate::crowd::{Crowd, done, well};

everywhere!(a_server_that_no_hint_ever_reaches_is_fresh_after_a_check_period, |place| {
    let setup = Setup { deaf: true, check_ms: 50, ..Setup::of(&place.backend) };
    let crowd = Crowd::start(vec![setup; 2]).await;
    for number in 1..=10 {
        let index = number as usize % 2;
        let key = group_key(0, 0);
        done(&*crowd.member(index).await, &format!("{number}"), &Job::put(key.clone(), number)).await;
        well(&*crowd.member(1 - index).await, Ask::Until { key, value: Some(number) }).await;
    }
    crowd.check("at the end").await;
});
