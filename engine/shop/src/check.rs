//! The proof at the end: every cached value against the database.
//!
//! It goes round twice: first over what the cache would serve as it is, computing nothing, then over the rest, which is read through
//! the engine and so computed. Only the first round can find that an invalidation was missed; what is computed anew would be right
//! anyway. The rest is every other value that is cached; with a capacity, every other value there is, since most are not cached at
//! any one time, and computing them drives out those that are.
//!
//! The questions are put to SQL as a whole (every basket at once, every department at once) and in other words than
//! the functions and the measured statements use, so that a mistake in those does not hide here.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::Arc;

use wellspring::{Engine, Fault, Function};

use crate::connection::{Column, Connection, Row};
use crate::error::ShopError;
use crate::functions::{Answer, Ranked};
use crate::keys::Keys;
use crate::line::{Cents, Line, UnitPrice};
use crate::shop::Shop;

/// A cached value that is not what the database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The function and its arguments.
    pub key: String,
    /// What the cache holds.
    pub cached: String,
    /// What the database says.
    pub fresh: String,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cached {}, the database says {}", self.key, self.cached, self.fresh)
    }
}

/// What the check found. It prints as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Values compared.
    pub checked: u64,
    /// Those of them that the cache would have served as they were. All others were computed or verified for the comparison.
    pub served: u64,
    /// Values cached when the comparison was done: the same number, or some were not looked at. With a capacity: values
    /// that were still cached and fresh when it began.
    pub cached: u64,
    /// Those that differ.
    pub stale: Vec<Stale>,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked {} values, {} stale", self.checked, self.stale.len())
    }
}

impl Check {
    /// Compares every cached value of every function; where the engine has a capacity, every value that may be asked for.
    /// Nobody may write meanwhile.
    ///
    /// A value that is marked is asked for, and so verified or computed as for any reader; a value that is not marked
    /// is what the cache would have given, right or wrong.
    pub fn run(shop: &Shop, keys: &Keys) -> Result<Self, ShopError> {
        let mut connection = shop.database().connect()?;
        connection.batch(VIEWS)?;
        let mut rounds = Rounds { check: Self::default(), round: Round::Served, compared: Vec::new(), place: 0 };
        rounds.go(Round::Served, shop, keys, &mut connection)?;
        rounds.check.served = rounds.check.checked;
        if shop.is_bounded() {
            rounds.check.cached = rounds.check.served;
            rounds.go(Round::Rest, shop, keys, &mut connection)?;
        } else {
            rounds.go(Round::Cached, shop, keys, &mut connection)?;
            rounds.check.cached = shop.engine.stats().functions.iter().map(|function| function.nodes as u64).sum();
        }
        Ok(rounds.check)
    }
}

/// What is compared in one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Every value that would be served as it is. The first round.
    Served,
    /// Every key that has a node and was not compared in the round before.
    Cached,
    /// Every key that was not compared in the round before.
    Rest,
}

/// The check under way. Every round passes the same keys in the same order.
struct Rounds {
    check: Check,
    round: Round,
    /// Whether a key was compared in the round of [`Round::Served`], by its place.
    compared: Vec<bool>,
    place: usize,
}

impl Rounds {
    fn go(&mut self, round: Round, shop: &Shop, keys: &Keys, sql: &mut Connection) -> Result<(), ShopError> {
        (self.round, self.place) = (round, 0);
        // Top down: what a function reads is cached by the time it is compared itself.
        self.departments(shop, keys, sql)?;
        self.owners(shop, keys, sql)?;
        self.products(shop, keys, sql)?;
        self.baskets(shop, keys, sql)
    }

    fn departments(&mut self, shop: &Shop, keys: &Keys, sql: &mut Connection) -> Result<(), ShopError> {
        let (engine, functions) = (&shop.engine, shop.books.functions());
        let top: HashMap<String, Vec<Ranked>> = ranking(sql, keys, "department", |row| row.get(0))?;
        let asked = keys.departments.iter().flat_map(|department| keys.tops.iter().map(|n| (department.clone(), *n)));
        self.compare(engine, &functions.top_products, asked, |(department, n)| first(top.get(department), *n));

        let top: HashMap<(String, String), Vec<Ranked>> = ranking(sql, keys, "department, category", |row| Ok((row.get(0)?, row.get(1)?)))?;
        let asked =
            keys.categories.iter().flat_map(|(department, category)| keys.tops.iter().map(|n| (department.clone(), category.clone(), *n)));
        self.compare(engine, &functions.category_top, asked, |(department, category, n)| {
            first(top.get(&(department.clone(), category.clone())), *n)
        });

        let sums: HashMap<String, Cents> =
            map(sql, "SELECT department, CAST(SUM(revenue) AS BIGINT) FROM sold GROUP BY 1", |row| row.get(0), cents)?;
        self.compare(engine, &functions.department_revenue, keys.departments.iter().cloned(), |key| {
            sums.get(key).copied().unwrap_or_default()
        });

        let sums: HashMap<(String, String), Cents> = map(
            sql,
            "SELECT department, CAST(SUM(revenue) AS BIGINT), category FROM sold GROUP BY department, category",
            |row| Ok((row.get(0)?, row.get(2)?)),
            cents,
        )?;
        self.compare(engine, &functions.category_revenue, keys.categories.iter().cloned(), |key| {
            sums.get(key).copied().unwrap_or_default()
        });

        let members: HashMap<(String, String), Vec<u32>> = groups(
            sql,
            "SELECT department, product_id, category FROM products ORDER BY 2",
            |row| Ok((row.get(0)?, row.get(2)?)),
            |row| row.get(1),
        )?;
        self.compare(engine, &functions.category_products, keys.categories.iter().cloned(), |key| slice(members.get(key)));

        let members: HashMap<String, Vec<String>> =
            groups(sql, "SELECT department, category FROM products GROUP BY 1, 2 ORDER BY 1, 2", |row| row.get(0), |row| row.get(1))?;
        self.compare(engine, &functions.categories, keys.departments.iter().cloned(), |key| slice(members.get(key)));
        Ok(())
    }

    fn owners(&mut self, shop: &Shop, keys: &Keys, sql: &mut Connection) -> Result<(), ShopError> {
        let (engine, functions) = (&shop.engine, shop.books.functions());
        for (column, ids, sum) in
            [("household_id", &keys.households, &functions.household_spend), ("store_id", &keys.stores, &functions.store_revenue)]
        {
            let sums: HashMap<u32, Cents> = map(
                sql,
                &format!("SELECT {column}, CAST(SUM(due) AS BIGINT) FROM dues NATURAL JOIN baskets GROUP BY {column}"),
                |row| row.get(0),
                cents,
            )?;
            self.compare(engine, sum, ids.iter().copied(), |key| sums.get(key).copied().unwrap_or_default());
        }
        let sums: HashMap<(u32, u32), Cents> = map(
            sql,
            "SELECT store_id, CAST(SUM(due) AS BIGINT), week FROM dues NATURAL JOIN baskets GROUP BY store_id, week",
            |row| Ok((row.get(0)?, row.get(2)?)),
            cents,
        )?;
        self.compare(engine, &functions.week_revenue, keys.weeks.iter().copied(), |key| sums.get(key).copied().unwrap_or_default());

        let sorted = "SELECT household_id, basket_id, store_id, week FROM baskets ORDER BY basket_id";
        let members: HashMap<u32, Vec<i64>> = groups(sql, sorted, |row| row.get(0), |row| row.get(1))?;
        self.compare(engine, &functions.household_baskets, keys.households.iter().copied(), |key| slice(members.get(key)));
        let members: HashMap<(u32, u32), Vec<i64>> = groups(sql, sorted, |row| Ok((row.get(2)?, row.get(3)?)), |row| row.get(1))?;
        self.compare(engine, &functions.week_baskets, keys.weeks.iter().copied(), |key| slice(members.get(key)));
        let weeks: HashMap<u32, Vec<u32>> =
            groups(sql, "SELECT store_id, week FROM baskets GROUP BY store_id, week ORDER BY week", |row| row.get(0), |row| row.get(1))?;
        self.compare(engine, &functions.store_weeks, keys.stores.iter().copied(), |key| slice(weeks.get(key)));
        Ok(())
    }

    fn products(&mut self, shop: &Shop, keys: &Keys, sql: &mut Connection) -> Result<(), ShopError> {
        let (engine, functions) = (&shop.engine, shop.books.functions());
        let sums: HashMap<u32, Cents> = map(sql, "SELECT product_id, revenue FROM sold", |row| row.get(0), cents)?;
        self.compare(engine, &functions.product_revenue, keys.products.iter().copied(), |key| sums.get(key).copied().unwrap_or_default());
        let mut lines: HashMap<u32, Vec<Line>> = lines(sql, "product_id")?;
        for rows in lines.values_mut() {
            rows.sort_by_key(|row| (row.quantity, row.sales, row.retail_discount, row.coupon, row.coupon_match));
        }
        self.compare(engine, &functions.product_lines, keys.products.iter().copied(), |key| slice(lines.get(key)));
        let prices: HashMap<u32, UnitPrice> =
            map(sql, "SELECT product_id, millicents FROM prices", |row| row.get(0), |row| row.get(1).map(UnitPrice))?;
        self.compare(engine, &functions.price, keys.products.iter().copied(), |key| prices.get(key).copied());
        Ok(())
    }

    fn baskets(&mut self, shop: &Shop, keys: &Keys, sql: &mut Connection) -> Result<(), ShopError> {
        let (engine, functions) = (&shop.engine, shop.books.functions());
        let sums: HashMap<i64, Cents> =
            map(sql, "SELECT basket_id, CAST(SUM(due) AS BIGINT) FROM dues GROUP BY 1", |row| row.get(0), cents)?;
        self.compare(engine, &functions.basket_total, keys.baskets.iter().copied(), |key| sums.get(key).copied().unwrap_or_default());
        let lines: HashMap<i64, Vec<Line>> = lines(sql, "basket_id")?;
        self.compare(engine, &functions.basket_lines, keys.baskets.iter().copied(), |key| slice(lines.get(key)));
        Ok(())
    }

    fn compare<K, V>(&mut self, engine: &Engine, function: &Function<K, Answer<V>>, keys: impl Iterator<Item = K>, fresh: impl Fn(&K) -> V)
    where
        K: Debug + Hash + Eq + Clone + Send + Sync + 'static,
        V: Debug + PartialEq + Clone + Send + Sync + 'static,
    {
        for key in keys {
            let Some(cached) = self.look(engine, function, &key) else { continue };
            self.check.checked += 1;
            let fresh = fresh(&key);
            if !matches!(&cached, Ok(Ok(value)) if *value == fresh) {
                self.check.stale.push(Stale {
                    key: format!("{}({key:?})", function.name()),
                    cached: match cached {
                        Ok(Ok(value)) => format!("{value:?}"),
                        Ok(Err(error)) => format!("the error \"{error}\""),
                        Err(fault) => format!("the fault \"{fault}\""),
                    },
                    fresh: format!("{fresh:?}"),
                });
            }
        }
    }

    /// The value of a key that is to be compared in this round.
    fn look<K, V>(&mut self, engine: &Engine, function: &Function<K, Answer<V>>, key: &K) -> Option<Result<Answer<V>, Fault>>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        match self.round {
            Round::Served => {
                let served = function.peek(&engine.pin(), key).map(|value| Ok((*value).clone()));
                self.compared.push(served.is_some());
                served
            }
            Round::Cached | Round::Rest => {
                let compared = self.compared.get(self.place) == Some(&true);
                self.place += 1;
                let asked = !compared && (self.round == Round::Rest || function.node(key).is_some());
                asked.then(|| function.get(engine, key))
            }
        }
    }
}

/// The question in SQL's own words. `dues`: every line with what is due for it. `sold`: every product that is on a line,
/// with the sum of its dues.
const VIEWS: &str = "
    CREATE TEMP TABLE dues AS
        WITH priced AS (
            SELECT lines.*, CASE quantity WHEN 0 THEN NULL ELSE prices.millicents END AS piece
            FROM lines LEFT OUTER JOIN prices ON prices.product_id = lines.product_id
        ), reduced AS (
            SELECT basket_id, product_id,
                   COALESCE((quantity * piece + 500) / 1000 - (retail_discount + coupon_match), sales) - coupon AS due
            FROM priced
        )
        SELECT basket_id, product_id, CASE WHEN due < 0 THEN 0 ELSE due END AS due FROM reduced;
    CREATE TEMP TABLE sold AS
        SELECT product_id, department, category, CAST(SUM(due) AS BIGINT) AS revenue
        FROM products NATURAL JOIN dues GROUP BY product_id, department, category;
";

/// The longest ranking that is asked for, per department, or per department and category.
fn ranking<K: Hash + Eq>(
    sql: &mut Connection,
    keys: &Keys,
    group: &str,
    key: impl Fn(&Row<'_>) -> Result<K, ShopError>,
) -> Result<HashMap<K, Vec<Ranked>>, ShopError> {
    let longest = keys.tops.iter().max().unwrap_or(&0);
    let text = format!(
        "SELECT department, category, product_id, revenue FROM (
             SELECT department, category, product_id, revenue,
                    ROW_NUMBER() OVER (PARTITION BY {group} ORDER BY revenue DESC, product_id) AS place
             FROM sold WHERE revenue <> 0) ranked
         WHERE place <= {longest} ORDER BY {group}, place"
    );
    groups(sql, &text, key, |row| Ok(Ranked { product: row.get(2)?, revenue: Cents(row.get(3)?) }))
}

/// The lines by a column, in the order of baskets and line numbers.
fn lines<K: Hash + Eq + Column>(sql: &mut Connection, column: &str) -> Result<HashMap<K, Vec<Line>>, ShopError> {
    let text = format!(
        "SELECT {column} AS k, product_id, quantity, sales, retail_discount, coupon, coupon_match
         FROM lines ORDER BY basket_id, line_no"
    );
    groups(
        sql,
        &text,
        |row| row.get(0),
        |row| {
            Ok(Line {
                product: row.get(1)?,
                quantity: row.get(2)?,
                sales: row.get(3)?,
                retail_discount: row.get(4)?,
                coupon: row.get(5)?,
                coupon_match: row.get(6)?,
            })
        },
    )
}

fn map<K: Hash + Eq, V>(
    sql: &mut Connection,
    text: &str,
    key: impl Fn(&Row<'_>) -> Result<K, ShopError>,
    value: impl Fn(&Row<'_>) -> Result<V, ShopError>,
) -> Result<HashMap<K, V>, ShopError> {
    let mut map = HashMap::new();
    sql.each(text, &[], |row| {
        map.insert(key(row)?, value(row)?);
        Ok(())
    })?;
    Ok(map)
}

fn groups<K: Hash + Eq, V>(
    sql: &mut Connection,
    text: &str,
    key: impl Fn(&Row<'_>) -> Result<K, ShopError>,
    value: impl Fn(&Row<'_>) -> Result<V, ShopError>,
) -> Result<HashMap<K, Vec<V>>, ShopError> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    sql.each(text, &[], |row| {
        groups.entry(key(row)?).or_default().push(value(row)?);
        Ok(())
    })?;
    Ok(groups)
}

/// The second column as money.
fn cents(row: &Row<'_>) -> Result<Cents, ShopError> {
    row.get(1).map(Cents)
}

fn first(ranked: Option<&Vec<Ranked>>, n: u32) -> Arc<[Ranked]> {
    ranked.into_iter().flatten().take(n as usize).copied().collect()
}

fn slice<T: Clone>(rows: Option<&Vec<T>>) -> Arc<[T]> {
    rows.map_or_else(|| Arc::from([]), |rows| rows.as_slice().into())
}
