use std::fmt;

use serde::{Deserialize, Serialize};

use super::Name;

/// What a job is: written when it is enqueued, and the same until its end, unless an operator puts the job into another
/// queue or changes its priority.
///
/// One type wherever a job appears: to be stored, claimed, on its way to another database, listed, or in the
/// exception log.
///
/// It can be serialized, for drivers that store it so; the argument and the key are in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// The kind of work.
    pub ability: Name,
    /// The queue.
    pub queue: Name,
    /// The name of the codec of `arg`.
    pub codec: Name,
    /// The encoded argument.
    pub arg: Vec<u8>,
    /// The unique key; at most 500 bytes.
    pub uniqkey: Option<String>,
    /// Higher runs first.
    pub priority: i32,
    /// What its client adds to the argument, for hooks and people: the text of a JSON object.
    pub meta: Option<Box<str>>,
}

impl JobFacts {
    /// A job of this ability in this queue, with an encoded argument, neither unique nor urgent.
    pub fn new(
        ability: impl Into<Name>,
        queue: impl Into<Name>,
        codec: impl Into<Name>,
        arg: Vec<u8>,
    ) -> Self {
        Self {
            ability: ability.into(),
            queue: queue.into(),
            codec: codec.into(),
            arg,
            uniqkey: None,
            priority: 0,
            meta: None,
        }
    }

    /// The bytes of argument and metadata, for code that bounds the bytes it holds or sends.
    pub fn size(&self) -> usize {
        self.arg.len() + self.meta.as_ref().map_or(0, |meta| meta.len())
    }

    /// What lies beside such a job in other tables.
    pub fn flags(&self) -> Flags {
        if self.uniqkey.is_some() { Flags::KEYED } else { Flags::NONE }
    }
}

/// Without the argument, the key and what lies beside them, which may hold secrets.
impl fmt::Debug for JobFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobFacts")
            .field("ability", &self.ability)
            .field("queue", &self.queue)
            .field("codec", &self.codec)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// What lies beside a job in other tables, so that a job with nothing beside it takes the short way.
///
/// Stored with the place where the job stands, and carried wherever it goes. A bit that a program does not know
/// stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(i32);

impl Flags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A row with its unique key.
    pub const KEYED: Self = Self(1);

    /// Flags as they are stored.
    pub const fn from_bits(bits: i32) -> Self {
        Self(bits)
    }

    /// The flags as they are stored.
    pub const fn bits(self) -> i32 {
        self.0
    }

    /// Whether nothing lies beside the job.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// These and others.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of these are set.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_flagged_by_what_lies_beside_it() {
        let plain = JobFacts::new("mail", "post", "json", b"1".to_vec());
        assert!(plain.flags().is_empty());
        let keyed = JobFacts { uniqkey: Some("k".to_owned()), ..plain };
        assert_eq!(keyed.flags(), Flags::KEYED);
        let newer = Flags::from_bits(5);
        assert!(newer.contains(Flags::KEYED) && newer.bits() == 5, "an unknown bit stays");
        assert_eq!(Flags::from_bits(4).with(Flags::KEYED), newer);
        let with_meta = JobFacts { meta: Some("{}".into()), ..keyed };
        assert_eq!(with_meta.size(), 3);
    }

    #[test]
    fn no_text_shows_an_argument_a_key_or_metadata() {
        let facts = JobFacts {
            uniqkey: Some("secret".to_owned()),
            meta: Some("secret".into()),
            ..JobFacts::new("mail", "post", "json", b"secret".to_vec())
        };
        let text = format!("{facts:?}");
        assert!(!text.contains("secret") && !text.contains(&format!("{:?}", b"secret")), "{text}");
    }
}
