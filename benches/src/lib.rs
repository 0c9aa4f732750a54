//! What wellspring costs, measured beside a peer in the same run.
//!
//! A *scenario* builds both sides, measures them in alternating rounds and returns rows. The `report` binary prints the
//! rows; the criterion benches in `benches/` reuse the same setups. The conditions every scenario keeps:
//!
//! - both sides walk the same pre-generated keys ([`keys`]), and every value read is summed and handed to `black_box`;
//! - our pin is renewed every [`PIN_READS`] reads, and a peer's guard is held exactly as long;
//! - each peer is read the fastest way its documentation offers, hashes with ahash, and allocates from mimalloc as we do;
//! - a figure is the median of the rounds, a ratio above 1 means we are better, and a row we lose is printed like any other.

#![forbid(unsafe_code)]

pub mod drive;
pub mod graphs;
pub mod keys;
pub mod machine;
#[cfg(any(feature = "instructions", all(feature = "peers", target_os = "linux")))]
pub mod replicas;
pub mod rounds;
pub mod row;
pub mod scenario;

pub use rounds::{PIN_READS, Plan};
pub use row::{Row, Unit};
pub use scenario::{Scenario, scenarios};
