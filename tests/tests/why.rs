//! Why a value is stale, why it was computed again, and what the graph looks like.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring::{Cause, Change, Condition, Cx, Engine, Function, ManualClock, Source, Why, compute};

const MS: Duration = Duration::from_millis(1);

/// price(id) <- shelf(id) <- total("all"), which also reads the rate.
struct Shop {
    engine: Engine,
    price: Source<u32, u64>,
    rate: Source<(), u64>,
    shelf: Function<u32, u64>,
    total: Function<String, u64>,
}

fn shop_in(engine: Engine) -> Shop {
    let price = engine.source("price", |_: &u32| 100_u64).expect("a free name");
    let rate = engine.source("rate", |_: &()| 2_u64).expect("a free name");
    let prices = price.clone();
    let shelf = engine
        .define("shelf")
        .cut_off_eq()
        .function(move |cx: &Cx, id: &u32| prices.get(cx, id).expect("a value") / 10)
        .expect("a free name");
    let (shelves, rates) = (shelf.clone(), rate.clone());
    let body = move |cx: &Cx, _: &String| {
        let sum: u64 = (1..=3).map(|id| shelves.get(cx, &id).expect("a value")).sum();
        sum * rates.get(cx, &()).expect("a value")
    };
    let total = engine.function("total", body).expect("a free name");
    Shop { engine, price, rate, shelf, total }
}

fn shop() -> Shop {
    let shop = shop_in(Engine::new());
    shop.sum();
    shop
}

impl Shop {
    fn sum(&self) -> u64 {
        self.total.get(&self.engine, "all").expect("a value")
    }
    fn why(&self) -> Why {
        self.total.why("all").expect("a node")
    }
}

fn names(cause: &Cause) -> Vec<String> {
    cause.path.iter().map(ToString::to_string).collect()
}

/// The caller's place, to be compared with a cause's: both calls stand on one line.
#[track_caller]
fn line() -> u32 {
    Location::caller().line()
}

fn assert_here(cause: &Cause, line: u32) {
    let place = cause.place.expect("a caller");
    assert_eq!((place.line(), place.file()), (line, file!()), "{cause}");
}

#[test]
fn a_set_two_levels_below_is_named_with_its_place_its_commit_and_its_way() {
    let shop = shop();
    let (commit, line) = (shop.price.set(&2, 500), line());
    let why = shop.why();
    assert_eq!(why.condition, Condition::MaybeStale);
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!((cause.commit, cause.change), (commit, Change::Set));
    assert_eq!(names(cause), ["price(2)", "shelf(2)", "total(\"all\")"]);
    assert_here(cause, line);
    assert!(!why.stale.forgotten && !why.stale.cut && why.stale.more == 0);
    let text = why.to_string();
    assert!(text.starts_with("total(\"all\") is maybe stale\n"), "{text}");
    let place = format!("commit 1: price(2) set at {}:{line}:", file!());
    assert!(text.contains(&place) && text.contains("-> shelf(2) -> total(\"all\")"), "{text}");
    shop.engine.assert_consistent();
}

#[test]
fn a_fresh_value_is_not_explained_away_and_a_first_one_has_no_cause() {
    let shop = shop();
    let why = shop.why();
    assert_eq!((why.condition, why.again), (Condition::Fresh, false));
    assert_eq!(why.made.map(|commit| commit.get()), Some(0));
    assert!(why.stale.list.is_empty() && why.recomputed.list.is_empty());
    let told: Vec<_> = why.dependencies.list.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["shelf(1)", "shelf(2)", "shelf(3)", "rate(())"]);
    assert!(shop.total.why("nobody").is_none());
    let shelf = shop.shelf.why(&1).expect("a node");
    assert_eq!((shelf.dependants.total, shelf.dependants.list[0].to_string()), (1, "total(\"all\")".into()));
}

#[test]
fn the_last_run_is_explained_by_the_latest_change_below_it() {
    let shop = shop();
    shop.price.set(&1, 200);
    shop.sum();
    let (commit, line) = (shop.price.set(&3, 300), line());
    shop.price.set(&77, 1);
    shop.sum();
    let why = shop.why();
    assert_eq!((why.condition, why.again), (Condition::Fresh, true));
    let [cause] = &why.recomputed.list[..] else { panic!("one cause: {why}") };
    assert_eq!((cause.commit, names(cause).len()), (commit, 3));
    assert_here(cause, line);
    // A later change that comes to nothing is why it was marked, not why it ran.
    shop.price.set(&2, 101);
    shop.sum();
    let why = shop.why();
    assert_eq!(why.recomputed.list[0].commit, commit, "verified, not computed: {why}");
    assert_eq!(why.made.map(|commit| commit.get()), Some(3));
    shop.engine.assert_consistent();
}

#[test]
fn what_was_verified_meanwhile_is_not_blamed_for_the_next_mark() {
    let shop = shop();
    shop.price.set(&1, 101);
    shop.sum();
    let commit = shop.rate.set(&(), 3);
    let why = shop.why();
    assert_eq!(why.condition, Condition::Stale, "it reads the rate itself");
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!((cause.commit, names(cause)), (commit, vec!["rate(())".into(), "total(\"all\")".into()]));
}

#[test]
fn every_change_of_a_batch_is_told_from_its_own_line() {
    let shop = shop();
    let (mut first, mut second) = (0, 0);
    let commit = shop.engine.batch(|batch| {
        (_, first) = (batch.set(&shop.price, &1, 500), line());
        (_, second) = (batch.invalidate(&shop.shelf, &3), line());
    });
    let why = shop.why();
    assert_eq!(why.stale.list.len(), 2, "{why}");
    for cause in &why.stale.list {
        assert_eq!(cause.commit, commit);
        assert_here(cause, if cause.change == Change::Set { first } else { second });
    }
}

#[test]
fn wide_invalidations_are_told_as_what_they_are() {
    let shop = shop();
    let (_, line) = (shop.shelf.invalidate_all(), line());
    let why = shop.why();
    assert_eq!(why.stale.list.len(), 1, "{why}");
    assert_eq!(why.stale.list[0].change, Change::AllInvalidated);
    assert_here(&why.stale.list[0], line);
    shop.sum();
    let (_, line) = (shop.engine.invalidate_everything(), self::line());
    let why = shop.why();
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!((cause.change, cause.path.len()), (Change::EverythingInvalidated, 1));
    assert_here(cause, line);
}

#[test]
fn a_removed_keys_dependants_say_so() {
    let shop = shop();
    let (removed, line) = (shop.shelf.remove(&2), line());
    assert!(removed);
    let why = shop.why();
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!(cause.change, Change::Removed);
    assert_here(cause, line);
    assert!(cause.path[0].key.is_none() && cause.path[0].function == "shelf", "the key is gone: {cause}");
    // The slot's next tenant is not taken for it.
    shop.shelf.get(&shop.engine, &9).expect("a value");
    shop.price.set(&9, 7);
    let why = shop.why();
    assert!(why.stale.list.len() == 1 && why.stale.list[0].path[0].key.is_none(), "{why}");
    assert!(shop.shelf.why(&2).is_none());
    shop.sum();
    shop.engine.assert_consistent();
}

#[test]
fn the_engines_clock_is_told_from_callers() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let leaf = engine.define("leaf").expire_after(100 * MS).function(|_: &Cx, n: &u64| *n).expect("a free name");
    let top = {
        let leaf = leaf.clone();
        engine.function("top", move |cx: &Cx, n: &u64| leaf.get(cx, n).expect("a value")).expect("a free name")
    };
    top.get(&engine, &1).expect("a value");
    let (wished, line) = (leaf.invalidate_after(&1, 10 * MS), line());
    assert!(wished && leaf.invalidate_after(&1, 50 * MS), "the later wish counts for nothing");
    clock.advance(10 * MS);
    let why = top.why(&1).expect("a node");
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!(cause.change, Change::Delayed);
    assert_here(cause, line);
    top.get(&engine, &1).expect("a value");
    clock.advance(100 * MS);
    let why = top.why(&1).expect("a node");
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!((cause.change, cause.place, names(cause)), (Change::Expired, None, vec!["leaf(1)".into(), "top(1)".into()]));
    engine.assert_consistent();
}

#[test]
fn a_debounced_invalidation_is_told_by_its_first_caller() {
    let clock = Arc::new(ManualClock::new());
    let engine = Engine::builder().clock(clock.clone()).build();
    let leaf = engine.define("leaf").debounce(10 * MS).function(|_: &Cx, n: &u64| *n).expect("a free name");
    leaf.get(&engine, &1).expect("a value");
    let (_, line) = (leaf.invalidate(&1), line());
    clock.advance(MS);
    leaf.invalidate(&1);
    clock.advance(10 * MS);
    let why = leaf.why(&1).expect("a node");
    assert_eq!((why.condition, why.stale.list[0].change), (Condition::Stale, Change::Delayed));
    assert_here(&why.stale.list[0], line);
}

#[test]
fn what_has_left_the_ring_is_no_longer_known_and_no_other_change_is_blamed() {
    let shop = shop_in(Engine::builder().remember_changes(8).build());
    shop.sum();
    shop.price.set(&1, 500);
    for n in 0..8 {
        shop.price.set(&50, n);
    }
    let why = shop.why();
    assert!(why.stale.list.is_empty() && why.stale.forgotten, "{why}");
    assert!(why.to_string().contains("no longer known"), "{why}");
    shop.sum();
    let why = shop.why();
    assert!(why.recomputed.list.is_empty() && why.recomputed.forgotten, "{why}");
    // What comes after is known again, and is all there is.
    let commit = shop.price.set(&2, 700);
    let why = shop.why();
    assert_eq!((why.stale.list[0].commit, why.stale.list.len(), why.stale.forgotten), (commit, 1, false), "{why}");
}

#[test]
fn what_explains_all_there_is_needs_no_older_changes() {
    let shop = shop_in(Engine::builder().remember_changes(8).build());
    shop.sum();
    for n in 0..20 {
        shop.price.set(&50, n);
    }
    let commit = shop.price.set(&1, 500);
    let why = shop.why();
    assert!(why.stale.list[0].commit == commit && !why.stale.forgotten, "the total is from long ago: {why}");
    // A second reason, of which only the effect is still there.
    shop.rate.set(&(), 3);
    for n in 0..7 {
        shop.price.set(&50, n);
    }
    shop.shelf.get(&shop.engine, &1).expect("a value");
    let why = shop.why();
    assert!(why.stale.forgotten && why.to_string().contains("earlier changes that are no longer known"), "{why}");
}

#[test]
fn an_engine_that_remembers_nothing_says_so() {
    let shop = shop_in(Engine::builder().remember_changes(0).build());
    shop.sum();
    shop.price.set(&1, 500);
    assert!(shop.why().stale.forgotten);
}

#[test]
fn a_node_that_is_being_computed_says_so_to_another_thread() {
    let engine = Engine::new();
    let (entered, opened) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(std::sync::Barrier::new(2)));
    let waits = Arc::new(AtomicBool::new(false));
    let slow = {
        let (entered, opened, waits) = (entered.clone(), opened.clone(), waits.clone());
        let body = move |_: &Cx, n: &u32| {
            if waits.load(SeqCst) {
                entered.wait();
                opened.wait();
            }
            *n
        };
        engine.function("slow", body).expect("a free name")
    };
    slow.get(&engine, &1).expect("a value");
    slow.invalidate(&1);
    waits.store(true, SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| slow.get(&engine, &1).expect("a value"));
        entered.wait();
        let why = slow.why(&1);
        opened.wait();
        let why = why.expect("a node");
        assert_eq!((why.condition, why.stale.list.len()), (Condition::Computing, 1), "{why}");
        assert!(why.to_string().contains("being computed because"), "{why}");
    });
    engine.assert_consistent();
}

#[test]
fn a_stale_nodes_dependants_are_found_without_their_edges() {
    let shop = shop();
    shop.price.set(&1, 500);
    let shelf = shop.shelf.why(&1).expect("a node");
    assert_eq!((shelf.condition, shelf.dependants.total), (Condition::Stale, 1), "{shelf}");
    assert_eq!(shelf.dependants.list[0].to_string(), "total(\"all\")");
    let id = shelf.node.id;
    assert_eq!(shop.engine.why(id).expect("a node").node, shelf.node);
    shop.shelf.remove(&1);
    assert!(shop.engine.why(id).is_none());
}

#[test]
fn a_long_chain_is_told_by_its_ends() {
    let engine = Engine::new();
    let source = engine.source("source", |_: &()| 0_u64).expect("a free name");
    let seen = source.clone();
    let below: Arc<Mutex<Option<Function<u32, u64>>>> = Arc::default();
    let link = {
        let below = below.clone();
        let body = move |cx: &Cx, n: &u32| match n {
            0 => seen.get(cx, &()).expect("a value"),
            n => below.lock().expect("unpoisoned").clone().expect("registered").get(cx, &(n - 1)).expect("a value"),
        };
        engine.function("link", body).expect("a free name")
    };
    *below.lock().expect("unpoisoned") = Some(link.clone());
    for n in 0..5_000 {
        link.get(&engine, &n).expect("a value");
    }
    source.set(&(), 1);
    let why = link.why(&4_999).expect("a node");
    let [cause] = &why.stale.list[..] else { panic!("one cause: {why}") };
    assert_eq!(cause.path.len() + cause.left_out, 5_001);
    assert_eq!((names(cause)[0].as_str(), names(cause).last().expect("an end").as_str()), ("source(())", "link(4999)"));
    assert!(cause.to_string().contains(&format!("({} more)", cause.left_out)), "{cause}");
    *below.lock().expect("unpoisoned") = None;
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Secret(u32);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Plain(u32);

struct Keys;

#[compute]
impl Keys {
    fn plain(&self, _cx: &Cx, key: Plain, more: u8) -> u32 {
        key.0 + u32::from(more)
    }
    fn secret(&self, _cx: &Cx, key: Secret) -> u32 {
        key.0
    }
}

#[test]
fn keys_are_printed_if_they_can_be_and_if_the_function_was_told_how() {
    let engine = Engine::new();
    let keys = engine.service(Keys).expect("a free name");
    keys.plain(&engine, Plain(3), 4).expect("a value");
    keys.secret(&engine, Secret(3)).expect("a value");
    let plain = keys.functions().plain.why(&(Plain(3), 4)).expect("a node");
    assert_eq!(plain.node.to_string(), "Keys.plain((Plain(3), 4))");
    let secret = keys.functions().secret.why(&Secret(3)).expect("a node");
    assert_eq!((secret.node.key.as_deref(), secret.node.function.as_str()), (None, "Keys.secret"));
    let line = (keys.invalidate().secret(Secret(3)), line()).1;
    assert_here(&keys.functions().secret.why(&Secret(3)).expect("a node").stale.list[0], line);

    let told = engine.define("told").describe_keys(|key: &Secret| format!("no. {}", key.0)).function(|_: &Cx, key: &Secret| key.0);
    let told = told.expect("a free name");
    told.get(&engine, &Secret(5)).expect("a value");
    assert_eq!(told.why(&Secret(5)).expect("a node").node.to_string(), "told(no. 5)");
    let panics = engine.define("panics").describe_keys(|_: &Secret| panic!("no")).function(|_: &Cx, key: &Secret| key.0);
    let panics = panics.expect("a free name");
    panics.get(&engine, &Secret(5)).expect("a value");
    assert_eq!(panics.why(&Secret(5)).expect("a node").node.key, None);
    engine.assert_consistent();
}

fn parsed(engine: &Engine) -> serde_json::Value {
    serde_json::from_str(&engine.export().json()).expect("JSON")
}

fn len(of: &serde_json::Value) -> usize {
    of.as_array().expect("a list").len()
}

#[test]
fn the_exported_graph_is_json_with_every_node_and_edge() {
    let shop = shop();
    shop.engine.function("quo\"te", |_: &Cx, key: &String| key.len()).expect("a free name").get(&shop.engine, "a\\\n\"b").expect("a value");
    shop.price.set(&1, 500);
    let json = parsed(&shop.engine);
    assert_eq!((len(&json["nodes"]), len(&json["edges"]), &json["cut"]), (9, 7, &false.into()));
    assert_eq!(json["commit"], 1);
    let find = |function: &str| json["nodes"].as_array().expect("a list").iter().find(|node| node["function"] == function).expect("a node");
    assert_eq!((&find("total")["state"], &find("total")["source"]), (&"maybe stale".into(), &false.into()));
    assert_eq!(find("rate")["source"], true);
    assert_eq!(find("quo\"te")["key"], format!("{:?}", "a\\\n\"b"));
    let stale = json["edges"].as_array().expect("a list").iter().filter(|edge| edge["current"] == false).count();
    assert_eq!(stale, 2, "price(1) -> shelf(1) -> total");
    let mut written = Vec::new();
    shop.engine.export().write_json(&mut written).expect("a vector takes everything");
    assert_eq!(written, shop.engine.export().json().into_bytes());
}

#[test]
fn a_neighbourhood_is_what_is_near_also_upwards_and_also_when_it_is_stale() {
    let shop = shop();
    let shelf = shop.shelf.node(&1).expect("a node").id();
    for _ in 0..2 {
        let near: serde_json::Value = serde_json::from_str(&shop.engine.export().around(shelf, 1).json()).expect("JSON");
        let mut functions: Vec<_> =
            near["nodes"].as_array().expect("a list").iter().map(|node| node["function"].as_str().expect("a name")).collect();
        functions.sort_unstable();
        assert_eq!((functions, len(&near["edges"])), (vec!["price", "shelf", "total"], 2));
        shop.price.set(&1, 500);
    }
    let two = shop.engine.export().around(shelf, 2).json();
    assert_eq!(len(&serde_json::from_str::<serde_json::Value>(&two).expect("JSON")["nodes"]), 6);
    shop.shelf.remove(&1);
    let gone: serde_json::Value = serde_json::from_str(&shop.engine.export().around(shelf, 2).json()).expect("JSON");
    assert_eq!(len(&gone["nodes"]), 0);
}

#[test]
fn an_export_keeps_to_its_limits_and_says_what_it_left_out() {
    let engine = Engine::new();
    let hub = engine.source("hub", |_: &()| 0_u64).expect("a free name");
    let seen = hub.clone();
    let spoke = engine.function("spoke", move |cx: &Cx, n: &u64| seen.get(cx, &()).expect("a value") + n).expect("a free name");
    for n in 0..1_000 {
        spoke.get(&engine, &n).expect("a value");
    }
    let whole = engine.export().dot();
    assert!(whole.starts_with("digraph wellspring {") && whole.ends_with("}\n") && !whole.contains("cut at a limit"));
    assert_eq!(whole.matches(" -> ").count(), 1_000);
    let few = engine.export().limit(10).dot();
    assert_eq!((few.matches(" [label=").count(), few.matches(" -> ").count()), (10, 9));
    assert!(few.contains("cut at a limit"));
    let lines = engine.export().edge_limit(5).dot();
    assert!(lines.matches(" -> ").count() == 5 && lines.contains("cut at a limit"));
    let node = hub.node(&()).expect("a node").id();
    for stale in [false, true] {
        if stale {
            hub.invalidate(&());
            spoke.invalidate_all();
        }
        let near = engine.export().around(node, 3).limit(7).dot();
        assert_eq!((near.matches(" [label=").count(), near.matches(" -> ").count()), (7, 6), "{near}");
        assert!(near.contains("cut at a limit"));
    }
    assert_eq!(engine.export().limit(0).dot().matches(" [label=").count(), 0);
}

#[test]
fn questions_and_exports_go_on_beside_readers_and_commits() {
    let shop = shop();
    let rounds = 200;
    let (done, shop) = (&AtomicBool::new(false), &shop);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..rounds {
                shop.price.set(&(n as u32 % 4), n * 10);
                if n % 10 == 0 {
                    shop.shelf.remove(&(n as u32 % 3));
                }
                shop.sum();
            }
            done.store(true, SeqCst);
        });
        scope.spawn(move || {
            while !done.load(SeqCst) {
                shop.sum();
            }
        });
        scope.spawn(move || {
            while !done.load(SeqCst) {
                let json = parsed(&shop.engine);
                assert!(len(&json["nodes"]) <= 12);
                let why = shop.why();
                for cause in why.stale.list.iter().chain(&why.recomputed.list) {
                    assert!(cause.commit <= shop.engine.commit() || cause.commit.get() <= rounds * 2, "{why}");
                    assert_eq!(cause.place.map(Location::file), Some(file!()), "{why}");
                }
            }
        });
    });
    shop.engine.assert_consistent();
}

#[test]
fn what_explains_crosses_threads() {
    fn crosses<T: Send + Sync + std::fmt::Debug>() {}
    crosses::<Why>();
    crosses::<wellspring::Export>();
    crosses::<wellspring::MissingInvalidation>();
    crosses::<wellspring::Causes>();
    crosses::<wellspring::Neighbours>();
}

#[test]
fn a_states_change_is_told_by_where_it_was_set() {
    let engine = Engine::new();
    let state = engine.mutable_state(1_u64).expect("room");
    let inner = state.clone();
    let double = engine.function("double", move |cx: &Cx, _: &u8| inner.get(cx).expect("a value") * 2).expect("a free name");
    double.get(&engine, &0).expect("a value");
    state.set(2);
    let why = double.why(&0).expect("cached").to_string();
    assert!(why.contains(file!()), "{why}");
    double.get(&engine, &0).expect("a value");
    state.update(|value| value + 1).expect("a value");
    let why = double.why(&0).expect("cached").to_string();
    assert!(why.contains(file!()), "{why}");
    engine.assert_consistent();
}
