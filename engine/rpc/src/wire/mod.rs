//! The wire of ActualLab.Rpc, protocol version 2: what is between two peers, and nothing of what they do with it.
//!
//! A connection carries frames, a frame carries messages, a message is a call, a reply or a [system call](System). Everything here reads
//! from borrowed bytes and writes to a buffer of the caller's, which the next frame uses again. All input is a stranger's: whatever it is, it is read
//! or refused, within the [limits], and never allocated for by what it says of its own size.

mod binary;
mod borrowed;
mod bounded;
mod error_info;
mod format;
mod frame;
mod guid;
mod handshake;
mod json;
pub mod limits;
mod message;
mod method;
mod msgpack;
mod packed;
mod proof;
mod stream_ref;
mod system;
mod text;
mod value;
mod varint;

pub(crate) use self::bounded::{AtMost, PairsAtMost};
pub use self::error_info::ErrorInfo;
pub use self::format::{Format, UnknownFormat};
pub use self::frame::{Frame, FrameError, Messages};
pub use self::guid::{Guid, NoGuid};
pub use self::handshake::Handshake;
pub use self::message::{Head, Headers, Malformed, Message};
pub use self::method::{MethodId, MethodRef, NameTooLong};
pub use self::packed::{Broken, Packed, pack, unpack};
pub use self::proof::{Proof, Secret};
pub use self::stream_ref::StreamRef;
pub use self::system::System;
pub use self::value::{Arguments, Raw, ReadError, WriteError, Writer};
