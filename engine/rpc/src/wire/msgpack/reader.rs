//! Markers and what follows them.

use ascii::AsciiStr;

use super::super::limits;
use super::super::value::ReadError;

/// What a value begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::wire) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// How many values follow.
    Array(usize),
    /// How many pairs of values follow.
    Map(usize),
    /// An extension: its type, and what is in it.
    Extension(i8, &'a [u8]),
}

/// A text, if it is one. Most are ASCII, which is found out many bytes at a time; the standard library looks at each byte of a short one that does not
/// begin at an address it likes.
#[inline]
fn text_of(bytes: &[u8]) -> Option<&str> {
    match AsciiStr::from_ascii(bytes) {
        Ok(text) => Some(text.as_str()),
        Err(_) => str::from_utf8(bytes).ok(),
    }
}

/// Reads tokens off the front of bytes.
#[derive(Clone, Debug)]
pub(in crate::wire) struct Reader<'a> {
    pub(super) rest: &'a [u8],
    /// Values within values that may yet be begun.
    pub(super) depth: usize,
    /// While the name of a class's member is read: those that may be next, if they come in its order.
    pub(super) names: &'static [&'static str],
}

impl<'a> Reader<'a> {
    pub(in crate::wire) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, depth: limits::DEPTH, names: &[] }
    }

    pub(in crate::wire) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A number below 128, if that is what comes. As the others of the kind, it is what most values are, without a look at what else there is.
    #[inline]
    pub(super) fn small(&mut self) -> Option<u64> {
        let (&marker @ 0x00..=0x7f, rest) = self.rest.split_first()? else { return None };
        self.rest = rest;
        Some(u64::from(marker))
    }

    /// How many values follow, if that is a map of less than 16.
    #[inline]
    pub(super) fn small_map(&mut self) -> Option<usize> {
        let (&marker @ 0x80..=0x8f, rest) = self.rest.split_first()? else { return None };
        self.rest = rest;
        Some(usize::from(marker & 0x0f))
    }

    /// A text of less than 256 bytes, if that is what comes and it is one.
    #[inline]
    pub(super) fn small_text(&mut self) -> Option<&'a str> {
        let (length, rest) = match self.rest {
            [marker @ 0xa0..=0xbf, rest @ ..] => (marker & 0x1f, rest),
            [0xd9, length, rest @ ..] => (*length, rest),
            _ => return None,
        };
        let (text, rest) = rest.split_at_checked(usize::from(length))?;
        let text = text_of(text)?;
        self.rest = rest;
        Some(text)
    }

    /// A name, if it is one of those that come next. What is known need not be looked at again to see whether it is a text.
    #[inline]
    pub(super) fn next_name(&mut self) -> Option<&'static str> {
        let (name, names) = self.names.split_first()?;
        if self.is_next(name) {
            self.names = names;
            return Some(name);
        }
        self.later_name()
    }

    /// As that, if members are left out.
    #[cold]
    fn later_name(&mut self) -> Option<&'static str> {
        let at = self.names.iter().position(|name| self.is_next(name))?;
        let name = self.names[at];
        self.names = &self.names[at + 1..];
        Some(name)
    }

    /// Whether a text of less than 32 bytes comes, and it is this one: then it is passed.
    #[inline]
    fn is_next(&mut self, text: &str) -> bool {
        let Some((marker @ 0xa0..=0xbf, rest)) = self.rest.split_first() else { return false };
        if usize::from(marker & 0x1f) != text.len() {
            return false;
        }
        let Some(rest) = rest.strip_prefix(text.as_bytes()) else { return false };
        self.rest = rest;
        true
    }

    /// The next marker, which stays.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(ReadError::short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(ReadError::short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn length(&mut self, bytes: u8) -> Result<usize, ReadError> {
        Ok(match bytes {
            1 => usize::from(self.array::<1>()?[0]),
            2 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn text(&mut self, length: usize) -> Result<Token<'a>, ReadError> {
        text_of(self.take(length)?).map(Token::Text).ok_or_else(|| ReadError::new("a text is not UTF-8"))
    }

    fn extension(&mut self, length: usize) -> Result<Token<'a>, ReadError> {
        let kind = i8::from_be_bytes(self.array()?);
        Ok(Token::Extension(kind, self.take(length)?))
    }

    /// The next one.
    pub(super) fn token(&mut self) -> Result<Token<'a>, ReadError> {
        let [marker] = self.array()?;
        Ok(match marker {
            0x00..=0x7f => Token::Unsigned(u64::from(marker)),
            0x80..=0x8f => Token::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => self.text(usize::from(marker & 0x1f))?,
            0xc0 => Token::Nil,
            0xc1 => return Err(ReadError::new("a marker that MessagePack does not have")),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(1 << (marker - 0xc4))?;
                Token::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (marker - 0xc7))?;
                self.extension(length)?
            }
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Token::Unsigned(u64::from(self.array::<1>()?[0])),
            0xcd => Token::Unsigned(u64::from(u16::from_be_bytes(self.array()?))),
            0xce => Token::Unsigned(u64::from(u32::from_be_bytes(self.array()?))),
            0xcf => Token::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => Token::Signed(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Token::Signed(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Token::Signed(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Token::Signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (marker - 0xd9))?;
                self.text(length)?
            }
            0xdc | 0xdd => Token::Array(self.length(if marker == 0xdc { 2 } else { 4 })?),
            0xde | 0xdf => Token::Map(self.length(if marker == 0xde { 2 } else { 4 })?),
            0xe0..=0xff => Token::Signed(i64::from(marker as i8)),
        })
    }

    /// Begins a list: how many values follow.
    pub(in crate::wire) fn begin_list(&mut self) -> Result<usize, ReadError> {
        match self.token()? {
            Token::Array(count) => Ok(count),
            _ => Err(ReadError::new("it is no list")),
        }
    }

    /// Passes over a whole value. No recursion: what is left to pass over is a number.
    pub(in crate::wire) fn skip(&mut self) -> Result<&'a [u8], ReadError> {
        let before = self.rest;
        // How many values are left at each depth below this one.
        let mut left = Vec::new();
        let mut here = 1_usize;
        loop {
            while here == 0 {
                match left.pop() {
                    Some(above) => here = above,
                    None => return Ok(&before[..before.len() - self.rest.len()]),
                }
            }
            here -= 1;
            let inner = match self.token()? {
                Token::Array(count) => count,
                // Of a length that is below 2^32.
                Token::Map(count) => 2 * count,
                _ => continue,
            };
            if left.len() >= self.depth {
                return Err(ReadError::deep());
            }
            left.push(std::mem::replace(&mut here, inner));
        }
    }
}
