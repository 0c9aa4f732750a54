//! Servers as processes of their own on a real database: what they do, what is done to them, and how it is found out whether that
//! was survived.
//!
//! A member is one server process. Its driver, a test, talks to it in lines of JSON over its standard input and output; it ends
//! when its input does, so that none outlives the test. What is in the database is looked at beside the crate under test, with
//! connections of its own.

mod backend;
mod change;
mod database;
mod hints;
mod job;
mod kill;
mod ledger;
mod line;
mod member;
mod own_postgres;
mod place;
mod postgres;
mod process;
mod serve;
mod setup;
mod sqlite;

pub use self::backend::{Backend, Stream};
pub use self::change::{Change, Data, Refused, Rows, Work};
pub use self::database::{Database, Done, Dump};
pub use self::hints::{Hinting, Moody};
pub use self::job::{Add, Fail, GROUPS, Job, LANES, Move, Put, ROWS, Setting, every_key, group_key, lane_key};
pub use self::kill::{Killing, Step, Switch};
pub use self::ledger::Ledger;
pub use self::line::{Answer, Ask, Figures, Line, News, Question};
pub use self::member::Site;
pub use self::own_postgres::OwnPostgres;
pub use self::place::Place;
pub use self::process::{Gone, Member};
pub use self::serve::serve;
pub use self::setup::Setup;

/// Any failure, for people.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
