use std::fmt;
use std::io::Read;
use std::sync::Arc;

use crate::erased::{Encodable, Visit};
use crate::{Codec, CodecError};

/// Compresses what another codec makes, with Zstandard: `json+zstd`.
///
/// ```
/// use qudo_hooks::{Codec, Compressed, Json, decode, encode};
///
/// let codec = Compressed::over(Json);
/// assert_eq!(codec.name(), "json+zstd");
/// let text = "to be or not to be ".repeat(100);
/// let bytes = encode(&codec, &text)?;
/// assert!(bytes.len() < 100);
/// assert_eq!(decode::<String>(&codec, &bytes)?, text);
/// # Ok::<(), qudo_hooks::CodecError>(())
/// ```
#[derive(Clone)]
pub struct Compressed {
    inner: Arc<dyn Codec>,
    name: String,
    level: i32,
    most: usize,
}

impl fmt::Debug for Compressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed")
            .field("name", &self.name)
            .field("level", &self.level)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// Bytes that small input may grow to unless told otherwise.
const MAX_UNPACKED: usize = 64 * 1024 * 1024;

impl Compressed {
    /// Compresses what this codec makes, at level 3. What decompresses to more than 64 MiB is
    /// refused.
    pub fn over(inner: impl Codec + 'static) -> Self {
        let name = format!("{}+zstd", inner.name());
        Self { inner: Arc::new(inner), name, level: 3, most: MAX_UNPACKED }
    }

    /// Another level, 1 (fast) to 22 (small).
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// The most bytes that decompression may produce: a few bytes can decompress to gigabytes.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        self
    }
}

impl Codec for Compressed {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
        let plain = self.inner.encode(value)?;
        zstd::stream::encode_all(&plain[..], self.level)
            .map_err(|error| CodecError::encode(&self.name, error))
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
        let wrong = |error: std::io::Error| CodecError::decode(&self.name, error);
        let mut plain = Vec::new();
        let stream = zstd::stream::Decoder::new(bytes).map_err(wrong)?;
        // One byte more than allowed tells too much from just enough.
        stream.take((self.most as u64).saturating_add(1)).read_to_end(&mut plain).map_err(wrong)?;
        if plain.len() > self.most {
            let message = format!("it decompresses to more than {} bytes", self.most);
            return Err(CodecError::decode(&self.name, message));
        }
        self.inner.decode(&plain, visit)
    }

    fn hides(&self) -> bool {
        self.inner.hides()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, decode};

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_memory() {
        let codec = Compressed::over(Json).at_most(1_000_000);
        let bomb = zstd::stream::encode_all(&vec![b' '; 100_000_000][..], 19).expect("compresses");
        assert!(bomb.len() < 20_000, "{}", bomb.len());
        let error = decode::<u8>(&codec, &bomb).expect_err("a bomb");
        assert!(format!("{error:?}").contains("1000000"), "{error:?}");
        let fits = codec.encode(Encodable::new(&"x".repeat(900_000))).expect("encodes");
        assert_eq!(decode::<String>(&codec, &fits).expect("decodes").len(), 900_000);
        assert!(decode::<u8>(&codec, b"no zstd").is_err());
        let boundless = Compressed::over(Json).at_most(usize::MAX);
        let text = boundless.encode(Encodable::new(&"x")).expect("encodes");
        assert_eq!(decode::<String>(&boundless, &text).expect("decodes"), "x");
    }
}
