//! The process: it listens, and starts anew when a client asks for that.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use wellspring_rpc::Timings;
use wellspring_rpc::web::{self, Origins};

use super::services::Services;

/// How long nobody listens before the server starts anew.
pub const PAUSE: Duration = Duration::from_millis(300);

/// How a process listens.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// On which port of this machine's own address. 0: on one that is free, also when it starts anew.
    pub port: u16,
    /// Between signs of life, if not as usual. What a client that was cut off does not ask for is forgotten at the first.
    pub keep_alive: Option<Duration>,
    /// How long a client that has gone is remembered, if not as usual.
    pub retention: Option<Duration>,
    /// It ends when its input does, so that it does not outlive who has started it.
    pub ends_with_input: bool,
}

/// Serves, until something fails. Says `listening on PORT` when it does, each time.
///
/// # Errors
/// If the port is taken, or there is no runtime to be had.
pub fn run(options: &Options) -> io::Result<()> {
    if options.ends_with_input {
        thread::spawn(|| {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let mut port = options.port;
    loop {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(life(&mut port, options))?;
        // All tasks end where they are, and their connections with them: nobody says good-bye, as when a process is killed.
        runtime.shutdown_timeout(Duration::from_secs(5));
        thread::sleep(PAUSE);
    }
}

/// From one start to the next.
async fn life(port: &mut u16, options: &Options) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await?;
    *port = listener.local_addr()?.port();
    let mut timings = Timings::default();
    timings.keep_alive = options.keep_alive.unwrap_or(timings.keep_alive);
    timings.retention = options.retention.map_or(timings.retention, |kept| (kept, kept));
    let services = Services::with(|hub| hub.timings(timings));
    // Pages of any host: there is nothing here that one must not see, and clients are tried out from pages.
    let app = web::router_for(services.hub.clone(), Origins::Any);
    let listener = listener.tap_io(|stream| {
        // It is slower without.
        let _ = stream.set_nodelay(true);
    });
    // Whoever has started it may not want to hear that.
    let _ = writeln!(io::stdout(), "listening on {port}");
    tokio::select! {
        served = axum::serve(listener, app) => served,
        () = services.restart.requested() => Ok(()),
    }
}
