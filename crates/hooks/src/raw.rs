//! The codec `raw`: an argument that is bytes or a text is stored as it is.

use serde::de::value::SeqDeserializer;
use serde::de::{self, Deserializer, Visitor};
use serde::ser::{self, Impossible, SerializeSeq, SerializeTuple};
use serde::{Serialize, Serializer, forward_to_deserialize_any};

use crate::erased::{Encodable, Visit};
use crate::{Codec, CodecError};

/// Stores bytes and texts as they are: `Vec<u8>`, `String`, and types that are one of them inside.
///
/// ```
/// use qudo_hooks::{Raw, decode, encode};
///
/// let bytes = encode(&Raw, &vec![1_u8, 2, 255])?;
/// assert_eq!(bytes, [1, 2, 255]);
/// assert_eq!(decode::<Vec<u8>>(&Raw, &bytes)?, [1, 2, 255]);
/// assert!(encode(&Raw, &7_u64).is_err(), "a number has no bytes of its own");
/// # Ok::<(), qudo_hooks::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Raw;

const NAME: &str = "raw";

impl Codec for Raw {
    fn name(&self) -> &'static str {
        NAME
    }

    fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
        let mut bytes = Vec::new();
        serde::Serialize::serialize(&value, Writer(&mut bytes))
            .map_err(|error| CodecError::encode(NAME, error))?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
        visit.visit(NAME, Reader(bytes))
    }
}

/// What `raw` cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotBytes(String);

impl ser::Error for NotBytes {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl de::Error for NotBytes {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Writer<'b>(&'b mut Vec<u8>);

macro_rules! refuse {
    ($($method:ident: $ty:ty,)*) => {
        $(fn $method(self, _: $ty) -> Result<(), NotBytes> {
            Err(refused())
        })*
    };
}

fn refused() -> NotBytes {
    NotBytes("only bytes and texts have a raw form".to_owned())
}

impl Serializer for Writer<'_> {
    type Ok = ();
    type Error = NotBytes;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Impossible<(), NotBytes>;
    type SerializeTupleVariant = Impossible<(), NotBytes>;
    type SerializeMap = Impossible<(), NotBytes>;
    type SerializeStruct = Impossible<(), NotBytes>;
    type SerializeStructVariant = Impossible<(), NotBytes>;

    refuse! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_unit_struct: &'static str,
    }

    fn serialize_u8(self, _: u8) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_str(self, text: &str) -> Result<(), NotBytes> {
        self.serialize_bytes(text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), NotBytes> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_unit(self) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        inner: &T,
    ) -> Result<(), NotBytes> {
        inner.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotBytes> {
        Err(refused())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, NotBytes> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, NotBytes> {
        Ok(self)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotBytes> {
        Err(refused())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotBytes> {
        Err(refused())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotBytes> {
        Err(refused())
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, NotBytes> {
        Err(refused())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotBytes> {
        Err(refused())
    }
}

impl SerializeSeq for Writer<'_> {
    type Ok = ();
    type Error = NotBytes;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotBytes> {
        // Without a type of its own, a list of bytes is told from others by its elements.
        match serde_json::to_value(value).ok().and_then(|value| value.as_u64()) {
            Some(byte @ 0..=255) => {
                self.0.push(byte as u8);
                Ok(())
            }
            _ => Err(refused()),
        }
    }

    fn end(self) -> Result<(), NotBytes> {
        Ok(())
    }
}

impl SerializeTuple for Writer<'_> {
    type Ok = ();
    type Error = NotBytes;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotBytes> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), NotBytes> {
        Ok(())
    }
}

struct Reader<'b>(&'b [u8]);

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = NotBytes;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        visitor.visit_bytes(self.0)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        visitor.visit_seq(SeqDeserializer::new(self.0.iter().copied()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, NotBytes> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        let text = std::str::from_utf8(self.0).map_err(|error| NotBytes(error.to_string()))?;
        visitor.visit_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, NotBytes> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, NotBytes> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf option unit
        unit_struct tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Image(Vec<u8>);

    #[test]
    fn bytes_and_texts_are_stored_as_they_are_and_nothing_else_is() {
        let image = Image(vec![0, 255, 10]);
        let bytes = Raw.encode(Encodable::new(&image)).expect("encodes");
        assert_eq!(bytes, [0, 255, 10]);
        assert_eq!(decode::<Image>(&Raw, &bytes).expect("decodes"), image);
        assert_eq!(Raw.encode(Encodable::new(&"köln")).expect("encodes"), "köln".as_bytes());
        assert_eq!(decode::<String>(&Raw, "köln".as_bytes()).expect("decodes"), "köln");
        assert!(decode::<String>(&Raw, &[255]).is_err(), "not UTF-8");
        assert!(Raw.encode(Encodable::new(&vec![1_u64, 256])).is_err(), "not bytes");
        assert!(
            Raw.encode(Encodable::new(&7_u64)).is_err() && Raw.encode(Encodable::new(&())).is_err()
        );
        assert!(Raw.encode(Encodable::new(&(1_u8, "x"))).is_err());
        assert!(Raw.encode(Encodable::new(&serde_json::json!({"a": 1}))).is_err());
    }
}
