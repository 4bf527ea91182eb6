//! The facts of a job as every table that has them holds them.

use diesel::deserialize;
use qudo_core::driver::{JobFacts, Name};
use qudo_hooks::JSON;

use crate::sql::{Bind, Columns, FromRow};

/// The columns of [`JobFacts`], in the order in which they are read and written.
pub(crate) const FACTS: &str = "ability, queue, codec, arg, uniqkey, priority, meta";

/// The same of the table `j`.
pub(crate) const FACTS_OF_J: &str =
    "j.ability, j.queue, j.codec, j.arg, j.uniqkey, j.priority, j.meta";

/// The columns of [`FACTS`] that every job fills, in their order.
pub(crate) const PLAIN_FACTS: &str = "ability, queue, codec, arg, priority";

/// A codec's name: nearly always the one that needs no memory of its own.
pub(crate) fn codec_name(name: &str) -> Name {
    if name == JSON { Name::from_static(JSON) } else { name.into() }
}

impl FromRow for JobFacts {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            ability: columns.text()?.into(),
            queue: columns.text()?.into(),
            codec: codec_name(&columns.opt_text()?.unwrap_or_default()),
            arg: columns.opt_bytes()?.unwrap_or_default(),
            uniqkey: columns.opt_text()?,
            priority: columns.int()?,
            meta: columns.opt_text()?.map(Into::into),
        })
    }
}

/// The values of [`FACTS`].
pub(crate) fn binds(facts: &JobFacts) -> [Bind<'_>; 7] {
    [
        Bind::Text(&facts.ability),
        Bind::Text(&facts.queue),
        Bind::Text(&facts.codec),
        Bind::Bytes(&facts.arg),
        Bind::OptText(facts.uniqkey.as_deref()),
        Bind::Int(facts.priority),
        Bind::OptText(facts.meta.as_deref()),
    ]
}

/// Whether a job has neither a key nor metadata.
pub(crate) fn is_plain(facts: &JobFacts) -> bool {
    facts.uniqkey.is_none() && facts.meta.is_none()
}

/// The values of [`PLAIN_FACTS`].
pub(crate) fn plain_binds(facts: &JobFacts) -> [Bind<'_>; 5] {
    let [ability, queue, codec, arg, _, priority, _] = binds(facts);
    [ability, queue, codec, arg, priority]
}

/// Whether two jobs have neither keys nor metadata and differ in nothing but their arguments.
pub(crate) fn are_alike(one: &JobFacts, other: &JobFacts) -> bool {
    is_plain(one)
        && is_plain(other)
        && one.priority == other.priority
        && one.queue == other.queue
        && one.ability == other.ability
        && one.codec == other.codec
}
