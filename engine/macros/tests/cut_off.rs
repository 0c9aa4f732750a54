//! Which values `#[compute]` compares, which it keeps inline, and where it has to be told.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use wellspring::{Cx, Engine, Fault, Inline, Key, Value, compute};

#[derive(Clone, Debug)]
struct Opaque;

#[derive(Clone, Debug, PartialEq)]
struct Failed(Fault);

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        Failed(fault)
    }
}

/// An error that cannot be compared.
#[derive(Clone, Debug)]
struct Strange;

impl From<Fault> for Strange {
    fn from(_: Fault) -> Strange {
        Strange
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Inline)]
struct Cents(i64);

type Hidden<T> = Result<T, Strange>;
type Words = Vec<String>;
type Sealed = Opaque;

#[derive(Default)]
struct Rules {
    source: AtomicI64,
    runs: AtomicU32,
}

#[compute]
impl Rules {
    fn number(&self, cx: &Cx) -> u64 {
        1
    }
    fn newtype(&self, cx: &Cx) -> Cents {
        Cents(1)
    }
    fn words(&self, cx: &Cx) -> Words {
        Words::new()
    }
    fn nothing(&self, cx: &Cx) {}
    fn sealed(&self, cx: &Cx) -> Sealed {
        Opaque
    }
    fn both(&self, cx: &Cx) -> Result<u32, Failed> {
        Ok(1)
    }
    fn value_only(&self, cx: &Cx) -> Hidden<u32> {
        Ok(1)
    }
    async fn value_only_later(&self, cx: &Cx) -> Hidden<u32> {
        Ok(1)
    }
    fn neither(&self, cx: &Cx) -> Hidden<Opaque> {
        Ok(Opaque)
    }
    #[compute(cut_off = never)]
    fn refused(&self, cx: &Cx) -> u32 {
        1
    }
    #[compute(cut_off = eq, name = "asked_for")]
    fn demanded(&self, cx: &Cx) -> Hidden<u32> {
        Ok(1)
    }
    #[compute(cut_off = hash)]
    fn hashed(&self, cx: &Cx) -> Words {
        Words::new()
    }
    #[compute(cut_off = hash)]
    async fn hashed_value_only(&self, cx: &Cx) -> Hidden<u32> {
        Ok(1)
    }

    fn sign(&self, cx: &Cx) -> Hidden<i64> {
        Ok(self.source.load(Ordering::SeqCst).signum())
    }
    fn described(&self, cx: &Cx) -> Hidden<String> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        Ok(format!("sign {}", self.sign(cx)?))
    }
}

fn rule_of(engine: &Engine, name: &str) -> String {
    let functions = engine.stats().functions;
    let function = functions.iter().find(|function| function.name == name).expect("registered under this name");
    function.cut_off.to_string()
}

#[test]
fn a_type_is_compared_where_it_can_be_also_through_an_alias() {
    let engine = Engine::new();
    let rules = engine.service(Rules::default()).unwrap();
    let rule = |name: &str| rule_of(&engine, &format!("Rules.{name}"));
    for compared in ["number", "newtype", "words", "nothing", "both"] {
        assert_eq!(rule(compared), rule("number"), "{compared}");
    }
    for by_value in ["value_only_later", "asked_for"] {
        assert_eq!(rule(by_value), rule("value_only"), "{by_value}");
    }
    for never in ["neither", "refused"] {
        assert_eq!(rule(never), rule("sealed"), "{never}");
    }
    for hashed in ["hashed", "hashed_value_only"] {
        assert_eq!(rule(hashed), "hash", "{hashed}");
    }
    assert_ne!(rule("number"), rule("value_only"));
    assert_ne!(rule("number"), rule("sealed"));
    assert_ne!(rule("value_only"), rule("sealed"));
    assert_eq!(rules.number(&engine), Ok(1));
}

#[test]
fn an_equal_ok_value_behind_an_alias_reruns_nothing_above_it() {
    let engine = Engine::new();
    let rules = engine.service(Rules { source: AtomicI64::new(3), ..Rules::default() }).unwrap();
    assert_eq!(rules.described(&engine).unwrap(), "sign 1");
    rules.source.store(8, Ordering::SeqCst);
    rules.invalidate().sign();
    assert_eq!(rules.described(&engine).unwrap(), "sign 1");
    assert_eq!(rules.runs.load(Ordering::SeqCst), 1);
    rules.source.store(-8, Ordering::SeqCst);
    rules.invalidate().sign();
    assert_eq!(rules.described(&engine).unwrap(), "sign -1");
    assert_eq!(rules.runs.load(Ordering::SeqCst), 2);
}

#[test]
fn an_alias_of_result_reads_as_the_result_it_is() {
    let engine = Engine::new();
    let rules = engine.service(Rules::default()).unwrap();
    let sync: Result<u32, Strange> = rules.value_only(&engine);
    let later: Result<u32, Strange> = pollster::block_on(rules.value_only_later(&engine));
    let plain: Result<Sealed, Fault> = rules.sealed(&engine);
    let unit: Result<(), Fault> = rules.nothing(&engine);
    assert!(sync.is_ok() && later.is_ok() && plain.is_ok() && unit.is_ok());
}

/// A service over a type it does not know.
struct Store<T, const N: usize> {
    items: [T; N],
}

trait Item: Value + PartialEq {}
impl<T: Value + PartialEq> Item for T {}

#[compute(handle = pub(crate) StoreOf, name = "store")]
impl<T: Item, const N: usize> Store<T, N>
where
    T: Key,
    Self: Send,
{
    #[compute(cut_off = eq)]
    fn item(&self, cx: &Cx, at: usize) -> Option<T> {
        self.items.get(at).cloned()
    }
    #[compute(cut_off = never)]
    async fn all(&self, cx: &Cx) -> [T; N] {
        self.items.clone()
    }
    #[compute(cut_off = eq)]
    fn found(&self, cx: &Cx, item: T, from: usize) -> Result<T, Strange> {
        let at = self.position(cx, item)?;
        self.item(cx, at.max(from))?.ok_or(Strange)
    }
    #[compute(cut_off = eq, result)]
    fn found_by_alias(&self, cx: &Cx, item: T) -> Hidden<T> {
        self.found(cx, item, 0)
    }
    fn position(&self, cx: &Cx, item: T) -> usize {
        Self::place(&self.items, &item)
    }
    fn place(items: &[T], item: &T) -> usize {
        items.iter().position(|other| other == item).unwrap_or(items.len())
    }
}

#[test]
fn a_generic_service_is_registered_for_each_type() {
    let engine = Engine::new();
    let words = engine.service(Store { items: ["a".to_owned(), "b".to_owned()] }).unwrap();
    let numbers: StoreOf<u8, 3> = engine.service_named("numbers", Store { items: [4, 5, 6] }).unwrap();
    assert_eq!(words.item(&engine, 1), Ok(Some("b".to_owned())));
    assert_eq!(words.found(&engine, "b".to_owned(), 0).unwrap(), "b");
    assert!(words.found_by_alias(&engine, "c".to_owned()).is_err());
    assert_eq!(pollster::block_on(numbers.all(&engine)), Ok([4, 5, 6]));
    assert_eq!(numbers.position(&engine, 6), Ok(2));
    let functions: &StoreOfFunctions<String, 2> = words.functions();
    assert_eq!(functions.item.name(), "store.item");
    assert_eq!(rule_of(&engine, "store.found"), rule_of(&engine, "store.found_by_alias"));
    assert_ne!(rule_of(&engine, "store.found"), rule_of(&engine, "store.item"));
}

mod inside {
    use super::{Arc, Cx, compute};

    pub(super) struct Secret(Arc<str>);

    #[compute]
    impl Secret {
        pub(super) fn length(&self, context: &Cx) -> usize {
            let Self(text) = &**self;
            text.len()
        }
        #[cfg(any())]
        fn left_out(&self, cx: &Cx) -> Missing {
            Missing
        }
        /// `by` is an ordinary name for an argument.
        pub(super) async fn repeated(&self, cx: &Cx, by: usize, key: usize, late: usize) -> usize {
            self.length(cx).unwrap_or_default() * by + key + late
        }
    }

    pub(super) fn open(engine: &wellspring::Engine) -> SecretHandle {
        engine.service(Secret(Arc::from("open"))).expect("nothing else is registered")
    }
}

#[test]
fn a_service_can_be_used_outside_its_module_through_its_handle() {
    let engine = Engine::new();
    let secret: inside::SecretHandle = inside::open(&engine);
    assert_eq!(secret.length(&engine), Ok(4));
    assert_eq!(pollster::block_on(secret.repeated(&engine, 2, 1, 1)), Ok(10));
}
