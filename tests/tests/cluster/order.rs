//! Transactions that commit in another order than they have begun in.

use wellspring_tests::cluster::{Ask, Job, News, Place, Setup, group_key};

use crate::crowd::{Crowd, done, well};

#[tokio::test]
async fn transactions_that_commit_in_reverse_order_of_their_ids_are_all_applied_and_consumed_in_one_order() {
    let Some(place) = Place::postgres().await.expect("a place") else { return };
    let crowd = Crowd::start(vec![Setup::of(&place.backend); 3]).await;
    let key = |row| group_key(0, row);
    for index in 1..3 {
        let member = crowd.member(index).await;
        well(&member, Ask::Consume { name: format!("consumer {index}") }).await;
        member.ask(Ask::Row { key: key(0) }).await.expect("read");
    }
    let held = crowd.member(0).await;
    // A consumer that begins between two of a round gets the one that is committed later and not the other.
    for number in 0.. {
        done(&held, &format!("before {number}"), &Job::put(key(2), 0)).await;
        let begun = async |index| crowd.member(index).await.news().iter().any(|news| matches!(news, News::Consumed { .. }));
        if begun(1).await && begun(2).await {
            break;
        }
    }
    for round in 0..10 {
        well(&held, Ask::Hold { key: Some(key(0)) }).await;
        let first = tokio::spawn({
            let (held, job) = (held.clone(), Job::put(key(0), round));
            async move { done(&held, &format!("first {round}"), &job).await.1 }
        });
        well(&held, Ask::Held).await;
        let (_, second, _) = done(&*crowd.member(1).await, &format!("second {round}"), &Job::put(key(1), round)).await;
        // Applied although the one before it is still under way.
        well(&*crowd.member(2).await, Ask::Until { key: key(1), value: Some(round) }).await;
        well(&*crowd.member(2).await, Ask::Wait { position: second }).await;
        well(&held, Ask::Hold { key: None }).await;
        let first = first.await.expect("no panic");
        assert!(first.place < second.place, "they did not commit in reverse order of their ids");
        for index in 0..3 {
            let member = crowd.member(index).await;
            well(&member, Ask::Until { key: key(0), value: Some(round) }).await;
            for position in [first, second] {
                well(&member, Ask::Wait { position }).await;
            }
        }
        crowd.check(&format!("round {round}")).await;
    }
    let last = done(&held, "last", &Job::put(key(2), 1)).await.1.operation.to_string();
    let mut orders = Vec::new();
    for index in 1..3 {
        let operation = |news: &News| matches!(news, News::Consumed { operation, .. } if *operation == last);
        let mut news = crowd.member(index).await.hear("the last operation, consumed", |news| news.iter().any(operation)).await;
        news.retain(|news| matches!(news, News::Consumed { .. }));
        orders.push(news);
    }
    let shorter = orders[0].len().min(orders[1].len());
    // Each begins at the end of the log as it finds it.
    let ends = orders.iter().map(|order| &order[order.len() - shorter..]).collect::<Vec<_>>();
    assert!(shorter > 10 && ends[0] == ends[1], "consumers disagree: {orders:?}");
    place.remove().await.expect("removed");
}
