//! What is done to a world, one step at a time.

use arbitrary::{Arbitrary, Unstructured};

use crate::program::{Place, Program, SOURCES};

/// One operation. Numbers are mapped onto what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads a place.
    Get(u8),
    /// Sets a source.
    Set(u8, u8),
    /// Sets a source to what it holds.
    SetSame(u8),
    /// Several sets and invalidations, one commit.
    Batch(Vec<(u8, u8)>, Vec<u8>),
    /// Sets a source to another value and back.
    ThereAndBack(u8),
    /// Reads all of a function's keys under one pin.
    GetMany(u8),
    /// Resolves a node and keeps the handle.
    Resolve(u8),
    /// Takes a generation and keeps it.
    Hold(u8),
    /// Waits for the end of a held generation.
    Watch(u8),
    /// Updates a held generation.
    Update(u8),
    /// Lets go of a held generation and of what waits for it.
    Release(u8),
    /// Invalidates a place.
    Invalidate(u8),
    /// Invalidates a function.
    InvalidateAll(u8),
    /// Invalidates everything.
    Everything,
    /// Forgets a place.
    Remove(u8),
    /// Reads a node, keeps its handle, forgets it and reads it again: the slot's next tenant is the same key.
    Reborn(u8),
    /// Collects garbage.
    Collect,
}

/// At most this many operations are taken from bytes.
const MOST: usize = 64;

impl Op {
    /// Operations from the rest of the bytes.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn list(bytes: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Op>> {
        let mut ops = Vec::new();
        while !bytes.is_empty() && ops.len() < MOST {
            // A byte for the kind instead of the derive's four: denser inputs, more operations per input.
            let tag = u8::arbitrary(bytes)?;
            let number = |bytes: &mut Unstructured<'_>| u8::arbitrary(bytes);
            ops.push(match tag % 25 {
                0..=5 => Op::Get(number(bytes)?),
                6..=9 => Op::Set(number(bytes)?, number(bytes)?),
                10 => Op::SetSame(number(bytes)?),
                11 | 12 => {
                    let count = number(bytes)?;
                    let sets = (0..count % 4).map(|_| Ok((number(bytes)?, number(bytes)?))).collect::<Result<_, _>>()?;
                    let marks = (0..count / 4 % 3).map(|_| number(bytes)).collect::<Result<_, _>>()?;
                    Op::Batch(sets, marks)
                }
                13 => Op::ThereAndBack(number(bytes)?),
                14 => Op::GetMany(number(bytes)?),
                15 => Op::Resolve(number(bytes)?),
                16 => Op::Hold(number(bytes)?),
                17 => Op::Watch(number(bytes)?),
                18 => Op::Update(number(bytes)?),
                19 => Op::Release(number(bytes)?),
                20 => Op::Invalidate(number(bytes)?),
                21 => Op::InvalidateAll(number(bytes)?),
                22 if tag > 200 => Op::Everything,
                22 => Op::Remove(number(bytes)?),
                23 => Op::Reborn(number(bytes)?),
                _ => Op::Collect,
            });
        }
        Ok(ops)
    }
}

impl Program {
    /// The place a number names: mostly nodes, the last ones most.
    pub fn place(&self, number: u8) -> Place {
        let total = self.nodes() + SOURCES;
        match number as usize % total {
            at if at < self.nodes() => Place::Node(self.nodes() - 1 - at),
            at => Place::Source(at - self.nodes()),
        }
    }
}
