//! The same shop over PostgreSQL.

mod server;
mod tiny;

use server::Schema;
use wellspring_shop::Shop;
use wellspring_shop::check::Check;
use wellspring_shop::data::Data;
use wellspring_shop::database::{Database, UNKNOWN};
use wellspring_shop::error::ShopError;
use wellspring_shop::keys::Keys;
use wellspring_shop::line::{Cents, Line, UnitPrice};

const PLAIN: Line = Line { product: 1, quantity: 1, sales: 40, retail_discount: 0, coupon: 0, coupon_match: 0 };

fn open(schema: &Schema) -> Result<Database, ShopError> {
    let folder = tiny::folder();
    Database::open_postgres(schema.url(), schema.name(), Some(&Data::Folder(folder.path().to_owned())))
}

fn check(shop: &Shop) -> Check {
    let keys = Keys::read(shop.database()).expect("keys");
    shop.warm(&keys).expect("values");
    Check::run(shop, &keys).expect("a check")
}

#[test]
fn every_value_over_postgresql_is_what_it_is_over_sqlite_before_and_after_changes() {
    let Some(schema) = Schema::new() else { return };
    let shop = Shop::new(open(&schema).expect("a database")).expect("a shop");
    let other = tiny::shop();
    let figures = |shop: &Shop| {
        let (engine, books) = (&shop.engine, &shop.books);
        let keys = Keys::read(shop.database()).expect("keys");
        let prices: Vec<_> = keys.products.iter().map(|key| books.price(engine, *key)).collect();
        let baskets: Vec<_> = keys.baskets.iter().map(|key| (books.basket_total(engine, *key), books.basket_lines(engine, *key))).collect();
        let spends: Vec<_> = keys.households.iter().map(|key| books.household_spend(engine, *key)).collect();
        let stores: Vec<_> = keys.stores.iter().map(|key| books.store_revenue(engine, *key)).collect();
        let departments = keys.departments.iter().map(|key| (books.department_revenue(engine, key), books.top_products(engine, key, 3)));
        let departments: Vec<_> = departments.collect();
        (keys, prices, baskets, spends, stores, departments)
    };
    assert_eq!(figures(&shop), figures(&other));
    assert_eq!(check(&shop), check(&other));
    for shop in [&shop, &other] {
        shop.set_price(1, UnitPrice(300_000)).expect("a price");
        shop.set_price(2, UnitPrice(1)).expect("a first price");
        shop.add_line(104, &PLAIN).expect("a line");
        shop.add_line(104, &Line { product: 98, ..PLAIN }).expect("a line of a product nobody has heard of");
        assert!(matches!(shop.add_line(1, &PLAIN), Err(ShopError::Data(_))));
    }
    assert_eq!(figures(&shop), figures(&other));
    assert_eq!(check(&shop).stale, []);
    assert_eq!(shop.books.department_revenue(&shop.engine, UNKNOWN), Ok(Cents(130)));
}

#[test]
fn a_row_written_behind_the_cache_is_found_by_the_check() {
    let Some(schema) = Schema::new() else { return };
    let shop = Shop::new(open(&schema).expect("a database")).expect("a shop");
    assert_eq!(check(&shop).stale, []);
    shop.database().set_price(4, UnitPrice(1_000)).expect("a row");
    let stale: Vec<String> = check(&shop).stale.iter().map(|stale| stale.key.clone()).collect();
    assert!(stale.contains(&"shop.price(4)".to_owned()) && stale.contains(&"shop.basket_total(103)".to_owned()), "{stale:?}");
}

#[test]
fn of_several_who_open_a_new_schema_at_once_one_fills_it() {
    let Some(schema) = Schema::new() else { return };
    let counted: Vec<usize> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Database::open_postgres(schema.url(), schema.name(), None).map(|database| Keys::read(&database))))
            .collect();
        let opened = opening.into_iter().map(|open| open.join().expect("no panic").expect("a database").expect("keys").baskets.len());
        opened.collect()
    });
    assert!(counted[0] > 1_000 && counted.iter().all(|count| *count == counted[0]), "{counted:?}");
}

#[test]
fn a_filled_schema_is_used_as_it_is_and_one_of_somebody_else_left_alone() {
    let Some(schema) = Schema::new() else { return };
    open(&schema).expect("a database");
    assert!(matches!(open(&schema), Err(ShopError::Usage(text)) if text.contains("filled already")));
    let again = Database::open_postgres(schema.url(), schema.name(), None).expect("the same");
    assert_eq!(Keys::read(&again).expect("keys").baskets.len(), 5);

    let Some(other) = Schema::new() else { return };
    other.execute("CREATE SCHEMA {s}; CREATE TABLE {s}.precious (x INTEGER)");
    assert!(matches!(open(&other), Err(ShopError::Data(text)) if text.contains("not made by this program")));
    other.execute("SELECT x FROM {s}.precious");
}

#[test]
fn a_connection_that_the_server_has_ended_is_replaced_by_the_next_query() {
    let Some(schema) = Schema::new() else { return };
    let database = open(&schema).expect("a database");
    assert_eq!(database.price(1), Ok(Some(UnitPrice(200_000))));
    let ended = schema.count(
        "SELECT COUNT(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
         WHERE application_name = '{s}' AND query LIKE '%millicents FROM prices%' AND pid <> pg_backend_pid()",
    );
    assert_eq!(ended, 1);
    assert_eq!(database.price(1), Ok(Some(UnitPrice(200_000))));
}
