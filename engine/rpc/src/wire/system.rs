//! The calls by which two peers talk about calls.

use super::method::MethodRef;

/// A system call. All but [`Reconnect`](System::Reconnect) are answered by nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum System {
    /// Who speaks; the first message of every connection, both ways.
    Handshake,
    /// Which calls the sender waits for, after a connection was made again.
    Reconnect,
    /// The result of a call.
    Ok,
    /// The failure of a call.
    Error,
    /// Whoever called does not want the result any more, or what follows it.
    Cancel,
    /// The result is what the caller has, by its hash.
    Match,
    /// Never sent; known, so that it is not taken for a method.
    NotFound,
    /// The sender lives, and consumes these streams.
    KeepAlive,
    /// These streams are gone.
    Disconnect,
    /// A stream may go on to here, or is to go back to here.
    Ack,
    /// Whoever consumes a stream is done with it.
    AckEnd,
    /// An item of a stream.
    Item,
    /// Items of a stream.
    Batch,
    /// A stream's end.
    End,
    /// The result of a compute call is stale.
    Invalidate,
}

/// Each with its full name, and the hash of that in compact formats.
const ALL: [(System, &str, u32); 15] = [
    (System::Handshake, "$sys.Handshake:1", 0xf562_c751),
    (System::Reconnect, "$sys.Reconnect:3", 0xeedb_99cc),
    (System::Ok, "$sys.Ok:1", 0x0654_e665),
    (System::Error, "$sys.Error:1", 0x895c_70e3),
    (System::Cancel, "$sys.Cancel:0", 0xf537_c6cd),
    (System::Match, "$sys.M:0", 0xd072_168e),
    (System::NotFound, "$sys.NotFound:2", 0xd00b_9ff8),
    (System::KeepAlive, "$sys.KeepAlive:1", 0x4062_9f5f),
    (System::Disconnect, "$sys.Disconnect:1", 0x7478_76e9),
    (System::Ack, "$sys.Ack:2", 0x550b_002e),
    (System::AckEnd, "$sys.AckEnd:1", 0x9a42_d438),
    (System::Item, "$sys.I:2", 0x8092_fd43),
    (System::Batch, "$sys.B:2", 0xdec0_c752),
    (System::End, "$sys.End:2", 0xa4ed_60df),
    (System::Invalidate, "$sys-c.Invalidate:0", 0xd64d_9fd7),
];

impl System {
    /// All of them.
    pub fn all() -> impl Iterator<Item = System> {
        ALL.iter().map(|(call, _, _)| *call)
    }

    /// Which one a message is for, if it is for one.
    pub fn of(method: &MethodRef<'_>) -> Option<System> {
        let found = match method {
            MethodRef::Name(name) => ALL.iter().find(|(_, known, _)| known == name),
            // Answers are most of what comes.
            MethodRef::Hash(hash) if *hash == System::Ok.hash() => return Some(System::Ok),
            MethodRef::Hash(hash) => ALL.iter().find(|(_, _, known)| known == hash),
        };
        found.map(|(call, _, _)| *call)
    }

    /// Its full name.
    pub const fn name(self) -> &'static str {
        ALL[self as usize].1
    }

    /// The hash of its name.
    pub const fn hash(self) -> u32 {
        ALL[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::method;

    #[test]
    fn every_system_call_is_found_by_its_name_and_by_its_hash() {
        for (at, (call, name, hash)) in ALL.into_iter().enumerate() {
            assert_eq!((call as usize, call.name(), call.hash()), (at, name, method::hash(name)));
            assert_eq!(System::of(&MethodRef::Name(name.into())), Some(call));
            assert_eq!(System::of(&MethodRef::Hash(hash)), Some(call));
        }
        assert_eq!(System::of(&MethodRef::Name("$sys.ok:1".into())), None);
        assert_eq!(System::of(&MethodRef::Hash(7)), None);
    }
}
