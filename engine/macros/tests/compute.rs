//! What `#[compute]` generates, seen from a service's author and from its readers.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use wellspring::{Cx, Engine, Fault, RegisterError, Service, compute};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Cents(i64);

#[derive(Clone, Debug, PartialEq)]
enum ShopError {
    NoSuchProduct(u32),
    Engine(Fault),
}

impl From<Fault> for ShopError {
    fn from(fault: Fault) -> ShopError {
        ShopError::Engine(fault)
    }
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

type Priced<T> = Result<T, ShopError>;

/// A shop that counts how often its bodies run.
#[derive(Default)]
struct Shop {
    prices: Mutex<BTreeMap<u32, i64>>,
    runs: Mutex<BTreeMap<&'static str, u32>>,
}

impl Shop {
    fn with_prices(prices: &[(u32, i64)]) -> Shop {
        Shop { prices: Mutex::new(prices.iter().copied().collect()), ..Shop::default() }
    }

    fn ran(&self, what: &'static str) {
        *self.runs.lock().unwrap().entry(what).or_default() += 1;
    }

    fn runs(&self, what: &str) -> u32 {
        self.runs.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    fn set_price(&self, product: u32, cents: i64) {
        self.prices.lock().unwrap().insert(product, cents);
    }
}

#[compute]
impl Shop {
    const FEE: i64 = 5;

    /// The price of one product.
    fn price(&self, cx: &Cx, product: u32) -> Priced<Cents> {
        self.ran("price");
        self.prices.lock().unwrap().get(&product).map(|cents| Cents(*cents)).ok_or(ShopError::NoSuchProduct(product))
    }

    async fn rebate(&self, cx: &Cx) -> Cents {
        self.ran("rebate");
        Cents(1)
    }

    async fn total(&self, cx: &Cx, products: Vec<u32>, region: String) -> Result<Cents, ShopError> {
        self.ran("total");
        let mut total = Self::fee(&region);
        for product in products {
            total += self.price(cx, product)?.0;
        }
        Ok(Cents(total - self.rebate(cx).await?.0))
    }

    fn greeting(&self, cx: &Cx, mut name: String) -> String {
        self.ran("greeting");
        name.insert_str(0, "hello ");
        name
    }

    fn cheapest(&self, cx: &Cx, r#in: Vec<u32>) -> Option<u32> {
        self.ran("cheapest");
        r#in.into_iter().filter_map(|product| Some((self.price(cx, product).ok()?.0, product))).min().map(|(_, product)| product)
    }

    /// Stays on `Shop`.
    fn fee(region: &str) -> i64 {
        if region == "far" { vec![Self::FEE; 2].into_iter().sum() } else { Self::FEE }
    }
}

fn opened(prices: &[(u32, i64)]) -> (Engine, ShopHandle) {
    let engine = Engine::new();
    let shop = engine.service(Shop::with_prices(prices)).expect("nothing else is registered");
    (engine, shop)
}

#[test]
fn a_sync_function_runs_once_and_again_after_its_invalidation() {
    let (engine, shop) = opened(&[(7, 100)]);
    assert_eq!(shop.price(&engine, 7), Ok(Cents(100)));
    shop.set_price(7, 120);
    assert_eq!(shop.price(&engine, 7), Ok(Cents(100)));
    assert_eq!(shop.runs("price"), 1);
    let commit = shop.invalidate().price(7);
    assert_eq!(shop.price(&engine, 7), Ok(Cents(120)));
    assert_eq!(shop.runs("price"), 2);
    assert!(shop.invalidate().price(7) > commit);
}

#[test]
fn an_async_function_that_read_a_sync_one_is_stale_with_it() {
    let (engine, shop) = opened(&[(1, 10), (2, 20)]);
    let total = || pollster::block_on(shop.total(&engine, &[1, 2], "near"));
    assert_eq!(total(), Ok(Cents(34)));
    assert_eq!(total(), Ok(Cents(34)));
    assert_eq!((shop.runs("total"), shop.runs("price"), shop.runs("rebate")), (1, 2, 1));
    shop.set_price(2, 50);
    shop.invalidate().price(2);
    assert_eq!(total(), Ok(Cents(64)));
    assert_eq!(shop.runs("total"), 2);
}

#[test]
fn a_read_can_be_sent_to_another_thread() {
    let (engine, shop) = opened(&[(1, 10)]);
    let read = shop.total(&engine, &[1], "near");
    let there = std::thread::spawn(move || pollster::block_on(read));
    assert_eq!(there.join().unwrap(), Ok(Cents(14)));
    assert_eq!(pollster::block_on(shop.total(&engine, &[1], "near")), Ok(Cents(14)));
    assert_eq!(shop.runs("total"), 1);
}

#[test]
fn one_string_is_passed_as_str_and_one_vec_as_a_slice() {
    let (engine, shop) = opened(&[(1, 30), (2, 20)]);
    assert_eq!(shop.greeting(&engine, "world"), Ok("hello world".to_owned()));
    assert_eq!(shop.greeting(&engine, &String::from("world")), Ok("hello world".to_owned()));
    assert_eq!(shop.cheapest(&engine, &[1, 2]), Ok(Some(2)));
    assert_eq!(shop.cheapest(&engine, &Vec::from([1, 2])), Ok(Some(2)));
    assert_eq!((shop.runs("greeting"), shop.runs("cheapest")), (1, 1));
    shop.invalidate().greeting("world");
    shop.invalidate().cheapest(&[1, 2]);
    shop.greeting(&engine, "world").unwrap();
    shop.cheapest(&engine, &[1, 2]).unwrap();
    assert_eq!((shop.runs("greeting"), shop.runs("cheapest")), (2, 2));
}

#[test]
fn several_arguments_are_one_key_that_compares_by_value() {
    let (engine, shop) = opened(&[(1, 10)]);
    let total = |products: &[u32], region: &str| pollster::block_on(shop.total(&engine, products, region));
    assert_eq!(total(&[1], "near"), Ok(Cents(14)));
    assert_eq!(total(&[1], "far"), Ok(Cents(19)));
    assert_eq!(total(&[1, 1], "near"), Ok(Cents(24)));
    assert_eq!(total(&[1], &String::from("far")), Ok(Cents(19)));
    assert_eq!(shop.runs("total"), 3);
    shop.invalidate().total(&[1], "far");
    total(&[1], "near").unwrap();
    total(&[1], "far").unwrap();
    assert_eq!(shop.runs("total"), 4);
}

#[test]
fn an_error_is_a_result_that_is_cached_until_it_is_invalidated() {
    let (engine, shop) = opened(&[]);
    assert_eq!(shop.price(&engine, 9), Err(ShopError::NoSuchProduct(9)));
    assert_eq!(shop.price(&engine, 9), Err(ShopError::NoSuchProduct(9)));
    assert_eq!(shop.runs("price"), 1);
    shop.set_price(9, 1);
    shop.invalidate().price(9);
    assert_eq!(shop.price(&engine, 9), Ok(Cents(1)));
}

#[test]
fn the_handle_reaches_the_rest_of_the_service() {
    let (engine, shop) = opened(&[(3, 4)]);
    shop.set_price(3, 5);
    assert_eq!(shop.prices.lock().unwrap().get(&3), Some(&5));
    assert_eq!(Shop::fee("far"), 10);
    let clone = shop.clone();
    clone.price(&engine, 3).unwrap();
    shop.price(&engine, 3).unwrap();
    assert_eq!(shop.runs("price"), 1);
    assert!(format!("{clone:?}").contains("Shop.price"));
}

#[test]
fn the_functions_are_there_as_typed_handles() {
    let (engine, shop) = opened(&[(3, 4)]);
    let price = shop.functions().price.clone();
    assert_eq!(price.name(), "Shop.price");
    assert_eq!(price.get(&engine, &3), Ok(Ok(Cents(4))));
    assert_eq!(shop.functions().total.name(), "Shop.total");
    assert_eq!(shop.functions().cheapest.name(), "Shop.cheapest");
}

#[test]
fn two_services_of_one_type_have_their_own_names_and_values() {
    let engine = Engine::new();
    let eu = engine.service_named("eu", Shop::with_prices(&[(1, 10)])).unwrap();
    let us = engine.service_named("us", Shop::with_prices(&[(1, 12)])).unwrap();
    assert_eq!((eu.price(&engine, 1), us.price(&engine, 1)), (Ok(Cents(10)), Ok(Cents(12))));
    assert_eq!((eu.functions().price.name(), us.functions().total.name()), ("eu.price", "us.total"));
    eu.set_price(1, 11);
    us.set_price(1, 13);
    eu.invalidate().price(1);
    assert_eq!((eu.price(&engine, 1), us.price(&engine, 1)), (Ok(Cents(11)), Ok(Cents(12))));
}

#[test]
fn a_service_registered_twice_under_one_name_is_an_error() {
    let (engine, _shop) = opened(&[]);
    assert_eq!(Shop::NAME, "Shop");
    assert!(matches!(engine.service(Shop::default()), Err(RegisterError::Duplicate { name }) if name == "Shop.price"));
}

#[test]
fn dropping_the_engine_and_the_handle_drops_the_service() {
    struct Watched(Arc<AtomicU32>);
    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    #[compute]
    impl Watched {
        fn answer(&self, cx: &Cx) -> u32 {
            42
        }
        async fn later(&self, cx: &Cx) -> u32 {
            self.answer(cx).unwrap_or_default()
        }
    }
    let drops = Arc::new(AtomicU32::new(0));
    let engine = Engine::new();
    let watched = engine.service(Watched(Arc::clone(&drops))).unwrap();
    assert_eq!(pollster::block_on(watched.later(&engine)), Ok(42));
    let elsewhere = Engine::new();
    drop(engine);
    assert_eq!(drops.load(Ordering::SeqCst), 0, "the handle still holds it");
    assert_eq!(watched.answer(&elsewhere), Err(Fault::ForeignEngine));
    drop(watched);
    assert_eq!(drops.load(Ordering::SeqCst), 1);
}

#[test]
fn a_fault_becomes_the_functions_own_error() {
    struct Breaking;
    #[compute]
    impl Breaking {
        fn own(&self, cx: &Cx) -> Result<u32, ShopError> {
            panic!("own")
        }
        fn plain(&self, cx: &Cx) -> u32 {
            panic!("plain")
        }
        async fn above(&self, cx: &Cx) -> Result<u32, ShopError> {
            Ok(self.plain(cx)?)
        }
    }
    let engine = Engine::new();
    let breaking = engine.service(Breaking).unwrap();
    assert!(matches!(breaking.plain(&engine), Err(Fault::Panicked { message, .. }) if message.contains("plain")));
    assert!(matches!(breaking.own(&engine), Err(ShopError::Engine(Fault::Panicked { message, .. })) if message.contains("own")));
    let above = pollster::block_on(breaking.above(&engine));
    assert!(matches!(above, Err(ShopError::Engine(Fault::Panicked { function, .. })) if function == "Breaking.plain"));
}
