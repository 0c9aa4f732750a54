//! The same calls by tarpc.

use futures_util::StreamExt;
use tarpc::context::{self, Context};
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{client, serde_transport};
use tokio::net::{TcpListener, TcpStream};

use super::{User, text};

/// What is called.
#[tarpc::service]
pub(super) trait Bench {
    async fn add(a: i32, b: i32) -> i32;
    async fn user(id: u64) -> User;
}

#[derive(Clone)]
struct Server;

impl Bench for Server {
    async fn add(self, _: Context, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    async fn user(self, _: Context, id: u64) -> User {
        User::with(id)
    }
}

pub(super) async fn serve(listener: TcpListener) {
    while let Ok((socket, _)) = listener.accept().await {
        // Slower without, but right.
        let _ = socket.set_nodelay(true);
        let framed = LengthDelimitedCodec::builder().new_framed(socket);
        let channel = BaseChannel::with_defaults(serde_transport::new(framed, Bincode::default()));
        tokio::spawn(channel.execute(Server.serve()).for_each(|call| async {
            tokio::spawn(call);
        }));
    }
}

pub(super) async fn connect(port: u16) -> Result<BenchClient, String> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let framed = LengthDelimitedCodec::builder().new_framed(socket);
    let mut config = client::Config::default();
    (config.max_in_flight_requests, config.pending_request_buffer) = (2_000, 2_000);
    Ok(BenchClient::new(config, serde_transport::new(framed, Bincode::default())).spawn())
}

pub(super) async fn call(client: &BenchClient, add: bool, caller: u32, count: u32) {
    if add {
        let sum = client.add(context::current(), caller as i32, count as i32).await.expect("it is answered");
        assert_eq!(sum, (caller + count) as i32);
    } else {
        let user = client.user(context::current(), u64::from(count)).await.expect("it is answered");
        assert_eq!(user.id, u64::from(count));
    }
}
