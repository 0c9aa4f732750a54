//! The least that tasks can do to have something sent to another process and back.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Sends back what it reads.
pub(super) async fn serve(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            socket.set_nodelay(true)?;
            let mut buffer = vec![0; 64 << 10];
            loop {
                match socket.read(&mut buffer).await? {
                    0 => return Ok::<_, io::Error>(()),
                    read => socket.write_all(&buffer[..read]).await?,
                }
            }
        });
    }
}

/// A connection that many tasks share. Each has a slot, and one message on its way.
pub(super) struct Echo {
    state: Mutex<State>,
    filled: Notify,
    payload: Vec<u8>,
}

struct State {
    out: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    has_come: bool,
}

/// Bytes of a message before its payload: its length, and its slot.
const HEAD: usize = 8;

impl Echo {
    /// For so many tasks, with messages of so many bytes.
    pub(super) async fn connect(port: u16, tasks: u32, bytes: usize) -> io::Result<Arc<Echo>> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (mut from, mut to) = socket.into_split();
        let state = State { out: Vec::new(), slots: (0..tasks).map(|_| Slot::default()).collect() };
        let echo = Arc::new(Echo { state: Mutex::new(state), filled: Notify::new(), payload: vec![7; bytes.saturating_sub(HEAD)] });
        let writer = echo.clone();
        tokio::spawn(async move {
            let mut frame = Vec::new();
            loop {
                writer.filled.notified().await;
                // As ours does: whoever is about to run has something to add.
                tokio::task::yield_now().await;
                frame.clear();
                std::mem::swap(&mut writer.state().out, &mut frame);
                if to.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        let reader = echo.clone();
        tokio::spawn(async move {
            let (mut buffer, mut filled) = (vec![0; 64 << 10], 0);
            while let Ok(read @ 1..) = from.read(&mut buffer[filled..]).await {
                filled += read;
                let used = reader.received(&buffer[..filled]);
                buffer.copy_within(used..filled, 0);
                filled -= used;
            }
        });
        Ok(echo)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those whose messages have come; how many bytes those had.
    fn received(&self, mut bytes: &[u8]) -> usize {
        let before = bytes.len();
        while let Some(head) = bytes.first_chunk::<HEAD>() {
            let head = u64::from_le_bytes(*head);
            let (length, slot) = (head as u32 as usize, (head >> 32) as usize);
            let Some(rest) = bytes.get(HEAD + length..) else { break };
            bytes = rest;
            let waker = {
                let mut state = self.state();
                state.slots[slot].has_come = true;
                state.slots[slot].waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        before - bytes.len()
    }

    /// Sends a message of a slot, and waits until it is back.
    pub(super) async fn call(&self, slot: u32) {
        let mut sent = false;
        poll_fn(|cx| {
            let mut state = self.state();
            let place = &mut state.slots[slot as usize];
            if std::mem::take(&mut place.has_come) {
                return Poll::Ready(());
            }
            place.waker = Some(cx.waker().clone());
            if !std::mem::replace(&mut sent, true) {
                let was_empty = state.out.is_empty();
                state.out.extend_from_slice(&(self.payload.len() as u64 | u64::from(slot) << 32).to_le_bytes());
                state.out.extend_from_slice(&self.payload);
                drop(state);
                if was_empty {
                    self.filled.notify_one();
                }
            }
            Poll::Pending
        })
        .await;
    }
}
