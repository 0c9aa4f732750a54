//! Forced interleavings: named places where a test can step in, once, on the thread that gets there. Nothing of this is in a
//! build without `cfg(test)`.

use crate::graph::Graph;

impl Graph {
    /// The engine got to the named place with this node.
    #[inline(always)]
    pub(crate) fn reach(&self, place: &'static str, slot: u32) {
        #[cfg(test)]
        self.hooks.reach(place, slot);
        #[cfg(not(test))]
        let _ = (place, slot);
    }
}

#[cfg(test)]
pub(crate) use armed::Hooks;

#[cfg(test)]
mod armed {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    type Step = Box<dyn FnOnce(u32) + Send>;

    /// What tests have armed. One engine's, so that tests do not meet.
    #[derive(Default)]
    pub(crate) struct Hooks(Mutex<HashMap<&'static str, Step>>);

    impl Hooks {
        pub(crate) fn arm(&self, place: &'static str, step: impl FnOnce(u32) + Send + 'static) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place, Box::new(step));
        }

        pub(super) fn reach(&self, place: &'static str, slot: u32) {
            let step = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
            if let Some(step) = step {
                step(slot);
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::future::Future;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use crate::{Cx, Engine, Function, Source};

    fn doubled() -> (Engine, Source<u8, u64>, Function<u8, u64>, Arc<AtomicU64>) {
        let engine = Engine::new();
        let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
        let runs = Arc::new(AtomicU64::new(0));
        let double = {
            let (source, runs) = (source.clone(), runs.clone());
            let body = move |cx: &Cx, key: &u8| {
                runs.fetch_add(1, SeqCst);
                source.get(cx, key).expect("a value") * 2
            };
            engine.define("double").cut_off_eq().function(body).expect("a free name")
        };
        (engine, source, double, runs)
    }

    #[test]
    fn a_change_between_linking_and_publishing_dooms_the_result() {
        let (engine, source, double, runs) = doubled();
        let change = source.clone();
        source.get(&engine, &0).expect("a value");
        double.graph.hooks.arm("publish:linked", move |_| {
            change.set(&0, 5);
        });
        assert_eq!(double.get(&engine, &0), Ok(2), "the starter's read began before the change");
        assert!(double.existing(&0).is_none(), "I5: never stored as consistent");
        assert_eq!(double.get(&engine, &0), Ok(10));
        assert_eq!(runs.load(SeqCst), 2);
        engine.assert_consistent();
    }

    #[test]
    fn a_change_before_linking_is_seen_by_the_registrar() {
        let (engine, source, double, _) = doubled();
        source.get(&engine, &0).expect("a value");
        let change = source.clone();
        double.graph.hooks.arm("publish:owned", move |_| {
            change.set(&0, 5);
        });
        assert_eq!(double.get(&engine, &0), Ok(2));
        assert!(double.existing(&0).is_none(), "I5");
        assert_eq!(double.get(&engine, &0), Ok(10));
        engine.assert_consistent();
    }

    #[test]
    fn a_change_under_a_verification_keeps_the_old_value_out() {
        let (engine, source, double, runs) = doubled();
        double.get(&engine, &0).expect("a value");
        let above = {
            let double = double.clone();
            engine.function("above", move |cx: &Cx, key: &u8| double.get(cx, key).expect("a value") + 1).expect("a free name")
        };
        assert_eq!(above.get(&engine, &0), Ok(3));
        double.invalidate(&0);
        let change = source.clone();
        // `double` recomputes to an equal value, so `above` is verified; the change comes under its claim.
        double.graph.hooks.arm("verify:linked", move |_| {
            change.set(&0, 7);
        });
        assert_eq!(above.get(&engine, &0), Ok(15), "read again: the first verification was doomed");
        assert_eq!(above.get(&engine, &0), Ok(15));
        assert_eq!(runs.load(SeqCst), 3);
        engine.assert_consistent();
    }

    #[test]
    fn an_expiry_that_meets_a_verification_ends_the_value_all_the_same() {
        let clock = Arc::new(crate::ManualClock::new());
        let engine = Engine::builder().clock(clock.clone()).build();
        let source = engine.source("source", |_: &u8| 1_u64).expect("a free name");
        let inner = source.clone();
        let parity = engine.define("parity").cut_off_eq().function(move |cx: &Cx, key: &u8| inner.get(cx, key).expect("a value") % 2);
        let parity = parity.expect("a free name");
        let runs = Arc::new(AtomicU64::new(0));
        let counter = runs.clone();
        let body = move |cx: &Cx, key: &u8| {
            counter.fetch_add(1, SeqCst);
            parity.get(cx, key).expect("a value") * 2
        };
        let define = engine.define("double").expire_after(std::time::Duration::from_millis(10));
        let double = define.function(body).expect("a free name");
        double.get(&engine, &0).expect("a value");
        source.set(&0, 3);
        double.graph.hooks.arm("verify:linked", move |_| clock.advance(std::time::Duration::from_millis(10)));
        assert_eq!(double.get(&engine, &0), Ok(2));
        assert_eq!(runs.load(SeqCst), 2, "I33: the value was over when its verification ended");
        assert!(double.existing(&0).is_some());
        engine.assert_consistent();
    }

    #[test]
    fn a_key_recomputed_while_it_is_being_removed_tells_its_watcher() {
        let (engine, source, double, _) = doubled();
        double.get(&engine, &0).expect("a value");
        source.set(&0, 5);
        let woken = Arc::new(AtomicU64::new(0));
        struct Count(Arc<AtomicU64>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Count>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let waker = std::task::Waker::from(Arc::new(Count(woken.clone())));
        let kept = Arc::new(std::sync::Mutex::new(None));
        double.graph.hooks.arm("sweep:forget", {
            let (engine, double, waker, kept) = (engine.clone(), double.clone(), waker.clone(), kept.clone());
            move |_| {
                let computed = double.computed(&engine, &0).expect("a value");
                let mut ended = Box::pin(async move { computed.invalidated().await });
                assert!(ended.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
                *kept.lock().expect("unpoisoned") = Some(ended);
            }
        });
        assert!(double.remove(&0));
        assert_eq!(woken.load(SeqCst), 1, "the generation of the meantime has ended too");
        let mut ended = kept.lock().expect("unpoisoned").take().expect("armed");
        assert!(ended.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready());
        engine.assert_consistent();
    }
}
