//! The same frames over any stream of bytes: TCP, TLS, Unix sockets, memory. For service to service, where there is no browser and HTTP says nothing.
//!
//! The wire. Everything but the first four bytes is a *unit*: one byte that says what it is, three for the length of what follows (big-endian), and
//! that.
//!
//! | who | says | what |
//! | --- | --- | --- |
//! | client | `wsr1` | that it speaks this, in its first version |
//! | client | 1, text | what the query of a WebSocket's address says: `clientId=..&f=..`, with `&c=..&p=..` once it has a secret; at most 1,024 bytes |
//! | server | 2, nothing | that it is let in: frames may follow |
//! | server | 4, ... | that it is not, and why |
//! | both | 3, bytes | a frame |
//! | both | 4, code (two bytes), reason (text of at most 123) | the end, as a WebSocket's close frame has it: 4001 for a format that is not spoken |
//!
//! There are no pings: the frames have signs of life of their own.

mod frames;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod memory;
mod preamble;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(unix)]
mod unix;

pub use self::frames::{SocketReader, SocketWriter};
pub use self::memory::MemoryAddress;
pub(crate) use self::preamble::serve;
pub use self::tcp::TcpAddress;
pub(crate) use self::tcp::dial;
#[cfg(feature = "tls")]
pub(crate) use self::tls::server_name;
#[cfg(feature = "tls")]
pub use self::tls::{NotNamed, TlsAddress};
#[cfg(unix)]
pub use self::unix::UnixAddress;
#[cfg(unix)]
pub(crate) use self::unix::UnixEntrance;
