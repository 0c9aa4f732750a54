//! Somebody else on the same database server.

use wellspring_tests::cluster::Database;

/// An idle transaction in another database of the same server, which has a number: numbers are the whole server's, and as long as it
/// stands, nothing after it is below the horizon.
pub(crate) struct Stranger {
    home: Database,
    name: String,
    _session: tokio_postgres::Client,
}

impl Stranger {
    /// Begins it, if the database is on a server.
    pub(crate) async fn begin(home: &Database) -> Option<Stranger> {
        let Database::Postgres { url, schema } = home else { return None };
        let name = format!("{schema}_stranger");
        home.execute(&format!("CREATE DATABASE {name}")).await.expect("made");
        let mut config: tokio_postgres::Config = url.parse().expect("a URL");
        config.dbname(&name);
        let (session, connection) = config.connect(tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        session.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("begun");
        Some(Stranger { home: home.clone(), name, _session: session })
    }

    /// Ends it, and removes its database.
    pub(crate) async fn end(self) {
        self.home.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.expect("removed");
    }
}
