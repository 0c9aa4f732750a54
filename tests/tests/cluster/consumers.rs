//! Two consumers with one name.

use std::time::Duration;

use wellspring_tests::cluster::{Ask, Job, Member, News, Setup, group_key};

use crate::crowd::{done, start, well};

/// What a member's consumer got, in order.
fn consumed(news: &[News]) -> Vec<String> {
    let operation = |news: &News| match news {
        News::Consumed { operation, .. } => Some(operation.clone()),
        _ => None,
    };
    news.iter().filter_map(operation).collect()
}

async fn hear(member: &Member, last: &str) -> Vec<String> {
    consumed(&member.hear("an operation that was consumed", |news| consumed(news).iter().any(|operation| operation == last)).await)
}

everywhere!(of_two_consumers_with_one_name_the_second_waits_until_the_first_is_killed_and_goes_on_where_it_was, |place| {
    let setup = Setup::of(&place.backend);
    let consumer = Setup { relays: false, ..setup.clone() };
    let (commander, first, second) = (start(&setup).await, start(&consumer).await, start(&consumer).await);
    let name = || Ask::Consume { name: "mail".into() };
    let run = async |number: i64| {
        let job = Job::put(group_key(0, 0), number);
        done(&commander, &format!("{number}"), &job).await.1.operation.to_string()
    };
    // It begins at the end of the log as it is when it gets the name, which is known when it has got something.
    well(&first, name()).await;
    let mut all = Vec::new();
    let mut number = 0;
    while consumed(&first.news()).is_empty() {
        number += 1;
        assert!(number < 1000, "the first consumer gets nothing");
        all.push(run(number).await);
        tokio::time::timeout(Duration::from_millis(50), hear(&first, &all[all.len() - 1])).await.ok();
    }
    well(&second, name()).await;
    for number in number + 1..=number + 20 {
        all.push(run(number).await);
    }
    let heard = hear(&first, &all[all.len() - 1]).await;
    let begun = all.iter().position(|operation| *operation == heard[0]).expect("an operation");
    assert_eq!(heard, all[begun..], "the first got not everything, or not once, or not in order");
    assert_eq!(consumed(&second.news()), [""; 0], "the second did not wait");
    first.kill().await;
    for number in number + 21..=number + 40 {
        all.push(run(number).await);
    }
    let heard_by_second = hear(&second, &all[all.len() - 1]).await;
    let begun = all.iter().position(|operation| *operation == heard_by_second[0]).expect("an operation");
    assert!(begun <= all.len() - 20, "the second has left something out: it began at {begun} of {}", all.len());
    assert_eq!(heard_by_second, all[begun..], "the second got not everything, or not once, or not in order");
});
