//! Several servers that share an operation log, and a client that asks each key's owner.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::PATIENCE;
use support::cluster::{method, remote, router};
use support::pipe::Wire;
use wellspring::{AsyncFunction, Cx, Engine};
use wellspring_commands::sqlite::rusqlite::Connection;
use wellspring_commands::sqlite::{Sqlite, Write};
use wellspring_commands::{Command, InvalidateError, LoggedFunctions, Op, Server};
use wellspring_rpc::{Failure, HashRing, Hub, Remoted, Route, Router, Routes, Service};

const ALL: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Serialize, Deserialize)]
struct SetPrice {
    product: u32,
    cents: i64,
}

impl Command for SetPrice {
    const NAME: &'static str = "shop.SetPrice";
    type Output = ();
    type Error = InvalidateError;
}

/// A server of the shop: it tells the prices of its own products, and sets any.
struct Shop {
    engine: Engine,
    routes: Routes<u32>,
    hub: Hub,
    commands: Server<Sqlite>,
}

impl Shop {
    async fn start(here: &str, path: &Path) -> Shop {
        let (engine, routes, database) = (Engine::new(), Routes::of_server(here, HashRing::new(ALL)), Sqlite::open(path).expect("opened"));
        let rows = database.clone();
        let price = engine.function("price", move |_: &Cx, product: &u32| {
            rows.read_blocking(|sql| sql.query_row("SELECT cents FROM prices WHERE product = ?", [product], |row| row.get(0)))
                .unwrap_or(0_i64)
        });
        let price = price.expect("registered");
        let functions = LoggedFunctions::new(&engine);
        let prices = functions.log(&price).expect("logged");
        let commands = Server::builder(&engine, database).functions(&functions).handler(move |set: SetPrice, op: Op<Sqlite>| {
            let prices = prices.clone();
            async move {
                op.invalidate(&prices, &set.product)?;
                op.write(move |sql: &mut Write<'_>| {
                    sql.execute("INSERT OR REPLACE INTO prices VALUES (?, ?)", (set.product, set.cents)).map(drop)
                });
                Ok(())
            }
        });
        let commands = commands.start().await.expect("started");
        let (asked, read, called) = (engine.clone(), price.clone(), commands.clone());
        let get = routes.owned(|(product,): &(u32,)| *product).compute(
            move |(product,)| std::future::ready(read.computed(&asked, &product)),
            move |(product,)| _ = price.invalidate(product),
        );
        let service = Service::new("IShop").compute("Price:2", get).method("SetPrice:3", move |(product, cents): (u32, i64)| {
            let commands = called.clone();
            async move {
                let done = commands.call(SetPrice { product, cents }).await;
                done.map(drop).map_err(|error| Failure::new(error.to_string()))
            }
        });
        let hub = Hub::builder().service(service).expect("a service").build();
        Shop { engine, routes, hub, commands }
    }
}

async fn soon<T>(what: &str, does: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, does).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_on_any_server_reaches_whoever_has_asked_the_owner_also_while_owners_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shop.db");
    let _ = Sqlite::open(&path).expect("made");
    let sql = Connection::open(&path).expect("a connection");
    sql.execute_batch("CREATE TABLE prices (product INTEGER PRIMARY KEY, cents INTEGER NOT NULL)").expect("a table");
    let mut shops = BTreeMap::new();
    for name in ALL {
        shops.insert(name, Shop::start(name, &path).await);
    }
    let wires: HashMap<String, Wire> = shops.iter().map(|(name, shop)| ((*name).to_owned(), Wire::to(&shop.hub))).collect();
    let direct: Vec<_> = shops.values().map(|shop| remote(&Wire::to(&shop.hub))).collect();
    let routes = Routes::new(HashRing::new(ALL));
    let router: Router<u32> = router(&routes, &wires).build();
    let engine = Engine::new();
    let price: AsyncFunction<(u32,), Remoted<i64>> =
        router.function(&engine, "price", &method("IShop.Price:2"), |(product,): &(u32,)| *product).expect("registered");
    let read = price.clone();
    let total = engine.async_function("total", move |cx: Cx, (): ()| {
        let read = read.clone();
        async move {
            let mut total = 0;
            for product in 0..6 {
                total += *read.get(&cx, &(product,)).await?.as_result().expect("a price");
            }
            Ok::<_, wellspring::Fault>(total)
        }
    });
    let total = total.expect("registered");
    let mut totals = total.computed(&engine, &()).await.expect("a total").changes();
    let mut becomes = async |expected: i64| {
        let changed = async { while *totals.next().await.expect("endless").expect("read").value() != Ok(expected) {} };
        soon(&format!("the total is {expected}"), changed).await;
    };
    becomes(0).await;
    let mut prices = [0_i64; 6];
    let rings: [&[&str]; 6] = [&["a", "b", "c"], &["a", "b"], &["c"], &["b", "c"], &["a"], &["a", "b", "c"]];
    for (round, names) in rings.into_iter().enumerate() {
        for product in 0..6_u32 {
            let cents = 1_000 * (round as i64 + 1) + i64::from(product);
            let at = (round + product as usize) % direct.len();
            // Owners change in the middle, one server after the other.
            if product as usize >= 1 && (product as usize) <= shops.len() {
                shops[ALL[product as usize - 1]].routes.set(HashRing::new(names.iter().copied()));
            }
            if product == 4 {
                routes.set(HashRing::new(names.iter().copied()));
            }
            soon("a command", direct[at].call::<()>(&method("IShop.SetPrice:3"), (product, cents))).await.expect("set");
            prices[product as usize] = cents;
        }
        becomes(prices.iter().sum()).await;
        for (product, cents) in (0_u32..).zip(prices) {
            let server = Route::<u32>::server(&HashRing::new(names.iter().copied()), &product).expect("one");
            assert_eq!(price.get(&engine, &(product,)).await.expect("read").as_result(), Ok(&cents));
            let owner = &shops[&*server];
            assert!(owner.routes.is_here(&product));
        }
    }
    drop((totals, total, price));
    engine.assert_consistent();
    drop(engine);
    let open = || shops.values().map(|shop| shop.hub.open_calls()).sum::<usize>();
    soon("nothing is open", async {
        while open() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for shop in shops.values() {
        soon("it ends", shop.commands.shutdown()).await;
        shop.engine.assert_consistent();
    }
}
