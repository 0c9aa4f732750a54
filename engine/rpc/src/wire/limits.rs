//! The sizes that both ends keep to. They are the peer's own: more is refused by it, and less would refuse what it sends.

/// Bytes of a frame, which is a WebSocket message.
pub const FRAME: usize = 16_711_680;
/// Bytes of a frame before the handshake.
pub const FIRST_FRAME: usize = 16_384;
/// Bytes of a message's arguments.
pub const ARGUMENTS: usize = 16_252_928;
/// Bytes of a method's full name.
pub const METHOD: usize = 1_024;
/// Headers of a message.
pub const HEADERS: usize = 31;
/// Bytes of a header's key.
pub const HEADER_KEY: usize = 255;
/// Bytes of a header's value.
pub const HEADER_VALUE: usize = 1_024;
/// Bytes of a text message's envelope.
pub const ENVELOPE: usize = 244_297;
/// Characters of an API version set.
pub const VERSIONS: usize = 512;
/// Scopes of an API version set.
pub const VERSION_SCOPES: usize = 16;
/// Items in one message of a stream.
pub const BATCH: usize = 1_024;
/// Values within values. The peer has no such limit in MessagePack; in JSON it is 64 or 128, by the reader.
pub const DEPTH: usize = 128;
