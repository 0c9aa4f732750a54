//! Writing.

use serde::ser::{self, Serialize, Serializer};

use super::super::value::WriteError;
use super::RAW;

/// Writes one value behind what is there.
pub(in crate::wire) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), WriteError> {
    value.serialize(&mut Writer { out, raw: false })
}

/// Begins a list of so many values.
pub(in crate::wire) fn begin_list(out: &mut Vec<u8>, count: usize) {
    // It is a batch of a stream's, which is far below what has no length.
    let _ = Writer { out, raw: false }.array(count);
}

/// Writes values. Classes are maps by their members' names, variants as in JSON.
struct Writer<'w> {
    out: &'w mut Vec<u8>,
    /// Whether the next bytes are a value that is written already.
    raw: bool,
}

impl Writer<'_> {
    fn unsigned(&mut self, value: u64) {
        match value {
            0..=0x7f => self.out.push(value as u8),
            0x80..=0xff => self.out.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => self.marked(0xcd, &(value as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.marked(0xce, &(value as u32).to_be_bytes()),
            _ => self.marked(0xcf, &value.to_be_bytes()),
        }
    }

    fn signed(&mut self, value: i64) {
        match value {
            0.. => self.unsigned(value.unsigned_abs()),
            -0x20..0 => self.out.push(value as u8),
            -0x80..-0x20 => self.out.extend_from_slice(&[0xd0, value as u8]),
            -0x8000..-0x80 => self.marked(0xd1, &(value as i16).to_be_bytes()),
            -0x8000_0000..-0x8000 => self.marked(0xd2, &(value as i32).to_be_bytes()),
            _ => self.marked(0xd3, &value.to_be_bytes()),
        }
    }

    fn marked(&mut self, marker: u8, bytes: &[u8]) {
        self.out.push(marker);
        self.out.extend_from_slice(bytes);
    }

    /// A length below 16 or 32 in the marker itself, others behind one of three, where there are three.
    fn length(&mut self, length: usize, small: (u8, usize), [one, two, four]: [Option<u8>; 3]) -> Result<(), WriteError> {
        let (marker, limit) = small;
        match (length, one, two, four) {
            (0.., ..) if length < limit => self.out.push(marker | length as u8),
            (0..=0xff, Some(one), ..) => self.out.extend_from_slice(&[one, length as u8]),
            (0..=0xffff, _, Some(two), _) => self.marked(two, &(length as u16).to_be_bytes()),
            (0..=0xffff_ffff, _, _, Some(four)) => self.marked(four, &(length as u32).to_be_bytes()),
            _ => return Err(WriteError::new("a value of more than four thousand million parts")),
        }
        Ok(())
    }

    #[inline]
    fn text(&mut self, text: &str) -> Result<(), WriteError> {
        if text.len() < 32 {
            self.out.push(0xa0 | text.len() as u8);
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        self.length(text.len(), (0xa0, 32), [Some(0xd9), Some(0xda), Some(0xdb)])?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn array(&mut self, length: usize) -> Result<(), WriteError> {
        self.length(length, (0x90, 16), [None, Some(0xdc), Some(0xdd)])
    }

    fn map(&mut self, length: usize) -> Result<(), WriteError> {
        self.length(length, (0x80, 16), [None, Some(0xde), Some(0xdf)])
    }

    /// A variant with something in it.
    fn variant(&mut self, name: &str) -> Result<(), WriteError> {
        self.map(1)?;
        self.text(name)
    }
}

/// An array or a map under way.
struct Parts<'p, 'w> {
    writer: &'p mut Writer<'w>,
    /// If nobody said how many there would be: where the length goes, and how many there were.
    counted: Option<(usize, u32)>,
}

impl<'p, 'w> Parts<'p, 'w> {
    fn of(writer: &'p mut Writer<'w>) -> Parts<'p, 'w> {
        Parts { writer, counted: None }
    }

    /// As long as it turns out to be.
    fn counting(writer: &'p mut Writer<'w>, marker: u8) -> Parts<'p, 'w> {
        writer.marked(marker, &[0; 4]);
        let at = writer.out.len() - 4;
        Parts { writer, counted: Some((at, 0)) }
    }

    /// One of an array, or the first of a pair.
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        if let Some((_, count)) = &mut self.counted {
            *count = count.checked_add(1).ok_or_else(|| WriteError::new("a value of more than four thousand million parts"))?;
        }
        value.serialize(&mut *self.writer)
    }

    fn done(self) -> Result<(), WriteError> {
        if let Some((at, count)) = self.counted {
            self.writer.out[at..at + 4].copy_from_slice(&count.to_be_bytes());
        }
        Ok(())
    }
}

impl<'p, 'w> Serializer for &'p mut Writer<'w> {
    type Ok = ();
    type Error = WriteError;
    type SerializeSeq = Parts<'p, 'w>;
    type SerializeTuple = Parts<'p, 'w>;
    type SerializeTupleStruct = Parts<'p, 'w>;
    type SerializeTupleVariant = Parts<'p, 'w>;
    type SerializeMap = Parts<'p, 'w>;
    type SerializeStruct = Parts<'p, 'w>;
    type SerializeStructVariant = Parts<'p, 'w>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), WriteError> {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), WriteError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i16(self, value: i16) -> Result<(), WriteError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i32(self, value: i32) -> Result<(), WriteError> {
        self.serialize_i64(i64::from(value))
    }

    fn serialize_i64(self, value: i64) -> Result<(), WriteError> {
        self.signed(value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), WriteError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u16(self, value: u16) -> Result<(), WriteError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u32(self, value: u32) -> Result<(), WriteError> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u64(self, value: u64) -> Result<(), WriteError> {
        self.unsigned(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), WriteError> {
        match (u64::try_from(value), i64::try_from(value)) {
            (Ok(value), _) => self.serialize_u64(value),
            (_, Ok(value)) => self.serialize_i64(value),
            _ => Err(WriteError::new(format!("{value} has more than 64 bits"))),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<(), WriteError> {
        u64::try_from(value).map_err(|_| WriteError::new(format!("{value} has more than 64 bits")))?.serialize(self)
    }

    fn serialize_f32(self, value: f32) -> Result<(), WriteError> {
        self.marked(0xca, &value.to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), WriteError> {
        self.marked(0xcb, &value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), WriteError> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), WriteError> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), WriteError> {
        if !std::mem::take(&mut self.raw) {
            self.length(value.len(), (0, 0), [Some(0xc4), Some(0xc5), Some(0xc6)])?;
        }
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), WriteError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), WriteError> {
        self.out.push(0xc0);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), WriteError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), WriteError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), WriteError> {
        self.raw = name == RAW;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        self.variant(variant)?;
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Parts<'p, 'w>, WriteError> {
        match length {
            Some(length) => self.serialize_tuple(length),
            None => Ok(Parts::counting(self, 0xdd)),
        }
    }

    fn serialize_tuple(self, length: usize) -> Result<Parts<'p, 'w>, WriteError> {
        self.array(length)?;
        Ok(Parts::of(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Parts<'p, 'w>, WriteError> {
        self.serialize_tuple(length)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, variant: &'static str, length: usize) -> Result<Parts<'p, 'w>, WriteError> {
        self.variant(variant)?;
        self.serialize_tuple(length)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Parts<'p, 'w>, WriteError> {
        match length {
            Some(length) => {
                self.map(length)?;
                Ok(Parts::of(self))
            }
            None => Ok(Parts::counting(self, 0xdf)),
        }
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Parts<'p, 'w>, WriteError> {
        self.map(length)?;
        Ok(Parts::of(self))
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, variant: &'static str, length: usize) -> Result<Parts<'p, 'w>, WriteError> {
        self.variant(variant)?;
        self.serialize_struct(variant, length)
    }
}

macro_rules! arrays {
    ($($kind:ident $method:ident)*) => {$(
        impl ser::$kind for Parts<'_, '_> {
            type Ok = ();
            type Error = WriteError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
                self.part(value)
            }

            fn end(self) -> Result<(), WriteError> {
                self.done()
            }
        }
    )*};
}

arrays!(SerializeSeq serialize_element SerializeTuple serialize_element SerializeTupleStruct serialize_field SerializeTupleVariant serialize_field);

macro_rules! classes {
    ($($kind:ident)*) => {$(
        impl ser::$kind for Parts<'_, '_> {
            type Ok = ();
            type Error = WriteError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), WriteError> {
                self.writer.text(name)?;
                value.serialize(&mut *self.writer)
            }

            fn end(self) -> Result<(), WriteError> {
                self.done()
            }
        }
    )*};
}

classes!(SerializeStruct SerializeStructVariant);

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = WriteError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), WriteError> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), WriteError> {
        self.done()
    }
}

impl ser::Error for WriteError {
    fn custom<T: std::fmt::Display>(message: T) -> WriteError {
        WriteError::new(message.to_string())
    }
}
