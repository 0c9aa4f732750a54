//! The macros of `wellspring`: [`compute`], which turns the methods of an `impl` block into compute functions, and
//! [`Inline`](derive@Inline), which says that a small newtype may live in the engine's value column.
//!
//! Use them through `wellspring`, which re-exports both.

#![forbid(unsafe_code)]

mod argument;
mod command;
mod compute;
mod functions;
mod handle;
mod inline;
mod method;
mod options;
mod own_type;
mod register;
mod rpc;
mod signature;
mod types;

use proc_macro::TokenStream;

/// Makes compute functions of the methods of `impl Shop { .. }`.
///
/// Each method that takes `cx: &Cx` right after `&self` becomes a compute function: its result is cached under its
/// arguments, and what it reads through `cx` is recorded. Such a method moves from `Shop` to a generated handle, and every
/// other item of the block stays on `Shop` as written. Sync and async methods are equals.
///
/// ```
/// use wellspring::{Cx, Engine, Fault, compute};
///
/// struct Shop {
///     prices: Vec<u32>,
/// }
///
/// #[compute]
/// impl Shop {
///     fn price(&self, cx: &Cx, product: usize) -> Option<u32> {
///         self.prices.get(product).copied()
///     }
///
///     async fn total(&self, cx: &Cx, basket: Vec<usize>) -> Result<u32, Fault> {
///         let mut total = 0;
///         for product in basket {
///             total += self.price(cx, product)?.unwrap_or(0); // recorded: the total depends on this price
///         }
///         Ok(total)
///     }
/// }
///
/// # pollster::block_on(async {
/// let engine = Engine::new();
/// let shop = engine.service(Shop { prices: vec![20, 50] })?;
/// assert_eq!(shop.total(&engine, &[0, 1, 1]).await?, 120); // computed once, then a lookup
/// shop.invalidate().price(1); // and with it every total that has it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # What is generated
///
/// - `ShopHandle`, which is `Clone` and derefs to `Shop`. It has every function as a method whose first argument says who
///   asks: `&engine` from outside, `cx` inside a function. `String` is passed as `&str` and `Vec<T>` as `&[T]`, so that a hit
///   allocates nothing; other arguments by value. The future of an async read borrows nothing, and can be spawned.
/// - `shop.functions()`: a `ShopFunctions` with a public field for each function, its `Function` or `AsyncFunction`.
/// - `shop.invalidate()`: a method for each function, which makes one value stale and returns the `CommitId`.
/// - `impl Service for Shop`, so that `engine.service(Shop { .. })` registers `Shop.price` and
///   `engine.service_named("eu", Shop { .. })` registers `eu.price`.
///
/// The key of a function is its argument, a tuple of its arguments, or `()`; there can be eight. In a body, `self` is the
/// handle, so that `self.price(cx, 7)` is a cached and recorded read, while fields and plain methods are reached on `Shop`
/// by deref; `Self` is `Shop`. Methods that should take a `&Cx` without being a function of their own can be written in an
/// ordinary `impl ShopHandle { .. }`.
///
/// # What a read returns
///
/// A function that returns `V` reads as `Result<V, Fault>`, and one that returns `Result<V, E>` as `Result<V, E>`, which needs
/// `E: From<Fault>`. An alias of `Result` counts as one, whatever it is called. The exception is an alias that depends on a
/// generic parameter of the block and is not called `Result`: say `#[compute(result)]` there.
///
/// # What counts as unchanged
///
/// When a function runs again and returns an equal value, nothing downstream is recomputed. A type that is `PartialEq` is
/// compared without being asked; of a `Result` the `Ok` values are, and an error counts as changed unless it is `PartialEq`
/// too. A type that depends on a generic parameter of the block cannot be examined, and `cut_off` has to be given. A newtype
/// with `#[derive(Inline)]` is stored inline, again only where the type is concrete.
///
/// # Options
///
/// On the block: `handle = pub(crate) Market` names the handle (`pub ShopHandle` otherwise; the other two are then
/// `MarketFunctions` and `MarketInvalidate`), and `name = ".."` the service. On a method: `cut_off = eq`, `cut_off = hash`,
/// `cut_off = never`, `name = ".."` (the part after the dot; keep the old name when you rename a method), `result`.
///
/// Also on a method, each with an expression: `expire_after`, `refresh_ahead`, `keep_at_least`, `debounce` (durations), `capacity`,
/// `weigh`, and `error_delays` (a pair): the methods of the same names of `Define`.
///
/// An `Err` is kept for one second and then tried again by the next read. `errors = |error| ErrorKind::..` tells kinds of error apart,
/// `errors = keep` keeps them like values, and `serve_stale_on_error` shows readers the last `Ok` meanwhile.
#[proc_macro_attribute]
pub fn compute(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(options as options::BlockOptions);
    let item = syn::parse_macro_input!(item as syn::Item);
    compute::expand(options, item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes handlers of the methods of `impl Shop { .. }` that take an operation. Use it through `wellspring-commands`.
///
/// Each `async fn name(&self, command: C, op: &Op<S>) -> Result<T, E>` does the command `C`: the type becomes a `Command` whose output
/// is `T` and whose error is `E`, called `Shop.C` in the log and the journal; `#[command(name = "..")]` on the block names the part before
/// the dot, on a method the whole. The block becomes a `CommandService<S>`, which a server's builder takes. Everything else in it stays
/// as it is.
#[proc_macro_attribute]
pub fn command(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(options as command::CommandOptions);
    let item = syn::parse_macro_input!(item as syn::Item);
    command::expand(options, item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a service and a client of a trait. Use it through `wellspring-rpc`.
///
/// ```
/// use std::sync::Arc;
///
/// use wellspring::{Computed, Engine, Fault, Source};
/// use wellspring_rpc::{Failure, Hub, RpcStream, rpc_service};
///
/// #[rpc_service(name = "IStock")]
/// pub trait Stock {
///     /// How many there are.
///     #[compute]
///     async fn get(&self, item: String) -> Result<Computed<u32>, Fault>; // IStock.Get:2
///
///     async fn set(&self, item: String, count: u32) -> Result<(), Failure>; // IStock.Set:3
///
///     async fn count_to(&self, last: u32) -> Result<RpcStream<u32>, Failure>; // IStock.CountTo:2
///
///     #[rpc(no_wait)]
///     fn ping(&self, text: String); // IStock.Ping:2
/// }
///
/// struct Shop {
///     engine: Engine,
///     counts: Source<String, u32>,
/// }
///
/// impl Stock for Shop {
///     async fn get(&self, item: String) -> Result<Computed<u32>, Fault> {
///         self.counts.computed(&self.engine, &item)
///     }
///
///     async fn set(&self, item: String, count: u32) -> Result<(), Failure> {
///         self.counts.set(&item, count);
///         Ok(())
///     }
///
///     async fn count_to(&self, last: u32) -> Result<RpcStream<u32>, Failure> {
///         Ok(RpcStream::new(futures_util::stream::iter(0..=last)))
///     }
///
///     fn ping(&self, _text: String) {}
/// }
///
/// let engine = Engine::new();
/// let counts = engine.source("counts", |_: &String| 0)?;
/// let hub = Hub::builder().service(Arc::new(Shop { engine, counts }).into_service())?.build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Methods
///
/// - A regular method is async and returns `Result<T, E>`, where `E: Into<Failure>`. `T`, or an argument, can be or hold an `RpcStream`.
/// - A method with `#[rpc(no_wait)]` returns nothing, and nobody waits for it. It need not be async.
/// - A method with `#[compute]` returns `Result<Computed<V>, Fault>`: the generation of a function's value, whose end is pushed to whoever has
///   called. In place of the fault there can be any `X: Into<Failure>`, with which calls are refused. `V` can be a `Result<T, E>`; its failures are values too. The implementation reads it with an engine, from any function there is:
///   `self.shop.functions().price.computed(&self.engine, &item).await`. It need not be async if the function is not.
///
/// Arguments are taken by value; there can be eight. Before them there may be `caller: &Caller`, which is not sent, and which clients do not
/// pass. The trait stays as it is written, but for its futures, which are `Send`: an `async fn` is declared as `fn .. -> impl Future + Send`, and
/// implemented as `async fn`.
///
/// # What is generated
///
/// - A method of the trait, `fn into_service(self: Arc<Self>) -> Service`, for the builder of a `Hub`.
/// - `StockClient`, made by `StockClient::new(&engine, &remote)`. Of a regular method it has `client.set("apple", 3).await`, which returns
///   `Result<T, CallError>`; of a no-wait one `client.ping("hello")`, which is lost without a connection; of a compute method
///   `client.get(by, "apple").await`, where `by` is `&engine`, or `cx` inside a function of the engine. That is a function of the engine: cached, depended on,
///   and stale when the other process says so. `String` is passed as `&str` and `Vec<T>` as `&[T]`.
///   `client.with(options)` makes its calls with a `CallOptions`.
/// - `StockClientFunctions`, with a public field for each compute method, from `client.functions()`.
///
/// # Names
///
/// A method is called `Service.Method:N`. The service is the trait, as it is written, unless `#[rpc_service(name = "IStock")]` says otherwise;
/// the method is its own name in PascalCase, unless `#[rpc(name = "GetAll")]` does. N counts the arguments, and one for the cancellation token
/// that methods of .NET have and clients in TypeScript count: `#[rpc(token = false)]` on a method, or `#[rpc_service(token = false)]` on the trait, is for those
/// without. Methods that differ by N can have one name.
///
/// # Options
///
/// On the trait: `name`, `token`, and `only = client` or `only = server`, where types can only be read, or only be written. On a method: `name`, `token`,
/// `no_wait`, `verified` (of a compute method: callers hear of a value's end once the server has found that it has changed, see `Service::verified`), and
/// `limits = MethodLimits::new()..`, an expression that is what calls of it may take on a server.
#[proc_macro_attribute]
pub fn rpc_service(options: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(options as rpc::ServiceOptions);
    let item = syn::parse_macro_input!(item as syn::Item);
    rpc::expand(options, item).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Says that a `Copy` newtype over an inline type may be stored in the engine's value column, without a pointer.
///
/// For a struct of one field whose type is itself `Inline` (an integer of up to 64 bits, a float, `bool`, `char`, or another
/// such newtype). Fields of type `PhantomData` may stand beside it under `#[repr(transparent)]`, which a generic struct needs
/// in any case. Layout and size are checked when the struct is compiled.
///
/// ```
/// use wellspring::Inline;
///
/// #[derive(Clone, Copy, PartialEq, Inline)]
/// struct Cents(i64);
/// ```
#[proc_macro_derive(Inline)]
pub fn inline(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    inline::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
