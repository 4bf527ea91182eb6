use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::erased::{Encodable, Visit};
use crate::redact::{quotes_values, without_values};

/// The name of the default codec.
pub const JSON: &str = "json";

/// Turns typed arguments and replies into bytes and back.
///
/// The codec's name is stored beside the bytes, so jobs that are already stored can be decoded
/// after the default is changed. Called on the enqueuing and the worker threads.
///
/// ```
/// use qudo_hooks::{Codec, CodecError, Encodable, Visit, decode, encode};
///
/// /// JSON with each byte turned round.
/// struct Upside;
///
/// impl Codec for Upside {
///     fn name(&self) -> &str {
///         "upside"
///     }
///
///     fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
///         let json = serde_json::to_vec(&value).map_err(|error| CodecError::encode("upside", error))?;
///         Ok(json.into_iter().map(|byte| !byte).collect())
///     }
///
///     fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
///         let json: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
///         visit.visit("upside", &mut serde_json::Deserializer::from_slice(&json))
///     }
/// }
///
/// let bytes = encode(&Upside, &("cat", 7))?;
/// assert_eq!(decode::<(String, u32)>(&Upside, &bytes)?, ("cat".to_owned(), 7));
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec: Send + Sync {
    /// The stored name, such as `json`.
    fn name(&self) -> &str;

    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// When the value cannot be represented in this format.
    fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError>;

    /// Decodes bytes by handing a deserializer to `visit`.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this format or `visit` refuses them. That is final for an argument: its job goes to
    /// the exception log, because the bytes stay the same. Mark an error that may pass, for instance when a key
    /// could not be fetched, with [`CodecError::readable_elsewhere`].
    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError>;

    /// Whether the bytes keep the value from people who see them, as those of an encrypting codec do. Then no filter of
    /// an operator looks into it, also where this program has the key. A codec over another answers as that one, unless it
    /// hides the value itself. Default: no.
    fn hides(&self) -> bool {
        false
    }
}

/// Bytes and a type that do not fit each other, or a codec that is not linked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CodecError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    elsewhere: bool,
}

impl CodecError {
    /// A value that the codec named cannot represent.
    pub fn encode(
        codec: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            message: format!("cannot encode the value with the codec {codec:?}"),
            source: Some(source.into()),
            elsewhere: false,
        }
    }

    /// Bytes that the codec named cannot read into the type asked for.
    ///
    /// Deserializers quote what they cannot read, and arguments may hold secrets: of the errors of
    /// `serde_json`, `erased_serde` and `rmp-serde` only what they say of the type and the place is kept.
    /// Any other error is kept as it is, so it should not quote the bytes.
    pub fn decode(
        codec: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let mut source = source.into();
        // One codec may wrap another.
        let elsewhere = source.downcast_ref::<Self>().is_some_and(Self::is_readable_elsewhere);
        if quotes_values(&*source) {
            source = without_values(&source.to_string()).into();
        }
        let message = format!("cannot decode the bytes with the codec {codec:?}");
        Self { message, source: Some(source), elsewhere }
    }

    /// A codec that is not among those of this manager.
    pub fn unknown(codec: &str) -> Self {
        Self {
            message: format!(
                "the codec {codec:?} is not registered: add it with `ManagerBuilder::codec`, or enable its \
                 cargo feature"
            ),
            source: None,
            elsewhere: true,
        }
    }

    /// Says that another program may be able to read the bytes, because it has a key that this one lacks. A job whose
    /// argument fails to decode with such an error is tried again if its ability has retries left; other jobs are
    /// not, because the bytes stay the same.
    #[must_use]
    pub fn readable_elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    /// Whether another program may be able to read the bytes: a codec or a key is missing here.
    pub fn is_readable_elsewhere(&self) -> bool {
        self.elsewhere
    }
}

/// Encodes a value with any codec.
///
/// # Errors
///
/// When the value cannot be represented in the codec's format.
pub fn encode(codec: &dyn Codec, value: &impl serde::Serialize) -> Result<Vec<u8>, CodecError> {
    codec.encode(Encodable::new(value))
}

/// Decodes bytes into a type with any codec.
///
/// # Errors
///
/// When the bytes are not of the codec's format or do not fit the type.
pub fn decode<T: DeserializeOwned>(codec: &dyn Codec, bytes: &[u8]) -> Result<T, CodecError> {
    let mut value = None;
    let mut take = |deserializer: &mut dyn erased_serde::Deserializer<'_>| {
        value = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    };
    codec.decode(bytes, Visit::new(&mut take))?;
    value.ok_or_else(|| CodecError::decode(codec.name(), "the codec produced no value"))
}

/// The codec `json`, the default.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    fn name(&self) -> &'static str {
        JSON
    }

    fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(&value).map_err(|error| CodecError::encode(JSON, error))
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        visit.visit(JSON, &mut json)?;
        json.end().map_err(|error| CodecError::decode(JSON, error))
    }
}

#[cfg(feature = "msgpack")]
mod msgpack {
    use super::{Codec, CodecError, Encodable, Visit};

    /// The codec `msgpack`: compact, with field names kept so that structs can grow.
    #[derive(Debug, Clone, Copy)]
    pub struct MessagePack;

    const NAME: &str = "msgpack";

    impl Codec for MessagePack {
        fn name(&self) -> &'static str {
            NAME
        }

        fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
            rmp_serde::to_vec_named(&value).map_err(|error| CodecError::encode(NAME, error))
        }

        fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
            let mut msgpack = rmp_serde::Deserializer::from_read_ref(bytes);
            visit.visit(NAME, &mut msgpack)
        }
    }
}

#[cfg(feature = "msgpack")]
pub use msgpack::MessagePack;

/// The codecs a manager knows, by name.
#[derive(Clone)]
pub struct CodecSet {
    codecs: BTreeMap<String, Arc<dyn Codec>>,
}

impl Default for CodecSet {
    /// `json`, `raw`, and `msgpack` with the feature of that name.
    fn default() -> Self {
        let mut set = Self { codecs: BTreeMap::new() };
        set.insert(Arc::new(Json));
        set.insert(Arc::new(crate::Raw));
        #[cfg(feature = "msgpack")]
        set.insert(Arc::new(msgpack::MessagePack));
        set
    }
}

impl fmt::Debug for CodecSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.codecs.keys()).finish()
    }
}

impl CodecSet {
    /// Adds a codec; one of the same name is replaced.
    pub fn insert(&mut self, codec: Arc<dyn Codec>) {
        self.codecs.insert(codec.name().to_owned(), codec);
    }

    /// Finds a codec by its stored name.
    ///
    /// # Errors
    ///
    /// When no codec of that name is in the set.
    pub fn get(&self, name: &str) -> Result<&dyn Codec, CodecError> {
        self.codecs.get(name).map(AsRef::as_ref).ok_or_else(|| CodecError::unknown(name))
    }

    /// Decodes bytes with the codec named.
    ///
    /// # Errors
    ///
    /// When the codec is unknown or the bytes do not fit the type.
    pub fn decode<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, CodecError> {
        if name == JSON {
            // The default goes without the erased deserializer: the hot path of every worker.
            return serde_json::from_slice(bytes).map_err(|error| CodecError::decode(JSON, error));
        }
        decode(self.get(name)?, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_returns_what_was_put_in() {
        let set = CodecSet::default();
        for codec in set.codecs.values().filter(|codec| codec.name() != "raw") {
            let value = ("äöü\0".to_owned(), vec![1_u64, u64::MAX], Some(-1.5_f64));
            let bytes = encode(codec.as_ref(), &value).expect("encodes");
            let back: (String, Vec<u64>, Option<f64>) =
                decode(codec.as_ref(), &bytes).expect("decodes");
            assert_eq!(back, value, "{}", codec.name());
        }
    }

    #[test]
    fn trailing_bytes_and_unknown_codecs_are_errors_that_name_the_codec() {
        let set = CodecSet::default();
        let json = set.get(JSON).expect("json is always there");
        assert!(decode::<u8>(json, b"1 2").is_err());
        let error = set.decode::<u8>("sealing-wax", b"1").expect_err("unknown");
        assert!(error.to_string().contains("sealing-wax"));
    }
}
