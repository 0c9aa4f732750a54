//! Bytes that decide what happens to a peer: what the other end says (right, wrong, or nothing that can be read), connections, their ends, and who takes
//! their place; calls of our own, and those that are given up; time that passes. For a server's peers, and for a client's.
//!
//! Whatever it is: nothing panics, what goes out can be read, nothing is done ahead of what can be sent, connections on which nobody says anything
//! end, and when all is over nothing is left.

mod line;
mod offer;
mod say;
mod world;

use arbitrary::{Result, Unstructured};

use self::world::World;

/// Does what the bytes say. To be run with tokio's time paused, on one thread.
///
/// # Panics
/// If something is not as it has to be.
pub async fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let mut world = World::new(&mut bytes);
    // At the end of the bytes.
    let _: Result<()> = async {
        while !bytes.is_empty() {
            world.act(&mut bytes).await?;
        }
        Ok(())
    }
    .await;
    world.end().await;
}
