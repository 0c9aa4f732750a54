//! Values that are pushed.

use futures_util::future::join_all;
use wellspring_rpc::wire::Format;
use wellspring_rpc::{Failure, Replica, Timings};
use wellspring_tests::rpc::Cut;

use crate::setup::{Site, begin_value, ends, get, in_time, joined, method, set, value};

pub(crate) async fn a_counter_is_zero_until_it_is_set(site: Site) {
    let remote = site.remote();
    assert_eq!(*get(&remote, "k").await.value(), 0);
    for number in [1, -1, i64::MAX, i64::MIN] {
        set(&remote, "k", number).await;
        assert_eq!(*get(&remote, "k").await.value(), number);
        assert_eq!(*value::<i64>(&remote, "ICounter.Slow:3", ("k", 1)).await.value(), number);
        assert_eq!(*value::<i64>(&remote, "ICounter.GetOrFail:2", ("k",)).await.value(), number);
    }
    assert_eq!(*get(&remote, "other").await.value(), 0);
}

pub(crate) async fn a_value_is_stale_when_it_is_set_and_no_other_is(site: Site) {
    let remote = site.remote();
    let mut others = Vec::new();
    for name in ["ICounter.Get:2", "ICounter.Slow:3"] {
        others.push(value::<i64>(&remote, name, ("other", 1)).await);
    }
    for round in 1..20 {
        let got = get(&remote, "k").await;
        let slow = value::<i64>(&remote, "ICounter.Slow:3", ("k", 1)).await;
        assert_eq!((*got.value(), *slow.value()), (round - 1, round - 1));
        assert!(!got.is_stale() && !slow.is_stale());
        set(&remote, "k", round).await;
        ends(&got).await;
        ends(&slow).await;
    }
    assert!(others.iter().all(|other| !other.is_stale()));
    site.has_open_calls(2).await;
}

pub(crate) async fn a_value_that_is_set_to_what_it_is_is_stale_all_the_same(site: Site) {
    let remote = site.remote();
    set(&remote, "k", 5).await;
    let value = get(&remote, "k").await;
    set(&remote, "k", 5).await;
    ends(&value).await;
}

pub(crate) async fn a_failure_is_a_value_that_ends(site: Site) {
    let remote = site.remote();
    let name = "ICounter.GetOrFail:2";
    let failed = in_time(name, remote.try_compute::<i64>(&method(name), ("k",))).await.expect("a value");
    assert_eq!(failed.value().as_ref().map_err(Failure::message), Err("counter is zero"));
    site.has_open_calls(1).await;
    assert!(!failed.is_stale());
    set(&remote, "k", 7).await;
    ends(&failed).await;
    let good: Replica<i64> = value(&remote, name, ("k",)).await;
    assert_eq!(*good.value(), 7);
    set(&remote, "k", 0).await;
    ends(&good).await;
}

pub(crate) async fn a_value_that_changes_while_it_is_made_is_given_and_ends(site: Site) {
    let (near, far) = (site.remote(), site.remote());
    let slow = begin_value::<i64, _>(&near, "ICounter.Slow:3", ("k", 500));
    site.has_open_calls(1).await;
    set(&far, "k", 1).await;
    let slow = joined("the value", slow).await;
    assert_eq!(*slow.value(), 0, "as it was when it was read");
    ends(&slow).await;
    let now: Replica<i64> = value(&near, "ICounter.Slow:3", ("k", 1)).await;
    assert_eq!((*now.value(), now.is_stale()), (1, false));
}

pub(crate) async fn every_client_hears_of_a_change(site: Site) {
    let remotes: Vec<_> = (0..10).map(|_| site.remote()).collect();
    let values = in_time("all values", join_all(remotes.iter().map(|remote| get(remote, "k")))).await;
    site.has_open_calls(10).await;
    set(&remotes[0], "k", 1).await;
    for value in &values {
        ends(value).await;
    }
    site.has_open_calls(0).await;
}

pub(crate) async fn clients_of_every_format_have_the_same_values(site: Site) {
    let remote = site.remote();
    let others = Format::ALL.map(|format| site.remote_as(&Cut::new(), format, Timings::default()));
    for round in 1..5 {
        let values = in_time("all values", join_all(others.iter().map(|other| get(other, "k")))).await;
        assert!(values.iter().all(|value| *value.value() == round - 1));
        set(&remote, "k", round).await;
        for value in &values {
            ends(value).await;
        }
    }
}

pub(crate) async fn a_value_that_nobody_has_here_is_not_held_there(site: Site) {
    let remote = site.remote();
    let (one, two, again) = (get(&remote, "one").await, get(&remote, "two").await, get(&remote, "one").await);
    site.has_open_calls(3).await;
    drop(two);
    site.has_open_calls(2).await;
    drop(again);
    site.has_open_calls(1).await;
    set(&remote, "one", 1).await;
    ends(&one).await;
    site.has_open_calls(0).await;
    assert_eq!(remote.open_calls(), 0);
}

pub(crate) async fn thousands_of_values_end_each_by_its_own_change(site: Site) {
    let (near, far) = (site.remote(), site.remote());
    let keys: Vec<String> = (0..3_000).map(|number| format!("key {number}")).collect();
    let values = in_time("all values", join_all(keys.iter().map(|key| get(&near, key)))).await;
    assert_eq!(near.open_calls(), keys.len());
    site.has_open_calls(keys.len()).await;
    let (ended, kept) = values.split_at(2_000);
    in_time("all changes", join_all(keys[..2_000].iter().map(|key| set(&far, key, 1)))).await;
    in_time("all ends", join_all(ended.iter().map(Replica::stale))).await;
    assert!(kept.iter().all(|value| !value.is_stale()));
    site.has_open_calls(kept.len()).await;
}
