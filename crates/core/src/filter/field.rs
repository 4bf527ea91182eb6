//! What a filter can ask for.

use qudo_hooks::FailureKind;

/// A list that is filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Jobs,
    Exceptions,
    History,
}

impl List {
    /// For messages.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Jobs => "a job",
            Self::Exceptions => "a row of the exception log",
            Self::History => "a row of the job status",
        }
    }
}

/// What a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    Exception,
    Ability,
    Queue,
    State,
    Db,
    Key,
    Priority,
    Attempt,
    Codec,
    Due,
    Enqueued,
    Started,
    Finished,
    Failed,
    Age,
    Took,
    Worker,
    Version,
    Kind,
    /// The class of an error, or its message: which is asked for, the operator tells.
    Error,
    Class,
    Status,
    Discarded,
    Redriven,
    Tag,
    Meta,
    Arg,
}

/// What values a field has, and so what can be asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A UUID.
    Id,
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    Number,
    Instant,
    Span,
    YesNo,
    /// What lies in a JSON value; the path follows the name.
    Json,
}

const STATES: &[&str] = &["ready", "scheduled", "running", "moving"];
const STATUSES: &[&str] = &["completed", "replaced", "retried", "failed", "snoozed", "cancelled"];
const KINDS: &[&str] = &[
    FailureKind::Error.as_str(),
    FailureKind::Panic.as_str(),
    FailureKind::Decode.as_str(),
    FailureKind::Crash.as_str(),
    FailureKind::LeaseExpired.as_str(),
    FailureKind::Hook.as_str(),
    FailureKind::Abort.as_str(),
    FailureKind::Timeout.as_str(),
    FailureKind::Cancelled.as_str(),
];

const J: u8 = 1;
const E: u8 = 2;
const H: u8 = 4;

/// Field, name, values, lists.
const FIELDS: &[(Field, &str, Kind, u8)] = &[
    (Field::Id, "id", Kind::Id, J | E | H),
    (Field::Exception, "exception", Kind::Id, E),
    (Field::Ability, "ability", Kind::Text, J | E | H),
    (Field::Queue, "queue", Kind::Text, J | E),
    (Field::State, "state", Kind::Word(STATES), J),
    (Field::Status, "status", Kind::Word(STATUSES), H),
    (Field::Db, "db", Kind::Text, J | E | H),
    (Field::Key, "key", Kind::Text, J | E | H),
    (Field::Priority, "priority", Kind::Number, J | E),
    (Field::Attempt, "attempt", Kind::Number, J | E | H),
    (Field::Codec, "codec", Kind::Text, J | E),
    (Field::Due, "due", Kind::Instant, J),
    (Field::Enqueued, "enqueued", Kind::Instant, J | H),
    (Field::Started, "started", Kind::Instant, H),
    (Field::Finished, "finished", Kind::Instant, H),
    (Field::Failed, "failed", Kind::Instant, E),
    (Field::Age, "age", Kind::Span, J | E | H),
    (Field::Took, "took", Kind::Span, H),
    (Field::Worker, "worker", Kind::Text, J | E),
    (Field::Version, "version", Kind::Text, E),
    (Field::Kind, "kind", Kind::Word(KINDS), E),
    (Field::Error, "error", Kind::Text, E | H),
    (Field::Discarded, "discarded", Kind::YesNo, E),
    (Field::Redriven, "redriven", Kind::YesNo, E),
    (Field::Tag, "tag", Kind::Text, J | E),
    (Field::Meta, "meta", Kind::Json, J | E),
    (Field::Arg, "arg", Kind::Json, J | E),
];

const fn bit(list: List) -> u8 {
    match list {
        List::Jobs => J,
        List::Exceptions => E,
        List::History => H,
    }
}

/// The field of this name, or why there is none.
pub(super) fn find(list: List, name: &str) -> Result<(Field, Kind), String> {
    match FIELDS.iter().find(|(_, known, ..)| *known == name) {
        Some((field, _, kind, lists)) if lists & bit(list) != 0 => Ok((*field, *kind)),
        known => {
            let has = format!("{} has: {}", list.noun(), names(list).join(", "));
            let what = if known.is_some() { "no field" } else { "there is no field" };
            let of = if known.is_some() { format!("{} has ", list.noun()) } else { String::new() };
            let near = near(list, name)
                .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            Err(format!("{of}{what} `{name}`{near}; {has}"))
        }
    }
}

/// The names of the fields of a list, in their order.
pub(crate) fn names(list: List) -> Vec<&'static str> {
    FIELDS.iter().filter(|(.., lists)| lists & bit(list) != 0).map(|(_, name, ..)| *name).collect()
}

/// A name of the list that differs by a letter or two.
fn near(list: List, name: &str) -> Option<&'static str> {
    let by_distance = |known: &'static str| (distance(known, name), known);
    let (distance, known) = names(list).into_iter().map(by_distance).min()?;
    (distance <= 2 && distance < name.chars().count()).then_some(known)
}

/// How many letters must be put, removed or changed to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = before + usize::from(a != *b);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_belongs_to_the_lists_that_have_it() {
        assert!(find(List::Jobs, "state").is_ok() && find(List::Exceptions, "state").is_err());
        let error = find(List::Jobs, "failed").expect_err("of the exception log");
        assert!(
            error.starts_with("a job has no field `failed`; a job has: id, ability"),
            "{error}"
        );
        let error = find(List::Jobs, "abilty").expect_err("misspelt");
        assert!(
            error.starts_with("there is no field `abilty`, did you mean `ability`?"),
            "{error}"
        );
        assert!(!find(List::Jobs, "xyzzy").expect_err("unknown").contains("did you mean"));
        assert!(!find(List::Jobs, "i").expect_err("unknown").contains("did you mean"));
    }

    #[test]
    fn distances_count_letters() {
        for (one, other, letters) in
            [("", "ab", 2), ("due", "due", 0), ("age", "aeg", 2), ("tag", "tags", 1)]
        {
            assert_eq!(distance(one, other), letters);
        }
    }
}
