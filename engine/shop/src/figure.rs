//! One figure of the books, as the command line names it: `price:7`, `basket_total:42`, `top_products:GROCERY:3`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use wellspring::{Computed, Invalidated, NodeId};

use crate::error::ShopError;
use crate::functions::{Answer, Ranked};
use crate::line::{Cents, UnitPrice};
use crate::shop::Shop;

/// A function of the books and what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Figure {
    /// The price of a product.
    Price(u32),
    /// The total of a basket.
    BasketTotal(i64),
    /// What a household spends.
    HouseholdSpend(u32),
    /// What a store takes in.
    StoreRevenue(u32),
    /// What a department takes in.
    DepartmentRevenue(String),
    /// A department's best sellers, and how many of them.
    TopProducts(String, u32),
}

/// What a figure was at one time.
#[derive(Debug)]
pub struct Reading {
    /// The value in words.
    pub value: String,
    /// Where the engine keeps it.
    pub node: NodeId,
    /// Completes when the value may have changed.
    pub ended: Invalidated,
}

impl Figure {
    /// Reads the figure through the engine.
    pub fn read(&self, shop: &Shop) -> Result<Reading, ShopError> {
        let (engine, functions) = (&shop.engine, shop.books.functions());
        Ok(match self {
            Self::Price(product) => Reading::of(&functions.price.computed(engine, product)?),
            Self::BasketTotal(basket) => Reading::of(&functions.basket_total.computed(engine, basket)?),
            Self::HouseholdSpend(household) => Reading::of(&functions.household_spend.computed(engine, household)?),
            Self::StoreRevenue(store) => Reading::of(&functions.store_revenue.computed(engine, store)?),
            Self::DepartmentRevenue(department) => Reading::of(&functions.department_revenue.computed(engine, department)?),
            Self::TopProducts(department, n) => {
                Reading::of(&functions.top_products.computed(engine, &wellspring::Parts((department.as_str(), n)))?)
            }
        })
    }
}

impl Reading {
    fn of<V: Words + wellspring::Value>(computed: &Computed<Answer<V>>) -> Self {
        let value = match computed.value() {
            Ok(value) => value.words(),
            Err(error) => format!("the error \"{error}\""),
        };
        Self { value, node: computed.node(), ended: computed.invalidated() }
    }
}

/// A value as it is printed. Equal words mean equal values.
pub(crate) trait Words {
    fn words(&self) -> String;
}

impl Words for Cents {
    fn words(&self) -> String {
        self.to_string()
    }
}

impl Words for Option<UnitPrice> {
    fn words(&self) -> String {
        self.map_or_else(|| "none".to_owned(), |price| price.to_string())
    }
}

impl Words for Arc<[Ranked]> {
    fn words(&self) -> String {
        ranks(self)
    }
}

impl Words for Vec<Ranked> {
    fn words(&self) -> String {
        ranks(self)
    }
}

fn ranks(ranked: &[Ranked]) -> String {
    let ranked: Vec<String> = ranked.iter().map(|one| format!("{} ({})", one.product, one.revenue)).collect();
    if ranked.is_empty() { "none".to_owned() } else { ranked.join(", ") }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Price(product) => write!(f, "price:{product}"),
            Self::BasketTotal(basket) => write!(f, "basket_total:{basket}"),
            Self::HouseholdSpend(household) => write!(f, "household_spend:{household}"),
            Self::StoreRevenue(store) => write!(f, "store_revenue:{store}"),
            Self::DepartmentRevenue(department) => write!(f, "department_revenue:{department}"),
            Self::TopProducts(department, n) => write!(f, "top_products:{department}:{n}"),
        }
    }
}

impl FromStr for Figure {
    type Err = ShopError;

    fn from_str(text: &str) -> Result<Self, ShopError> {
        let unknown = || {
            let example =
                "price:7, basket_total:42, household_spend:7, store_revenue:7, department_revenue:GROCERY or top_products:GROCERY:3";
            ShopError::Usage(format!("{text:?}: not a figure such as {example}"))
        };
        let (function, key) = text.split_once(':').ok_or_else(unknown)?;
        let id = || key.parse().map_err(|_| unknown());
        match function {
            "price" => id().map(Self::Price),
            "basket_total" => key.parse().map(Self::BasketTotal).map_err(|_| unknown()),
            "household_spend" => id().map(Self::HouseholdSpend),
            "store_revenue" => id().map(Self::StoreRevenue),
            "department_revenue" if !key.is_empty() => Ok(Self::DepartmentRevenue(key.to_owned())),
            "top_products" => {
                // Departments have colons in their names for all we know; numbers have none.
                let (department, n) = key.rsplit_once(':').filter(|(department, _)| !department.is_empty()).ok_or_else(unknown)?;
                n.parse().map(|n| Self::TopProducts(department.to_owned(), n)).map_err(|_| unknown())
            }
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_prints_as_it_is_read() {
        for text in [
            "price:7",
            "basket_total:27601281299",
            "household_spend:1",
            "store_revenue:367",
            "department_revenue:DRUG GM",
            "top_products:A:B:3",
        ] {
            let figure: Figure = text.parse().expect(text);
            assert_eq!(figure.to_string(), text);
        }
        assert_eq!("top_products:A:B:3".parse(), Ok(Figure::TopProducts("A:B".to_owned(), 3)));
    }

    #[test]
    fn what_is_no_figure_is_refused_by_name() {
        for text in
            ["", "price", "price:", "price:-1", "price:x", "cost:7", "department_revenue:", "top_products:GROCERY", "top_products::3"]
        {
            let refused = text.parse::<Figure>().expect_err(text).to_string();
            assert!(refused.contains(&format!("{text:?}: not a figure")), "{refused}");
        }
    }
}
