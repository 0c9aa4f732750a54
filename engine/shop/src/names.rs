//! What the functions of the shop are called over the network.
//!
//! Each name ends in how many parameters the peer's languages count: one more than are sent.

use crate::figure::Figure;

/// The service.
pub(crate) const SERVICE: &str = "IShop";

pub(crate) const PRICE: &str = "Price:2";
pub(crate) const BASKET_TOTAL: &str = "BasketTotal:2";
pub(crate) const HOUSEHOLD_SPEND: &str = "HouseholdSpend:2";
pub(crate) const STORE_REVENUE: &str = "StoreRevenue:2";
pub(crate) const DEPARTMENT_REVENUE: &str = "DepartmentRevenue:2";
pub(crate) const TOP_PRODUCTS: &str = "TopProducts:3";

pub(crate) const FIND_PRODUCTS: &str = "FindProducts:2";
pub(crate) const FIND_BASKETS: &str = "FindBaskets:2";
pub(crate) const BASKETS_WITH: &str = "BasketsWith:2";
pub(crate) const SET_PRICE: &str = "SetPrice:4";

impl Figure {
    /// The method that gives it.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Price(_) => PRICE,
            Self::BasketTotal(_) => BASKET_TOTAL,
            Self::HouseholdSpend(_) => HOUSEHOLD_SPEND,
            Self::StoreRevenue(_) => STORE_REVENUE,
            Self::DepartmentRevenue(_) => DEPARTMENT_REVENUE,
            Self::TopProducts(..) => TOP_PRODUCTS,
        }
    }
}
