//! The PostgreSQL backend against a real server: `WELLSPRING_POSTGRES_URL`, or what listens on the standard port of this host.
#![cfg(feature = "postgres")]

mod claiming;
mod committing;
mod connections;
mod database;
mod doubt;
mod hints;
mod holding;
mod reading;
mod schema;
mod transactions;
mod trimming;
