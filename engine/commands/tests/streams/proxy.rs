//! A way to a server on which a connection can go dead without a word.

use std::future::pending;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Carries what comes to its port to another one.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    /// How often those that were connected have been forgotten.
    age: Arc<watch::Sender<u64>>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let here = listener.local_addr().expect("an address").port();
        let age = Arc::new(watch::Sender::new(0));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, port, age.clone()));
        Proxy { port: here, age, _accepting: accepting }
    }

    /// From now on everything that comes on the connections there are is taken and goes nowhere, also their end. New ones are carried.
    pub fn swallow(&self) {
        self.age.send_modify(|age| *age += 1);
    }
}

async fn accept(listener: TcpListener, port: u16, age: Arc<watch::Sender<u64>>) {
    let mut carrying = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        carrying.spawn(carry(near_read, far_write, age.subscribe()));
        carrying.spawn(carry(far_read, near_write, age.subscribe()));
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, age: watch::Receiver<u64>) {
    let born = *age.borrow();
    let carried: io::Result<()> = async {
        let mut bytes = [0; 4096];
        loop {
            let count = from.read(&mut bytes).await?;
            let dead = *age.borrow() != born;
            match count {
                0 if dead => pending().await,
                0 => return to.shutdown().await,
                _ if dead => {}
                count => to.write_all(&bytes[..count]).await?,
            }
        }
    }
    .await;
    if carried.is_err() && *age.borrow() != born {
        pending::<()>().await;
    }
}
