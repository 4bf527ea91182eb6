use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, AeadCore, KeyInit, OsRng, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::erased::{Encodable, Visit};
use crate::{Codec, CodecError};

/// The first byte of what is stored, should the form ever change.
const FORM: u8 = 1;

/// Bytes of a nonce: long enough to be drawn by chance for every job.
const NONCE: usize = 24;

/// Encrypts what another codec makes, with XChaCha20-Poly1305: `json+aead`. A person who can read or
/// change the tables cannot read an argument, and a changed argument is refused.
///
/// Keys have ids, which are stored unencrypted beside the bytes. New jobs use the key that was
/// added last; the other keys are kept for stored jobs and for the exception log. To rotate keys,
/// add the new key to every program that must read it, then add it last in every program that
/// writes with it, and remove the old key when no job uses it any more.
///
/// The job's id, queue and ability are not bound to the argument: a person who can write to the
/// tables can still swap the arguments of two jobs.
///
/// ```
/// use qudo_hooks::{Encrypted, Json, decode, encode};
///
/// let old = Encrypted::over(Json).key("2025", [1; 32]);
/// let bytes = encode(&old, &"secret")?;
/// let rotated = Encrypted::over(Json).key("2025", [1; 32]).key("2026", [2; 32]);
/// assert_eq!(decode::<String>(&rotated, &bytes)?, "secret");
/// let forgotten = Encrypted::over(Json).key("2026", [2; 32]);
/// assert!(decode::<String>(&forgotten, &bytes).is_err());
/// # Ok::<(), qudo_hooks::CodecError>(())
/// ```
#[derive(Clone)]
pub struct Encrypted {
    inner: Arc<dyn Codec>,
    name: String,
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// Without the keys.
impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|(id, _)| id).collect();
        f.debug_struct("Encrypted").field("name", &self.name).field("keys", &ids).finish()
    }
}

impl Encrypted {
    /// Encrypts what this codec makes. Compress before encrypting: `Encrypted::over(Compressed::
    /// over(Json))`.
    pub fn over(inner: impl Codec + 'static) -> Self {
        let name = format!("{}+aead", inner.name());
        Self { inner: Arc::new(inner), name, keys: Vec::new() }
    }

    /// Adds a key of 32 bytes from a cryptographic source, under an id of at most 255 bytes.
    ///
    /// # Panics
    ///
    /// When the id is longer, which is a mistake of the program.
    #[must_use]
    pub fn key(mut self, id: impl Into<String>, key: [u8; 32]) -> Self {
        let id = id.into();
        assert!(id.len() <= 255, "the id of a key takes at most 255 bytes");
        self.keys.retain(|(other, _)| *other != id);
        self.keys.push((id, XChaCha20Poly1305::new(&key.into())));
        self
    }
}

impl Codec for Encrypted {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, value: Encodable<'_>) -> Result<Vec<u8>, CodecError> {
        let (id, cipher) =
            self.keys.last().ok_or_else(|| CodecError::encode(&self.name, "it has no key"))?;
        let plain = self.inner.encode(value)?;
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let mut bytes = vec![FORM, id.len() as u8];
        bytes.extend_from_slice(id.as_bytes());
        let sealed = cipher
            .encrypt(&nonce, Payload { msg: &plain, aad: &bytes })
            .map_err(|_| CodecError::encode(&self.name, "the argument is too long"))?;
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8], visit: Visit<'_>) -> Result<(), CodecError> {
        let wrong = |message: String| CodecError::decode(&self.name, message).readable_elsewhere();
        let torn = || wrong("the bytes are no encrypted argument".to_owned());
        let [FORM, length, ..] = bytes else { return Err(torn()) };
        let header = 2 + usize::from(*length);
        if bytes.len() < header + NONCE {
            return Err(torn());
        }
        let (clear, rest) = bytes.split_at(header);
        let id = std::str::from_utf8(&clear[2..]).map_err(|_| torn())?;
        let (nonce, sealed) = rest.split_at(NONCE);
        let key = self.keys.iter().find(|(other, _)| other == id);
        let (_, cipher) = key.ok_or_else(|| wrong(format!("there is no key {id:?}")))?;
        let plain = cipher
            .decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: clear })
            .map_err(|_| wrong(format!("the bytes were changed, or key {id:?} is another")))?;
        self.inner.decode(&plain, visit)
    }

    fn hides(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Json, decode};

    #[test]
    fn what_was_changed_anywhere_is_refused() {
        let codec = Encrypted::over(Json).key("k", [7; 32]);
        let bytes = codec.encode(Encodable::new(&"top secret")).expect("encodes");
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
        assert_ne!(
            bytes,
            codec.encode(Encodable::new(&"top secret")).expect("encodes"),
            "a nonce each"
        );
        assert_eq!(decode::<String>(&codec, &bytes).expect("decodes"), "top secret");
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert!(decode::<String>(&codec, &forged).is_err(), "byte {at}");
        }
        for end in 0..bytes.len() {
            assert!(decode::<String>(&codec, &bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn keys_are_shown_by_their_ids_only() {
        let codec = Encrypted::over(Json).key("2026", [42; 32]);
        assert_eq!(format!("{codec:?}"), "Encrypted { name: \"json+aead\", keys: [\"2026\"] }");
        assert!(Encrypted::over(Json).encode(Encodable::new(&1)).is_err(), "without a key");
    }
}
