//! What the shop offers over the network: its functions as compute methods, whose callers are told when a value is stale; searches; and setting a price.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio::task::spawn_blocking;
use wellspring::{Computed, Function, Key, Value};
use wellspring_commands::CommandId;
use wellspring_rpc::wire::ErrorInfo;
use wellspring_rpc::{Failure, FromArguments, Hub};

use super::{Service, protocol};
use crate::error::ShopError;
use crate::figure::Figure;
use crate::functions::Answer;
use crate::names;

/// Any amount that the shop takes is shorter.
const LONGEST_MONEY: usize = 40;

type Doing<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// All of it.
pub(super) fn hub(service: &Arc<Service>) -> Result<Hub, ShopError> {
    let functions = service.shop.books.functions();
    let offered = wellspring_rpc::Service::new(names::SERVICE)
        .try_compute(names::PRICE, value(service, &functions.price, |(product,)| (product, Figure::Price(product))))
        .try_compute(names::BASKET_TOTAL, value(service, &functions.basket_total, |(basket,)| (basket, Figure::BasketTotal(basket))))
        .try_compute(
            names::HOUSEHOLD_SPEND,
            value(service, &functions.household_spend, |(household,)| (household, Figure::HouseholdSpend(household))),
        )
        .try_compute(names::STORE_REVENUE, value(service, &functions.store_revenue, |(store,)| (store, Figure::StoreRevenue(store))))
        .try_compute(
            names::DEPARTMENT_REVENUE,
            value(service, &functions.department_revenue, |(department,): (String,)| {
                (department.clone(), Figure::DepartmentRevenue(department))
            }),
        )
        .try_compute(
            names::TOP_PRODUCTS,
            value(service, &functions.top_products, |(department, n): (String, u32)| {
                ((department.clone(), n), Figure::TopProducts(department, n))
            }),
        )
        .method(names::FIND_PRODUCTS, work(service, |service, (text,): (String,)| service.shop.database().find_products(&text)))
        .method(names::FIND_BASKETS, work(service, |service, (text,): (String,)| service.shop.database().find_baskets(&text)))
        .method(names::BASKETS_WITH, work(service, |service, (product,)| service.shop.database().baskets_with(product)))
        .method(names::SET_PRICE, work(service, set_price));
    let hub = Hub::builder().service(offered).map_err(|error| ShopError::Register(error.to_string().into()))?;
    Ok(hub.build())
}

/// A figure as a method: what is cached at once, and anything else on a thread that may wait for the database.
fn value<A, K, V>(
    service: &Arc<Service>,
    function: &Function<K, Answer<V>>,
    read: fn(A) -> (K, Figure),
) -> impl Fn(A) -> Doing<Computed<Answer<V>>> + Send + Sync + 'static
where
    A: FromArguments,
    K: Key,
    Answer<V>: Value,
{
    let (service, function) = (Arc::clone(service), function.clone());
    move |arguments| {
        let (key, figure) = read(arguments);
        if let Some(cached) = function.existing(&key) {
            return Box::pin(async { Ok(cached) });
        }
        let (service, function) = (Arc::clone(&service), function.clone());
        Box::pin(blocking(move || {
            service.shop.database().admit(&figure)?;
            service.asked().insert(figure);
            Ok(function.computed(&service.shop.engine, &key)?)
        }))
    }
}

/// What waits for the database, as a method.
fn work<A, T>(service: &Arc<Service>, run: fn(&Service, A) -> Result<T, ShopError>) -> impl Fn(A) -> Doing<T> + Send + Sync + 'static
where
    A: FromArguments,
    T: Serialize + Send + 'static,
{
    let service = Arc::clone(service);
    move |arguments| {
        let service = Arc::clone(&service);
        Box::pin(blocking(move || run(&service, arguments)))
    }
}

/// The name is the caller's: a price that is sent again under the same, to this server or the next, is set once.
fn set_price(service: &Service, (product, money, name): (u32, String, Option<String>)) -> Result<(), ShopError> {
    // What is no amount is told again in full.
    if money.len() > LONGEST_MONEY {
        return Err(ShopError::Data(format!("an amount has at most {LONGEST_MONEY} characters")));
    }
    let price = protocol::price(&money).map_err(ShopError::Data)?;
    let id = name.map(CommandId::new).transpose().map_err(|error| ShopError::Data(error.to_string()))?;
    service.shop.database().admit(&Figure::Price(product))?;
    service.desk.set_price(product, price, id).map(drop)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, ShopError> + Send + 'static) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err(Failure::new("it panicked on the server")),
    }
}

impl From<ShopError> for Failure {
    /// What was wrong with the question in full; what is wrong here is not for strangers in all detail.
    fn from(error: ShopError) -> Self {
        match error {
            ShopError::Usage(text) | ShopError::Data(text) => Self::typed(ErrorInfo::ARGUMENT, text),
            ShopError::Engine(fault) => fault.into(),
            ShopError::Sql(_) => Self::new("the shop's database refused, or could not be reached"),
            ShopError::Log(_) => Self::new("the shop's operation log refused the change, or could not be reached"),
            _ => Self::new("the shop has failed"),
        }
    }
}
