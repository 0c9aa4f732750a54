//! Why a value is stale, why it was computed again, what the graph looks like, and values that change without a word.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wellspring::{Cause, Change, Condition, Cx, Engine, Function, ManualClock, MissingInvalidation, RegisterError, Source, Why, compute};

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
    assert!(shop.why().stale.list[0].path[0].key.is_none());
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

#[cfg(debug_assertions)]
mod detector {
    use super::*;

    type Found = Arc<Mutex<Vec<MissingInvalidation>>>;

    fn watched() -> (Engine, Found) {
        let found = Found::default();
        let list = found.clone();
        let tell = move |missing: &MissingInvalidation| list.lock().expect("unpoisoned").push(missing.clone());
        (Engine::builder().on_missing_invalidation(tell).build(), found)
    }

    fn count(found: &Found) -> usize {
        found.lock().expect("unpoisoned").len()
    }

    #[test]
    fn a_body_that_reads_a_static_without_telling_is_found_with_its_key() {
        static TABLE: AtomicU64 = AtomicU64::new(1);
        let (engine, found) = watched();
        let row = engine.define("row").fingerprint(4, |row: &u64| *row).function(|_: &Cx, id: &u32| TABLE.load(SeqCst) + u64::from(*id));
        let row = row.expect("a free name");
        for _ in 0..100 {
            row.get(&engine, &7).expect("a value");
        }
        assert_eq!(count(&found), 0, "nothing has changed");
        TABLE.store(2, SeqCst);
        for _ in 0..8 {
            assert_eq!(row.get(&engine, &7), Ok(8), "served as it is");
        }
        let reports = found.lock().expect("unpoisoned").clone();
        assert_eq!(reports.len(), 2, "one hit of four");
        assert_eq!((reports[0].function.as_str(), reports[0].key.as_deref()), ("row", Some("7")));
        assert_eq!((reports[0].cached, reports[0].recomputed), (8, 9));
        assert_eq!(reports[0].node, row.node(&7).expect("a node").id());
        assert!(reports[0].to_string().contains("`row(7)` has changed without an invalidation"), "{}", reports[0]);
        row.invalidate(&7);
        for _ in 0..8 {
            assert_eq!(row.get(&engine, &7), Ok(9));
        }
        assert_eq!(count(&found), 2);
        engine.assert_consistent();
    }

    #[test]
    fn a_run_that_is_thrown_away_leaves_no_edge_no_value_and_no_count() {
        let (engine, found) = watched();
        let rate = engine.source("rate", |_: &u32| 2_u64).expect("a free name");
        let runs = Arc::new(AtomicU64::new(0));
        let (rates, counter) = (rate.clone(), runs.clone());
        // Reads another key each time: a recorded read would be an edge to it.
        let body = move |cx: &Cx, _: &()| rates.get(cx, &(counter.fetch_add(1, SeqCst) as u32)).expect("a value");
        let moody = engine.define("moody").fingerprint(1, |_: &u64| 0).function(body).expect("a free name");
        let above = {
            let moody = moody.clone();
            engine.define("above").fingerprint(1, |n: &u64| *n).function(move |cx: &Cx, _: &()| moody.get(cx, &()).expect("a value"))
        };
        let above = above.expect("a free name");
        for _ in 0..5 {
            assert_eq!(above.get(&engine, &()), Ok(2));
        }
        assert_eq!(runs.load(SeqCst), 1, "a check's own reads are not checked");
        assert_eq!(moody.get(&engine, &()), Ok(2));
        assert_eq!(runs.load(SeqCst), 2);
        rate.set(&1, 9);
        assert_eq!(above.get(&engine, &()), Ok(2));
        assert_eq!((engine.stats().edges_live, count(&found)), (2, 0));
        engine.assert_consistent();
    }

    #[test]
    fn a_change_that_is_told_of_is_no_finding_however_it_falls() {
        let (engine, found) = watched();
        let source = engine.source("source", |_: &u32| 0_u64).expect("a free name");
        let seen = source.clone();
        let total = engine
            .define("total")
            .fingerprint(1, |n: &u64| *n)
            .function(move |cx: &Cx, _: &()| (0..4).map(|id| seen.get(cx, &id).expect("a value")).sum::<u64>());
        let total = total.expect("a free name");
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2_000).map(|n| source.set(&(n as u32 % 4), n)).max());
            scope.spawn(|| (0..2_000).for_each(|_| drop(total.get(&engine, &()))));
            scope.spawn(|| (0..2_000).for_each(|_| drop(total.get(&engine, &()))));
        });
        assert_eq!(count(&found), 0, "{:?}", found.lock().expect("unpoisoned"));
        engine.assert_consistent();
    }

    #[test]
    fn panics_and_faults_of_a_second_run_are_nobodys_and_no_finding() {
        let (engine, found) = watched();
        let mood = Arc::new(AtomicBool::new(false));
        let panics = mood.clone();
        let body = move |_: &Cx, n: &u32| if panics.load(SeqCst) { panic!("in a mood") } else { *n };
        let moody = engine.define("moody").fingerprint(1, |n: &u32| u64::from(*n)).function(body).expect("a free name");
        moody.get(&engine, &1).expect("a value");
        mood.store(true, SeqCst);
        assert_eq!(moody.get(&engine, &1), Ok(1));
        let print =
            engine.define("print").fingerprint(1, |_: &u32| panic!("no print")).function(|_: &Cx, n: &u32| *n).expect("a free name");
        print.get(&engine, &1).expect("a value");
        assert_eq!((print.get(&engine, &1), count(&found)), (Ok(1), 0));
        engine.assert_consistent();
    }

    #[test]
    fn an_asynchronous_body_is_checked_by_its_reader() {
        let (engine, found) = watched();
        let table = Arc::new(AtomicU64::new(1));
        let rows = table.clone();
        let row = engine.define("row").fingerprint(1, |row: &u64| *row).async_function(move |_: Cx, id: u64| {
            let rows = rows.clone();
            async move {
                futures_util::future::ready(()).await;
                if rows.load(SeqCst) == 9 {
                    panic!("in a mood")
                }
                rows.load(SeqCst) + id
            }
        });
        let row = row.expect("a free name");
        assert_eq!(row.wait(&engine, &1), Ok(2));
        assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 0));
        table.store(5, SeqCst);
        assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 1));
        table.store(9, SeqCst);
        assert_eq!((row.wait(&engine, &1), count(&found)), (Ok(2), 1));
        drop(row.get(&engine, &1));
        engine.assert_consistent();
    }

    #[test]
    fn a_listener_that_panics_harms_no_reader_and_sources_have_no_fingerprint() {
        let engine = Engine::builder().on_missing_invalidation(|_| panic!("cannot bear it")).build();
        let calls = AtomicU64::new(0);
        let body = move |_: &Cx, _: &()| calls.fetch_add(1, SeqCst);
        let restless = engine.define("restless").fingerprint(1, |n: &u64| *n).function(body).expect("a free name");
        assert_eq!((restless.get(&engine, &()), restless.get(&engine, &())), (Ok(0), Ok(0)));
        let refused = engine.define::<u8, u64>("row").fingerprint(1, |n| *n).source(|_| 0);
        assert_eq!(refused.err(), Some(RegisterError::NotForSources { name: "row".into(), option: "fingerprint" }));
    }
}

#[test]
fn what_explains_crosses_threads() {
    fn crosses<T: Send + Sync + std::fmt::Debug>() {}
    crosses::<Why>();
    crosses::<wellspring::Export>();
    crosses::<MissingInvalidation>();
    crosses::<wellspring::Causes>();
    crosses::<wellspring::Neighbours>();
    assert!(RegisterError::TooManyFunctions.to_string().contains("number"));
}
