//! The store in memory.

use std::time::Duration;

use wellspring_commands::memory::{Memory, Write};
use wellspring_commands::{Entry, Op, OperationId, OperationLog, Place, ServerId};

use crate::backend::Backend;
use crate::cluster::Refused;

pub(crate) struct InMemory(Memory);

impl Backend for InMemory {
    type Store = Memory;

    async fn create() -> Option<InMemory> {
        Some(InMemory(Memory::new()))
    }

    async fn open(&self) -> Memory {
        self.0.clone()
    }

    async fn put(op: &Op<Memory>, key: String, value: String) -> Result<(), Refused> {
        op.write(move |rows: &mut Write<'_>| {
            rows.insert(key, value);
            Ok::<_, Refused>(())
        });
        Ok(())
    }

    async fn get(store: &Memory, key: &str) -> Option<String> {
        store.read(|rows| rows.get(key).cloned())
    }

    async fn append_raw(&self, body: &str) {
        let (operation, origin) = (OperationId::new(), ServerId::random());
        self.0.append_raw(Entry { place: Place::default(), operation, origin, body: body.to_owned() });
    }

    async fn trim(&self) {
        self.0.trim(Duration::ZERO).await.expect("trimmed");
    }
}
