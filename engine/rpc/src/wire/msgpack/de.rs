//! Reading.

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::super::value::ReadError;
use super::RAW;
use super::reader::{Reader, Token};

/// Reads one value off the front of bytes.
pub(in crate::wire) fn read<'a, T: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Result<T, ReadError> {
    let mut reader = Reader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    *bytes = reader.rest();
    Ok(value)
}

impl<'a> Reader<'a> {
    fn visit<V: Visitor<'a>>(&mut self, token: Token<'a>, visitor: V) -> Result<V::Value, ReadError> {
        match token {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Text(value) => visitor.visit_borrowed_str(value),
            Token::Bytes(value) => visitor.visit_borrowed_bytes(value),
            Token::Array(count) => self.within(count, 1, &[], |rest| visitor.visit_seq(rest)),
            Token::Map(count) => self.within(count, 2, &[], |rest| visitor.visit_map(rest)),
            Token::Extension(kind, _) => Err(ReadError::new(format!("an extension of type {kind}"))),
        }
    }

    /// Visits what is in an array or a map, of parts of so many values. What a tuple or a class of ours does not have, a newer peer's has:
    /// it is passed over. Of a class the names are known.
    fn within<T>(
        &mut self,
        count: usize,
        values: usize,
        names: &'static [&'static str],
        visit: impl FnOnce(&mut Rest<'_, 'a>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.depth = self.depth.checked_sub(1).ok_or_else(ReadError::deep)?;
        let mut rest = Rest { reader: self, left: count, names };
        let value = visit(&mut rest)?;
        for _ in 0..rest.left * values {
            self.skip()?;
        }
        self.depth += 1;
        Ok(value)
    }

    /// An integer, also if it comes as a float: JavaScript has only those above 32 bits.
    fn visit_integer<V: Visitor<'a>>(&mut self, visitor: V) -> Result<V::Value, ReadError> {
        match self.token()? {
            Token::Float(value) if value.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&value) => {
                visitor.visit_u64(value as u64)
            }
            Token::Float(value) if value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..0.0).contains(&value) => {
                visitor.visit_i64(value as i64)
            }
            token => self.visit(token, visitor),
        }
    }
}

/// What comes most, and how the rest is read.
macro_rules! short {
    ($small:ident $visit:ident else $rest:ident: $($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.$small() {
                Some(value) => visitor.$visit(value),
                None => self.$rest(visitor),
            }
        }
    )*};
}

impl<'a> Deserializer<'a> for &mut Reader<'a> {
    type Error = ReadError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let token = self.token()?;
        self.visit(token, visitor)
    }

    short!(small visit_u64 else visit_integer: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128);
    short!(small visit_u64 else visit_integer: deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);
    short!(small_text visit_borrowed_str else deserialize_any: deserialize_str deserialize_string);
    short!(next_name visit_borrowed_str else deserialize_str: deserialize_identifier);

    #[inline]
    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.small_map() {
            Some(count) => self.within(count, 2, names, |rest| visitor.visit_map(rest)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.peek() == Some(0xc0) {
            self.token()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    /// What a peer gives for nothing is its own affair.
    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.skip()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, visitor: V) -> Result<V::Value, ReadError> {
        if name == RAW {
            return visitor.visit_borrowed_bytes(self.skip()?);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'a>>(self, _: &'static str, _: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        match self.token()? {
            Token::Text(name) => visitor.visit_enum(name.into_deserializer()),
            Token::Map(1) => self.within(0, 0, &[], |rest| visitor.visit_enum(rest)),
            token => Err(ReadError::new(format!("{token:?} in the place of a variant"))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool f32 f64 char bytes byte_buf seq tuple tuple_struct map
    }
}

/// What is left of an array or a map.
struct Rest<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
    /// Of a class: those that may come next, if they come in its order.
    names: &'static [&'static str],
}

impl Rest<'_, '_> {
    /// Every value has at least a byte, so no room is made for more than there are bytes.
    fn hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.rest.len()))
    }

    fn one_less(&mut self) -> bool {
        let any = self.left > 0;
        self.left -= usize::from(any);
        any
    }
}

impl<'a> SeqAccess<'a> for &mut Rest<'_, 'a> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        if self.one_less() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'a> MapAccess<'a> for &mut Rest<'_, 'a> {
    type Error = ReadError;

    fn next_key_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        if !self.one_less() {
            return Ok(None);
        }
        self.reader.names = self.names;
        let key = seed.deserialize(&mut *self.reader);
        self.names = std::mem::take(&mut self.reader.names);
        key.map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'a> EnumAccess<'a> for &mut Rest<'_, 'a> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<(T::Value, Self), ReadError> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'a> VariantAccess<'a> for &mut Rest<'_, 'a> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        self.reader.skip().map(|_| ())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(&mut *self.reader)
    }

    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.reader.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'a>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, ReadError> {
        self.reader.deserialize_any(visitor)
    }
}

impl de::Error for ReadError {
    fn custom<T: std::fmt::Display>(message: T) -> ReadError {
        ReadError::new(message.to_string())
    }
}
