//! The process: it listens, and starts anew when a client asks for that.

use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use wellspring_rpc::tls::{self, Identity};
use wellspring_rpc::web::Origins;
use wellspring_rpc::{Listener, Timings};

use super::options::Options;
use super::services::Services;

/// How long nobody listens before the server starts anew.
pub const PAUSE: Duration = Duration::from_millis(300);

/// Serves, until something fails. Says `listening on PORT` when it does, each time; and before that where else, `tcp on PORT` for example.
///
/// # Errors
/// If a port is taken, a file cannot be read, or there is no runtime to be had.
pub fn run(options: &Options) -> io::Result<()> {
    if options.ends_with_input {
        thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let mut options = options.clone();
    loop {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(life(&mut options))?;
        // All tasks end where they are, and their connections with them: nobody says good-bye, as when a process is killed.
        runtime.shutdown_timeout(Duration::from_secs(5));
        thread::sleep(PAUSE);
    }
}

/// From one start to the next.
async fn life(options: &mut Options) -> io::Result<()> {
    let mut timings = Timings::default();
    timings.keep_alive = options.keep_alive.unwrap_or(timings.keep_alive);
    timings.retention = options.retention.map_or(timings.retention, |kept| (kept, kept));
    let services = Services::with(|hub| hub.timings(timings));
    let hub = &services.hub;
    let identity = match &options.identity {
        None => None,
        Some((chain, key)) => {
            let (chain, key) = (fs::read(chain)?, fs::read(key)?);
            Some(tls::server(Identity { chain: &chain, key: &key }).map_err(io::Error::other)?)
        }
    };
    let mut serving = Vec::new();
    if let Some(port) = &mut options.tcp {
        serving.push(at(port).await?.serve(hub));
        say(format_args!("tcp on {port}"));
    }
    if let Some(path) = &options.unix {
        serving.push(Listener::unix(path).await?.serve(hub));
    }
    if let (Some(port), Some(identity)) = (&mut options.tls, &identity) {
        serving.push(at(port).await?.tls(identity.clone()).serve(hub));
        say(format_args!("tls on {port}"));
    }
    // Pages of any host: there is nothing here that one must not see, and clients are tried out from pages.
    if let (Some(port), Some(identity)) = (&mut options.wss, identity) {
        serving.push(at(port).await?.tls(identity).web(Origins::Any).serve(hub));
        say(format_args!("wss on {port}"));
    }
    serving.push(at(&mut options.port).await?.web(Origins::Any).serve(hub));
    say(format_args!("listening on {}", options.port));
    services.restart.requested().await;
    drop(serving);
    Ok(())
}

/// At a port, which is known then.
async fn at(port: &mut u16) -> io::Result<Listener> {
    let listener = Listener::tcp((Ipv4Addr::LOCALHOST, *port)).await?;
    *port = listener.local_addr().map_or(*port, |address| address.port());
    Ok(listener)
}

/// Whoever has started it may not want to hear that.
fn say(what: impl Display) {
    let _ = writeln!(io::stdout(), "{what}");
}
