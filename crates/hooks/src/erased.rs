//! Values and deserializers whose types are not known where they are passed on.

use std::fmt;

use serde::{Deserializer, Serialize, Serializer};

use crate::CodecError;

/// A value on its way into a codec; it serializes itself, as any serializer asks.
#[derive(Clone, Copy)]
pub struct Encodable<'a>(&'a dyn erased_serde::Serialize);

impl<'a> Encodable<'a> {
    /// Any value that can be serialized.
    pub fn new(value: &'a impl Serialize) -> Self {
        Self(value)
    }
}

impl Serialize for Encodable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(self.0, serializer)
    }
}

/// Without the value, which may hold secrets.
impl fmt::Debug for Encodable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encodable(..)")
    }
}

type Take<'v> =
    dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error> + 'v;

/// Takes a value out of the deserializer of a codec.
pub struct Visit<'v>(&'v mut Take<'v>);

impl<'v> Visit<'v> {
    pub(crate) fn new(take: &'v mut Take<'v>) -> Self {
        Self(take)
    }

    /// Takes the value out of this deserializer of the codec of this name.
    ///
    /// # Errors
    ///
    /// When what it reads does not fit the type that is wanted. The error is the [`CodecError`] of
    /// [`Codec::decode`](crate::Codec::decode), without the values that serde quotes.
    pub fn visit<'de>(
        self,
        codec: &str,
        deserializer: impl Deserializer<'de>,
    ) -> Result<(), CodecError> {
        let mut erased = <dyn erased_serde::Deserializer<'_>>::erase(deserializer);
        (self.0)(&mut erased).map_err(|error| CodecError::decode(codec, error))
    }
}

impl fmt::Debug for Visit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visit(..)")
    }
}

/// An argument whose type only its ability knows.
pub struct TypedArg(Box<dyn erased_serde::Serialize + Send + Sync>);

impl TypedArg {
    /// Any value that can be serialized.
    pub fn new(value: impl Serialize + Send + Sync + 'static) -> Self {
        Self(Box::new(value))
    }
}

impl Serialize for TypedArg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(&*self.0, serializer)
    }
}

/// Without the value, which may hold secrets.
impl fmt::Debug for TypedArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedArg(..)")
    }
}
