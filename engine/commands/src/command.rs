//! Commands: plain data that says what is to be done.

use std::error::Error;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type whose values are commands. `#[command]` on a handler implements it; by hand it is four lines.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use wellspring_commands::Command;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct SetPrice { product: u32, cents: i64 }
///
/// impl Command for SetPrice {
///     const NAME: &'static str = "shop.SetPrice";
///     type Output = ();
///     type Error = std::io::Error;
/// }
/// ```
pub trait Command: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name in the log and the journal: keep it when you rename the type.
    const NAME: &'static str;
    /// What it returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;
    /// How its handler fails. Nothing is written then.
    type Error: Error + Send + Sync + 'static;
}
