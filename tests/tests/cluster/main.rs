//! Servers as processes, and what they survive.

/// A test on every kind of log.
macro_rules! everywhere {
    ($name:ident, |$place:ident| $body:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "not every body needs what is around it")]
            use super::*;
            use wellspring_tests::cluster::Place;

            async fn run($place: Option<Place>) {
                let Some($place) = $place else { return };
                $body;
                $place.remove().await.expect("removed");
            }

            #[tokio::test]
            async fn sqlite() {
                run(Some(Place::sqlite().await.expect("a place"))).await;
            }

            #[tokio::test]
            async fn postgres() {
                run(Place::postgres().await.expect("a place")).await;
            }

            #[tokio::test]
            async fn nats() {
                run(Place::sqlite().await.expect("a place").with_nats().await).await;
            }

            #[tokio::test]
            async fn redis() {
                run(Place::sqlite().await.expect("a place").with_redis().await).await;
            }
        }
    };
}

mod clocks;
mod consumers;
mod coverage;
mod crowd;
mod hints;
mod kills;
mod limits;
mod order;
mod poison;
mod restart;
mod storm;
mod stranger;

use std::time::Duration;

/// How long the random tests go on: a few seconds, or what `WELLSPRING_TORTURE_SECONDS` says.
fn torture_time() -> Duration {
    let seconds = std::env::var("WELLSPRING_TORTURE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Whether somebody has asked for a long run.
fn is_long() -> bool {
    std::env::var_os("WELLSPRING_TORTURE_SECONDS").is_some()
}

/// What random choices follow from: `WELLSPRING_SEED`, or a new one. Printed, so that a failure can be tried again.
fn seed(test: &str) -> u64 {
    let seed = std::env::var("WELLSPRING_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{test}: WELLSPRING_SEED={seed}");
    seed
}
