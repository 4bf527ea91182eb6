use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of one job: a `UUIDv7` made by the client.
///
/// Ids are unique over all databases, sort by the time they were made and are
/// known before the insert, so repeating an insert is harmless.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// Makes a fresh id; ids made one after another in a process sort in that order.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default id would be a surprise: each is new")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Wraps a UUID that was read from a database or handed over by a client.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id as a UUID.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|_| ParseJobIdError(text.to_owned()))
    }
}

/// A text that is no job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a job id: expected a UUID such as 01914f6e-7b2a-7c3d-9e4f-5a6b7c8d9e0f")]
pub struct ParseJobIdError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_they_were_made() {
        let ids: Vec<_> = (0..10_000).map(|_| JobId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn an_id_survives_its_own_text_and_other_text_is_refused_by_name() {
        let id = JobId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        let error = "cat.jpg".parse::<JobId>().expect_err("not a uuid");
        assert!(error.to_string().contains("cat.jpg"));
    }
}
