//! The peer's tests that concern the computed core, in our terms. The table is `PEER_TESTS.md`.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::Poll;

use tokio::sync::Semaphore;
use wellspring::{AsyncFunction, Computed, Cx, Engine, Fault, Function, GetFuture, Source};
use wellspring_tests::waking::{Counting, block_on, poll_once};

/// A counter service: values per key, and how often each body ran.
struct Counters {
    engine: Engine,
    values: Source<String, u32>,
    get: Function<String, u32>,
    runs: Arc<AtomicU32>,
}

fn counters() -> Counters {
    let engine = Engine::new();
    let values = engine.source("values", |_: &String| 0_u32).unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let get = {
        let (values, runs) = (values.clone(), runs.clone());
        engine
            .function("get", move |cx: &Cx, key: &String| {
                runs.fetch_add(1, SeqCst);
                values.get(cx, key).unwrap()
            })
            .unwrap()
    };
    Counters { engine, values, get, runs }
}

fn same<V: wellspring::Value>(a: &Computed<V>, b: &Computed<V>) -> bool {
    a.node() == b.node() && a.is_consistent() && b.is_consistent()
}

#[test]
fn counter_service_basic() {
    let Counters { engine, values, get, .. } = counters();
    assert!(get.existing("a").is_none());
    let first = get.computed(&engine, "a").unwrap();
    assert_eq!(*first.value(), 0);
    assert!(same(&first, &get.existing("a").unwrap()));
    values.set("a", 1);
    assert!(!first.is_consistent());
    assert!(get.existing("a").is_none());
    assert_eq!((*first.value(), get.get(&engine, "a")), (0, Ok(1)));
    engine.assert_consistent();
}

/// An async function whose body waits for a permit.
fn slow(engine: &Engine, gate: &Arc<Semaphore>) -> AsyncFunction<u32, u32> {
    let gate = gate.clone();
    engine
        .async_function("slow", move |_: Cx, n: u32| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                n
            }
        })
        .unwrap()
}

#[test]
fn counter_service_long_wait() {
    let (engine, gate) = (Engine::new(), Arc::new(Semaphore::new(0)));
    let slow = slow(&engine, &gate);
    let (_, waker) = Counting::pair();
    let mut call = slow.get(&engine, &7);
    assert!(poll_once(&mut call, &waker).is_pending());
    assert!(slow.existing(&7).is_none(), "computing is not existing");
    slow.invalidate(&7);
    assert!(slow.existing(&7).is_none());
    gate.add_permits(1);
    assert_eq!(block_on(call), Ok(7), "the caller gets its value");
    assert!(slow.existing(&7).is_none(), "which is invalidated from birth");
    gate.add_permits(1);
    assert_eq!(block_on(slow.get(&engine, &7)), Ok(7));
    assert!(slow.existing(&7).is_some());
    engine.assert_consistent();
}

/// A parent that starts a slow child, reads `x`, and awaits the slow one only if `x` is zero. Which of the two it depends on.
fn dependencies_when_x_is(x: Result<u32, String>) -> (Result<u32, String>, Vec<&'static str>) {
    let (engine, gate) = (Engine::new(), Arc::new(Semaphore::new(0)));
    let slow = slow(&engine, &gate);
    let fast = engine.source("fast", move |(): &()| x.clone()).unwrap();
    let kept: Arc<std::sync::Mutex<Vec<GetFuture<u32>>>> = Arc::default();
    let parent = {
        let (fast, slow, kept) = (fast.clone(), slow.clone(), kept.clone());
        engine
            .async_function("parent", move |cx: Cx, _: ()| {
                let (fast, slow, kept) = (fast.clone(), slow.clone(), kept.clone());
                async move {
                    let mut y = slow.get(&cx, &7);
                    let started = poll_once(&mut y, &Counting::pair().1);
                    match fast.get(&cx, &()).unwrap() {
                        Ok(0) => Ok(match started {
                            Poll::Ready(value) => value.unwrap(),
                            Poll::Pending => y.await.unwrap(),
                        }),
                        other => {
                            kept.lock().unwrap().push(y);
                            other
                        }
                    }
                }
            })
            .unwrap()
    };
    let mut call = parent.get(&engine, &());
    let first = poll_once(&mut call, &Counting::pair().1);
    gate.add_permits(1);
    let result = match first {
        Poll::Ready(result) => result.unwrap(),
        Poll::Pending => block_on(call).unwrap(),
    };
    for late in kept.lock().unwrap().drain(..) {
        assert_eq!(block_on(late), Err(Fault::Escaped));
    }
    let computed = parent.existing(&()).expect("cached");
    slow.invalidate(&7);
    let on_slow = !computed.is_consistent();
    gate.add_permits(1);
    let computed = block_on(computed.update()).unwrap();
    fast.set(&(), Err("changed".into()));
    engine.assert_consistent();
    (result, [(on_slow, "slow"), (!computed.is_consistent(), "fast")].into_iter().filter(|dep| dep.0).map(|dep| dep.1).collect())
}

#[test]
fn counter_service_concurrent_wait() {
    assert_eq!(dependencies_when_x_is(Ok(0)), (Ok(7), vec!["slow", "fast"]), "it awaited both");
    assert_eq!(dependencies_when_x_is(Ok(5)), (Ok(5), vec!["fast"]), "the late, un-awaited child is no dependency");
    let failed = Err("broken".to_string());
    assert_eq!(dependencies_when_x_is(failed.clone()), (failed, vec!["fast"]), "a failed dependency counts");
}

#[test]
fn counter_service_concurrent_invalidation_and_recompute() {
    let Counters { engine, values, get, .. } = counters();
    let rounds = 100;
    let barrier = Barrier::new(16);
    std::thread::scope(|scope| {
        for task in 0..16 {
            let (engine, values, get, barrier) = (&engine, &values, &get, &barrier);
            scope.spawn(move || {
                for round in 0..rounds {
                    barrier.wait();
                    if task % 2 == 0 {
                        get.invalidate("key");
                        values.set("other", round);
                    } else {
                        get.get(engine, "key").unwrap();
                        get.get(engine, "other").unwrap();
                    }
                }
            });
        }
    });
    for key in ["key", "other"] {
        let computed = get.computed(&engine, key).unwrap();
        assert!(computed.is_consistent() && same(&computed, &get.existing(key).unwrap()));
    }
    assert_eq!(get.get(&engine, "other"), Ok(rounds - 1));
    engine.assert_consistent();
}

#[test]
fn compute_method_registry_lookup() {
    let Counters { engine, get, runs, .. } = counters();
    let other = counters();
    let (a, again, b) = (get.computed(&engine, "a").unwrap(), get.computed(&engine, &"a".to_string()).unwrap(), get.computed(&engine, "b"));
    assert!(same(&a, &again));
    assert_ne!(a.node(), b.unwrap().node());
    other.get.get(&other.engine, "a").unwrap();
    assert_eq!((runs.load(SeqCst), other.runs.load(SeqCst)), (2, 1), "another instance has a cache of its own");
}

#[test]
fn list_argument() {
    let engine = Engine::new();
    let runs = Arc::new(AtomicU32::new(0));
    let sum = {
        let runs = runs.clone();
        engine
            .function("sum", move |_: &Cx, list: &Option<Vec<u32>>| {
                runs.fetch_add(1, SeqCst);
                list.as_ref().map(|list| list.iter().sum::<u32>())
            })
            .unwrap()
    };
    let first = sum.computed(&engine, &Some(vec![1, 2])).unwrap();
    // By value, where the peer goes by reference.
    assert!(same(&first, &sum.computed(&engine, &Some(vec![1, 2])).unwrap()));
    assert!(same(&sum.computed(&engine, &None).unwrap(), &sum.computed(&engine, &None).unwrap()));
    assert_eq!(runs.load(SeqCst), 2);
}

#[test]
fn computed_version() {
    let engine = Engine::new();
    let f = engine.function("f", |_: &Cx, n: &u32| *n).unwrap();
    let ids = std::sync::Mutex::new(std::collections::HashSet::new());
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (engine, f, ids) = (&engine, &f, &ids);
            scope.spawn(move || {
                for n in 0..500 {
                    let key = thread * 1000 + n % 100;
                    let computed = f.computed(engine, &key).unwrap();
                    assert!(ids.lock().unwrap().insert(computed.node()), "a node id names one life of one key");
                    assert_ne!(computed.node().version(), 0);
                    assert!(f.remove(&key));
                }
            });
        }
    });
    engine.assert_consistent();
}

#[test]
fn simplest_provider_basic() {
    let engine = Engine::new();
    let value = engine.source("value", |(): &()| String::new()).unwrap();
    let (read_runs, count_runs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let read = {
        let (value, runs) = (value.clone(), read_runs.clone());
        engine
            .function("read", move |cx: &Cx, (): &()| {
                runs.fetch_add(1, SeqCst);
                value.get(cx, &()).unwrap()
            })
            .unwrap()
    };
    let count = {
        let (read, runs) = (read.clone(), count_runs.clone());
        engine
            .function("count", move |cx: &Cx, (): &()| {
                runs.fetch_add(1, SeqCst);
                read.get(cx, &()).unwrap().len()
            })
            .unwrap()
    };
    for (round, text) in ["", "a", "a", "bc"].into_iter().enumerate() {
        value.set(&(), text.to_string());
        for _ in 0..3 {
            assert_eq!(count.get(&engine, &()), Ok(text.len()));
        }
        let real_changes = [1, 2, 2, 3][round];
        assert_eq!((read_runs.load(SeqCst), count_runs.load(SeqCst)), (real_changes, real_changes));
    }
}

#[test]
fn simplest_provider_scoped() {
    let all: Vec<Counters> = (0..3).map(|_| counters()).collect();
    for scope in &all {
        assert_eq!(scope.get.get(&scope.engine, "key"), Ok(0));
    }
    all[0].values.set("key", 9);
    let seen: Vec<_> = all.iter().map(|scope| scope.get.get(&scope.engine, "key").unwrap()).collect();
    assert_eq!(seen, [9, 0, 0]);
    assert_eq!(all.iter().map(|scope| scope.runs.load(SeqCst)).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn simplest_provider_exception_caching() {
    let engine = Engine::new();
    let runs = Arc::new(AtomicU32::new(0));
    let below = {
        let runs = runs.clone();
        engine
            .function("below", move |_: &Cx, (): &()| {
                runs.fetch_add(1, SeqCst);
                Err::<u32, &'static str>("transient")
            })
            .unwrap()
    };
    let above = {
        let below = below.clone();
        engine.function("above", move |cx: &Cx, (): &()| below.get(cx, &()).unwrap()).unwrap()
    };
    assert_eq!(above.get(&engine, &()), Ok(Err("transient")));
    assert_eq!(above.get(&engine, &()), Ok(Err("transient")));
    assert_eq!(runs.load(SeqCst), 1, "an error is cached like a value");
    below.invalidate(&());
    above.get(&engine, &()).unwrap().unwrap_err();
    assert_eq!(runs.load(SeqCst), 2);
}

#[test]
fn simplest_provider_exception_capture() {
    let engine = Engine::new();
    let failing = engine.function("failing", |_: &Cx, (): &()| Err::<u32, &'static str>("no")).unwrap();
    let first = failing.computed(&engine, &()).unwrap();
    assert_eq!(*first.value(), Err("no"));
    assert!(same(&first, &failing.computed(&engine, &()).unwrap()));
}

#[test]
fn computed_interceptor_cancellation() {
    let (engine, gate) = (Engine::new(), Arc::new(Semaphore::new(0)));
    let slow = slow(&engine, &gate);
    for _ in 0..5 {
        let (_, waker) = Counting::pair();
        let mut call = slow.get(&engine, &1);
        assert!(poll_once(&mut call, &waker).is_pending());
        drop(call);
        gate.add_permits(1);
        assert_eq!(block_on(slow.get(&engine, &1)), Ok(1), "one caller's cancellation is nobody else's");
        slow.invalidate(&1);
    }
    engine.assert_consistent();
}

#[test]
fn computed_registry_registration_replaces() {
    let Counters { engine, get, .. } = counters();
    let old = get.computed(&engine, "key").unwrap();
    get.invalidate("key");
    let new = get.computed(&engine, "key").unwrap();
    assert!(!old.is_consistent() && new.is_consistent());
    assert!(same(&new, &get.existing("key").unwrap()));
}

#[test]
fn computed_registry_registration_concurrent() {
    let Counters { engine, get, runs, .. } = counters();
    for round in 0..20 {
        let key = format!("key {round}");
        let start = Barrier::new(32);
        let all: Vec<Computed<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        get.computed(&engine, &key).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|computed| same(computed, &all[0])), "exactly one, and it is the registered one");
        assert_eq!(runs.load(SeqCst), round + 1);
    }
    engine.assert_consistent();
}

#[test]
fn invalidated_handler_set() {
    let Counters { engine, values, get, .. } = counters();
    for count in 0..10 {
        let computed = get.computed(&engine, "key").unwrap();
        let mut watchers: Vec<_> = (0..count)
            .map(|_| {
                let (counter, waker) = Counting::pair();
                let mut end = computed.invalidated();
                assert!(poll_once(&mut end, &waker).is_pending());
                (counter, end)
            })
            .collect();
        // Every third lets go.
        let gone: Vec<_> = (0..count).rev().filter(|at| at % 3 == 0).map(|at| watchers.remove(at).0).collect();
        values.set("key", count as u32 + 1);
        assert!(watchers.iter().all(|(counter, _)| counter.count() == 1), "exactly those who remain");
        assert!(gone.iter().all(|counter| counter.count() == 0), "I36");
    }
    engine.assert_consistent();
}

#[test]
fn edge_case_service() {
    let engine = Engine::new();
    let suffix = engine.source("suffix", |(): &()| Some("!".to_string())).unwrap();
    let greet = {
        let suffix = suffix.clone();
        engine
            .function("greet", move |cx: &Cx, name: &Option<String>| match name.as_deref() {
                None => Err("a name is needed".to_string()),
                Some("error") => Err("as you wish".to_string()),
                Some(name) => Ok(suffix.get(cx, &()).unwrap().map(|suffix| format!("{name}{suffix}"))),
            })
            .unwrap()
    };
    let ask = |name: &str| greet.get(&engine, &Some(name.to_string())).unwrap();
    assert_eq!(ask("error"), Err("as you wish".into()));
    assert_eq!(greet.get(&engine, &None).unwrap(), Err("a name is needed".into()));
    assert_eq!(ask("you"), Ok(Some("you!".into())));
    suffix.set(&(), Some("?".into()));
    assert_eq!((ask("you"), ask("error")), (Ok(Some("you?".into())), Err("as you wish".into())));
    // Nullable: no value is a value.
    suffix.set(&(), None);
    let computed = greet.computed(&engine, &Some("you".into())).unwrap();
    assert_eq!(*computed.value(), Ok(None));
    assert!(computed.is_consistent());
    assert_eq!(ask("error"), Err("as you wish".into()));
}

#[test]
fn user_provider_suppress() {
    let Counters { engine, values, get, .. } = counters();
    let both = {
        let get = get.clone();
        engine.function("both", move |cx: &Cx, (): &()| get.get(cx, "s1").unwrap() + cx.untracked(|cx| get.get(cx, "s2")).unwrap()).unwrap()
    };
    let computed = both.computed(&engine, &()).unwrap();
    values.set("s2", 5);
    assert!(computed.is_consistent(), "read without recording");
    values.set("s1", 1);
    assert!(!computed.is_consistent());
    assert_eq!(both.get(&engine, &()), Ok(6));
}

/// Users by id, their count, and a tag that everything depends on.
#[test]
fn user_provider_invalidation_and_invalidate_everything() {
    let engine = Engine::new();
    let everything = engine.function("everything", |_: &Cx, (): &()| ()).unwrap();
    let rows = engine.source("rows", |_: &u32| None::<String>).unwrap();
    let ids = engine.source("ids", |(): &()| Vec::<u32>::new()).unwrap();
    let user = {
        let (rows, everything) = (rows.clone(), everything.clone());
        engine
            .function("user", move |cx: &Cx, id: &u32| {
                everything.get(cx, &()).unwrap();
                rows.get(cx, id).unwrap()
            })
            .unwrap()
    };
    let count = {
        let (ids, everything) = (ids.clone(), everything.clone());
        engine
            .function("count", move |cx: &Cx, (): &()| {
                everything.get(cx, &()).unwrap();
                ids.get(cx, &()).unwrap().len()
            })
            .unwrap()
    };
    let read = || (user.computed(&engine, &1).unwrap(), count.computed(&engine, &()).unwrap());
    let (before, none) = read();
    // Deleting somebody who is not there changes nothing.
    engine.batch(|batch| {
        batch.set(&rows, &1, None);
        batch.set(&ids, &(), Vec::new());
    });
    assert!(before.is_consistent() && none.is_consistent());
    engine.batch(|batch| {
        batch.set(&rows, &1, Some("Ann".into()));
        batch.set(&ids, &(), vec![1]);
    });
    let (added, one) = read();
    assert_eq!((added.value().as_deref(), *one.value()), (Some("Ann"), 1));
    rows.set(&1, Some("Bob".into()));
    assert!(!added.is_consistent() && one.is_consistent(), "an update changes the user, not the count");
    let (updated, one) = read();
    assert_eq!(updated.value().as_deref(), Some("Bob"));
    everything.invalidate(&());
    assert!(!updated.is_consistent() && !one.is_consistent());
    let (again, still) = read();
    assert_eq!((again.value(), still.value()), (updated.value(), one.value()), "new, and equal");
    engine.assert_consistent();
}

#[test]
fn state_contract_audit_edges() {
    for _ in 0..100 {
        let engine = Engine::new();
        let leaf = engine.function("leaf", |_: &Cx, n: &u32| *n).unwrap();
        let top = {
            let leaf = leaf.clone();
            engine.function("top", move |cx: &Cx, (): &()| leaf.get(cx, &1).unwrap() + leaf.get(cx, &2).unwrap()).unwrap()
        };
        top.get(&engine, &()).unwrap();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for key in [1, 2] {
                let (leaf, start) = (&leaf, &start);
                scope.spawn(move || {
                    start.wait();
                    leaf.invalidate(&key);
                });
            }
        });
        assert!(leaf.existing(&1).is_none() && leaf.existing(&2).is_none() && top.existing(&()).is_none());
        assert_eq!(engine.stats().edges_live + engine.stats().edges_stale, 0, "all edge lists are empty");
        engine.assert_consistent();
    }
}

#[test]
fn state_contract_audit_edge_counts_are_consistent_while_edges_are_added() {
    let engine = Engine::new();
    let hub = engine.source("hub", |(): &()| 0_u32).unwrap();
    let ray = {
        let hub = hub.clone();
        engine.function("ray", move |cx: &Cx, n: &u32| hub.get(cx, &()).unwrap() + n).unwrap()
    };
    let total = 2_000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..total).for_each(|n| drop(ray.get(&engine, &n))));
        scope.spawn(|| {
            let mut seen = 0;
            while seen < total as usize {
                let edges = engine.stats().edges_live;
                assert!(edges >= seen && edges <= total as usize, "edges only come: {edges} after {seen}");
                seen = edges;
            }
        });
    });
    engine.assert_consistent();
}

#[test]
fn state_contract_audit_every_subscriber_is_called() {
    struct Fails;
    impl std::task::Wake for Fails {
        fn wake(self: Arc<Fails>) {
            std::panic::resume_unwind(Box::new("a subscriber fails"));
        }
    }
    let Counters { engine, values, get, .. } = counters();
    let computed = get.computed(&engine, "key").unwrap();
    let ((first, a), (third, c)) = (Counting::pair(), Counting::pair());
    let mut ends: Vec<_> = (0..3).map(|_| computed.invalidated()).collect();
    for (end, waker) in ends.iter_mut().zip([a, Arc::new(Fails).into(), c]) {
        assert!(poll_once(end, &waker).is_pending());
    }
    values.set("key", 1);
    assert_eq!((first.count(), third.count()), (1, 1), "the second one's panic stops nobody");
    engine.assert_consistent();
}

#[test]
fn session_parameter() {
    let engine = Engine::new();
    let carts = engine.source("carts", |_: &(String, u32)| 0_u32).unwrap();
    let cart = {
        let carts = carts.clone();
        engine.function("cart", move |cx: &Cx, key: &(String, u32)| carts.get(cx, key).unwrap()).unwrap()
    };
    let key = |session: &str| (session.to_string(), 1);
    let (alice, bob) = (cart.computed(&engine, &key("alice")).unwrap(), cart.computed(&engine, &key("bob")).unwrap());
    let ((a, a_waker), (b, b_waker)) = (Counting::pair(), Counting::pair());
    let (mut a_end, mut b_end) = (alice.invalidated(), bob.invalidated());
    assert!(poll_once(&mut a_end, &a_waker).is_pending() && poll_once(&mut b_end, &b_waker).is_pending());
    carts.set(&key("alice"), 3);
    assert_eq!((a.count(), b.count()), (1, 0));
    assert!(!alice.is_consistent() && bob.is_consistent());
    assert_eq!((cart.get(&engine, &key("alice")), cart.get(&engine, &key("bob"))), (Ok(3), Ok(0)));
}

#[test]
fn invalidation_convention_and_its_broken_twin() {
    let Counters { engine, get, .. } = counters();
    let table: Arc<std::sync::Mutex<Vec<u32>>> = Arc::default();
    let row = {
        let table = table.clone();
        engine.function("row", move |_: &Cx, n: &usize| table.lock().unwrap().get(*n).copied()).unwrap()
    };
    let total = {
        let table = table.clone();
        engine.function("total", move |_: &Cx, (): &()| table.lock().unwrap().iter().sum::<u32>()).unwrap()
    };
    let (row_before, total_before) = (row.computed(&engine, &0).unwrap(), total.computed(&engine, &()).unwrap());
    table.lock().unwrap().push(5);
    // The broken twin forgets the aggregate: stale, and nothing can know.
    row.invalidate(&0);
    assert!(!row_before.is_consistent() && total_before.is_consistent());
    assert_eq!((row.get(&engine, &0), total.get(&engine, &())), (Ok(Some(5)), Ok(0)));
    engine.batch(|batch| {
        batch.invalidate(&row, &0);
        batch.invalidate(&total, &());
        batch.invalidate_all(&get);
    });
    assert!(!total_before.is_consistent());
    assert_eq!(total.get(&engine, &()), Ok(5));
}

#[test]
fn a_cached_dependency_fault_is_told_apart_from_an_error() {
    let engine = Engine::new();
    let f = engine.function("f", |_: &Cx, (): &()| -> Result<u32, Fault> { Err(Fault::Full) }).unwrap();
    // A fault that the function itself returns is a value like any other.
    assert_eq!(f.get(&engine, &()), Ok(Err(Fault::Full)));
    assert!(f.existing(&()).is_some());
}
