//! What the functions answer, on data with every trap in it, before and after changes.

mod tiny;

use std::sync::Arc;
use std::time::Duration;

use wellspring::{Capacity, Engine, ManualClock, RegisterError};
use wellspring_shop::Shop;
use wellspring_shop::check::Check;
use wellspring_shop::database::{Database, UNKNOWN};
use wellspring_shop::error::ShopError;
use wellspring_shop::functions::{Books, Ranked};
use wellspring_shop::keys::{Keys, NOBODY};
use wellspring_shop::line::{Cents, Line, UnitPrice};
use wellspring_shop::peer::Peer;

const PLAIN: Line = Line { product: 1, quantity: 1, sales: 40, retail_discount: 0, coupon: 0, coupon_match: 0 };

/// A value, where neither the engine nor the database may fail.
macro_rules! value {
    ($shop:ident.$function:ident($($key:expr),+)) => {
        $shop.books.$function(&$shop.engine, $($key),+).expect("a value")
    };
}

fn computes(shop: &Shop, name: &str) -> u64 {
    let stats = shop.engine.stats();
    stats.functions.iter().find(|function| function.name == format!("shop.{name}")).expect("a function").computes
}

fn top(shop: &Shop, department: &str, n: u32) -> Vec<(u32, i64)> {
    let ranked = value!(shop.top_products(department, n));
    ranked.iter().map(|one| (one.product, one.revenue.0)).collect()
}

fn check(shop: &Shop) -> Check {
    let keys = Keys::read(shop.database()).expect("keys");
    shop.warm(&keys).expect("values");
    let check = Check::run(shop, &keys).expect("a check");
    shop.engine.assert_consistent();
    check
}

fn assert_fresh(shop: &Shop) {
    let check = check(shop);
    assert_eq!(check.stale, [], "stale values");
    assert_eq!(check.checked, check.cached, "some cached values were not looked at");
}

#[test]
fn the_newest_shelf_price_is_the_price() {
    let shop = tiny::shop();
    assert_eq!(value!(shop.price(1)), Some(UnitPrice(200_000)));
    assert_eq!(value!(shop.price(99)), Some(UnitPrice(30_000)));
    assert_eq!(value!(shop.price(4)), Some(UnitPrice(250)));
}

#[test]
fn a_product_without_a_quantity_unsold_or_unheard_of_has_no_price() {
    let shop = tiny::shop();
    for product in [2, 5, NOBODY] {
        assert_eq!(value!(shop.price(product)), None);
    }
}

#[test]
fn baskets_add_up_with_every_trap_in_them() {
    let shop = tiny::shop();
    // 2 x 2.00 - 0.50, and a line without a piece that stays 0.80 - 0.30.
    assert_eq!(value!(shop.basket_total(100)), Cents(400));
    assert_eq!(value!(shop.basket_total(101)), Cents(200));
    // A product nobody knows is paid for; a coupon over the price gives nothing back.
    assert_eq!(value!(shop.basket_total(102)), Cents(90));
    assert_eq!(value!(shop.basket_total(103)), Cents(2_500));
    assert_eq!(value!(shop.basket_total(104)), Cents(0));
    assert_eq!(value!(shop.basket_total(-1)), Cents(0));
}

#[test]
fn households_and_stores_are_the_sums_of_their_baskets() {
    let shop = tiny::shop();
    assert_eq!(value!(shop.household_spend(1)), Cents(600));
    assert_eq!(value!(shop.household_spend(2)), Cents(2_590));
    assert_eq!(value!(shop.store_revenue(10)), Cents(3_100));
    assert_eq!(value!(shop.store_revenue(11)), Cents(90));
    assert_eq!(value!(shop.household_spend(NOBODY)), Cents(0));
    assert_eq!(value!(shop.store_revenue(NOBODY)), Cents(0));
}

#[test]
fn departments_are_the_sums_of_their_products_and_the_unknown_ones_have_their_own() {
    let shop = tiny::shop();
    assert_eq!(value!(shop.department_revenue("GROCERY")), Cents(600));
    assert_eq!(value!(shop.department_revenue("DELI")), Cents(0));
    assert_eq!(value!(shop.department_revenue("FUEL")), Cents(2_500));
    assert_eq!(value!(shop.department_revenue(UNKNOWN)), Cents(90));
    assert_eq!(value!(shop.department_revenue("no such department")), Cents(0));
    assert_eq!(top(&shop, "GROCERY", 10), [(1, 550), (2, 50)]);
    assert_eq!(top(&shop, "GROCERY", 1), [(1, 550)]);
    assert_eq!(top(&shop, "GROCERY", 0), []);
    assert_eq!(top(&shop, "DELI", 3), []);
    assert_eq!(top(&shop, UNKNOWN, 3), [(99, 90)]);
}

#[test]
fn a_price_change_reaches_every_total_made_from_it() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    shop.set_price(1, UnitPrice(20_000)).expect("a price");
    // 2 x 0.20 is less than the discount of 0.50.
    assert_eq!(value!(shop.basket_total(100)), Cents(50));
    assert_eq!(value!(shop.basket_total(101)), Cents(20));
    assert_eq!(value!(shop.household_spend(1)), Cents(70));
    assert_eq!(value!(shop.store_revenue(10)), Cents(2_570));
    assert_eq!(value!(shop.department_revenue("GROCERY")), Cents(70));
    assert_eq!(top(&shop, "GROCERY", 3), [(2, 50), (1, 20)]);
    assert_fresh(&shop);
}

#[test]
fn a_new_line_reaches_its_basket_and_its_product() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    shop.add_line(104, &PLAIN).expect("a line");
    assert_eq!(value!(shop.basket_total(104)), Cents(200));
    assert_eq!(value!(shop.store_revenue(11)), Cents(290));
    assert_eq!(value!(shop.department_revenue("GROCERY")), Cents(800));
    assert_fresh(&shop);
}

#[test]
fn the_first_line_of_an_unknown_product_joins_the_unknown_department_and_may_get_a_price_later() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    shop.add_line(104, &Line { product: 98, ..PLAIN }).expect("a line");
    assert_eq!(value!(shop.basket_total(104)), Cents(40));
    assert_eq!(value!(shop.department_revenue(UNKNOWN)), Cents(130));
    assert_eq!(top(&shop, UNKNOWN, 3), [(99, 90), (98, 40)]);
    shop.set_price(98, UnitPrice(500_000)).expect("a price");
    assert_eq!(value!(shop.basket_total(104)), Cents(500));
    assert_eq!(top(&shop, UNKNOWN, 3), [(98, 500), (99, 90)]);
    assert_fresh(&shop);
}

#[test]
fn a_line_of_a_basket_that_does_not_exist_is_refused() {
    let shop = tiny::shop();
    let refused = shop.add_line(1, &PLAIN);
    assert!(matches!(refused, Err(ShopError::Data(_))), "{refused:?}");
    assert_eq!(value!(shop.basket_total(1)), Cents(0));
}

#[test]
fn a_line_without_a_piece_does_not_depend_on_a_price() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    let before = (computes(&shop, "basket_total"), computes(&shop, "product_revenue"));
    shop.set_price(2, UnitPrice(5_000)).expect("a price");
    assert_eq!(value!(shop.basket_total(100)), Cents(400));
    assert_fresh(&shop);
    assert_eq!((computes(&shop, "basket_total"), computes(&shop, "product_revenue")), before);
}

#[test]
fn announcing_the_price_there_is_already_computes_one_price_and_no_total() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    let before = shop.engine.stats();
    shop.set_price(1, UnitPrice(200_000)).expect("a price");
    assert_eq!(value!(shop.household_spend(1)), Cents(600));
    assert_eq!(value!(shop.department_revenue("GROCERY")), Cents(600));
    assert_eq!(top(&shop, "GROCERY", 10), [(1, 550), (2, 50)]);
    let after = shop.engine.stats();
    assert_eq!(after.computes - before.computes, 1);
    assert!(after.verified > before.verified);
}

#[test]
fn a_category_whose_best_sellers_stay_the_same_ends_the_change_there() {
    let shop = tiny::shop();
    shop.add_line(104, &Line { product: 5, ..PLAIN }).expect("a line");
    assert_eq!(top(&shop, "GROCERY", 1), [(1, 550)]);
    let before = (computes(&shop, "category_top"), computes(&shop, "top_products"));
    // Product 5 shares its category with 1, and sells for less than 1 before and after.
    shop.set_price(5, UnitPrice(60_000)).expect("a price");
    assert_eq!(top(&shop, "GROCERY", 1), [(1, 550)]);
    let after = (computes(&shop, "category_top"), computes(&shop, "top_products"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 0));
}

#[test]
fn a_row_written_behind_the_cache_is_found_by_the_check_and_named() {
    let shop = tiny::shop();
    assert_fresh(&shop);
    shop.database().set_price(4, UnitPrice(1_000)).expect("a row");
    let stale: Vec<String> = check(&shop).stale.iter().map(ToString::to_string).collect();
    let price = "shop.price(4): cached Some(UnitPrice(250)), the database says Some(UnitPrice(1000))";
    assert!(stale.iter().any(|line| line == price), "{stale:?}");
    let total = "shop.basket_total(103): cached Cents(2500), the database says Cents(10000)";
    assert!(stale.iter().any(|line| line == total), "{stale:?}");
    shop.set_price(4, UnitPrice(1_000)).expect("a price");
    assert_fresh(&shop);
}

#[test]
fn with_a_capacity_the_check_compares_what_is_still_cached_as_it_is_and_reads_the_rest() {
    for entries in [1, 7, 20, 1_000] {
        let shop = tiny::shop_on(Engine::builder().capacity(Capacity::entries(entries)).build());
        let check = check(&shop);
        assert_eq!(check.stale, [], "{entries}");
        assert!(check.checked >= 40 && check.cached <= entries as u64, "{entries}: {check:?}");
        assert_eq!(shop.engine.memory_report().evicted == 0, entries == 1_000);
        // The row alone: whatever the cache still has of it is wrong now, and what it has not is right.
        let cached = shop.books.functions().price.get(&shop.engine, &4).expect("a price");
        assert_eq!(cached, Ok(Some(UnitPrice(250))));
        shop.database().set_price(4, UnitPrice(1_000)).expect("a row");
        let keys = Keys::read(shop.database()).expect("keys");
        let stale: Vec<String> = Check::run(&shop, &keys).expect("a check").stale.iter().map(|stale| stale.key.clone()).collect();
        assert!(stale.contains(&"shop.price(4)".to_owned()), "{entries}: {stale:?}");
        assert_eq!(stale.contains(&"shop.store_revenue(10)".to_owned()), entries == 1_000, "{entries}: {stale:?}");
        shop.engine.assert_consistent();
    }
}

#[test]
fn a_failed_query_is_a_result_for_a_second_or_until_its_row_is_invalidated() {
    let clock = Arc::new(ManualClock::new());
    let shop = tiny::shop_on(Engine::builder().clock(clock.clone()).build());
    let direct = shop.database().connect().expect("a connection");
    let direct = direct.sqlite().expect("SQLite");
    direct.execute_batch("ALTER TABLE prices RENAME TO away").expect("renamed");
    let failed = shop.books.basket_total(&shop.engine, 101);
    assert!(matches!(&failed, Err(ShopError::Sql(text)) if text.contains("prices")), "{failed:?}");
    direct.execute_batch("ALTER TABLE away RENAME TO prices").expect("renamed back");
    assert_eq!(shop.books.basket_total(&shop.engine, 101), failed);
    shop.books.invalidate().price(1);
    assert_eq!(value!(shop.basket_total(101)), Cents(200));

    direct.execute_batch("ALTER TABLE prices RENAME TO away").expect("renamed");
    shop.books.invalidate().price(1);
    assert_eq!(shop.books.basket_total(&shop.engine, 101), failed);
    direct.execute_batch("ALTER TABLE away RENAME TO prices").expect("renamed back");
    clock.advance(Duration::from_millis(900));
    assert_eq!(shop.books.basket_total(&shop.engine, 101), failed);
    clock.advance(Duration::from_secs(1));
    assert_eq!(value!(shop.basket_total(101)), Cents(200));
}

#[test]
fn of_several_who_open_a_new_file_at_once_one_fills_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shop.db");
    let counted: Vec<usize> = std::thread::scope(|scope| {
        let opening: Vec<_> =
            (0..4).map(|_| scope.spawn(|| Database::open(Some(&path), None).map(|database| Keys::read(&database)))).collect();
        let opened = opening.into_iter().map(|open| open.join().expect("no panic").expect("a database").expect("keys").baskets.len());
        opened.collect()
    });
    assert!(counted[0] > 1_000 && counted.iter().all(|count| *count == counted[0]), "{counted:?}");
    let mode: String = Database::open(Some(&path), None)
        .and_then(|database| database.connect())
        .expect("a connection")
        .sqlite()
        .expect("SQLite")
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .expect("a mode");
    assert_eq!(mode, "wal");
}

#[test]
fn a_name_can_be_registered_once() {
    let shop = tiny::shop();
    let database = Database::open(None, None).expect("a database");
    let again = shop.engine.service(Books { database });
    assert!(matches!(again, Err(RegisterError::Duplicate { .. })), "{again:?}");
}

#[test]
fn on_the_fixture_functions_direct_sql_and_the_check_agree() {
    let shop = Shop::new(Database::open(None, None).expect("a database")).expect("a shop");
    assert_fresh(&shop);
    let keys = Keys::read(shop.database()).expect("keys");
    let connection = shop.database().connect().expect("a connection");
    let mut peer = Peer::new(connection.sqlite().expect("SQLite")).expect("statements");
    for product in &keys.products {
        assert_eq!(value!(shop.price(*product)), peer.price(*product).expect("a price"));
    }
    for basket in &keys.baskets {
        assert_eq!(value!(shop.basket_total(*basket)), peer.basket_total(*basket).expect("a sum"));
    }
    for household in &keys.households {
        let spend = peer.household_spend(*household).expect("a sum");
        assert_eq!(value!(shop.household_spend(*household)), spend);
    }
    for store in &keys.stores {
        assert_eq!(value!(shop.store_revenue(*store)), peer.store_revenue(*store).expect("a sum"));
    }
    for department in &keys.departments {
        let revenue = peer.department_revenue(department).expect("a sum");
        assert_eq!(value!(shop.department_revenue(department)), revenue);
        let best: Vec<Ranked> = peer.top_products(department, 10).expect("a ranking");
        assert_eq!(*value!(shop.top_products(department, 10)), *best);
    }
    let by_store: i64 = keys.stores.iter().map(|key| value!(shop.store_revenue(*key)).0).sum();
    let by_department: i64 = keys.departments.iter().map(|key| value!(shop.department_revenue(key)).0).sum();
    assert_eq!(by_store, by_department);
    assert!(by_store > 10_000_000, "four weeks take in {}", Cents(by_store));
}
