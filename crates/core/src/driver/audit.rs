use std::fmt;

use qudo_hooks::JobId;

use super::DriverError;

/// A narrow table that holds the id of a live job. A job is in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// At work.
    Leased,
    /// On its way to another database.
    Leaving,
    /// On its way from another database.
    Arriving,
    /// Waiting to be claimed.
    Ready,
    /// Waiting for an instant.
    Scheduled,
}

impl Place {
    /// The word for reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leased => "leased",
            Self::Leaving => "leaving",
            Self::Arriving => "arriving",
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that a database holds under the id of one job, in one view of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// The id.
    pub id: JobId,
    /// Ability and unique key, if the facts are there.
    pub facts: Option<(String, Option<String>)>,
    /// The narrow tables that hold it, in their order.
    pub places: Vec<Place>,
    /// One of them says another queue, priority or ability than the facts.
    pub misfiled: bool,
    /// It is leased by a worker that has no row.
    pub ownerless: bool,
    /// The unique keys that the index gives to it: ability and key. Not told in
    /// [`Audit::traces`].
    pub keys: Vec<(String, String)>,
    /// Who holds the unique key of its facts.
    pub holder: Option<JobId>,
}

impl Traces {
    /// The answer for an id under which there is nothing.
    pub const fn none(id: JobId) -> Self {
        Self {
            id,
            facts: None,
            places: Vec::new(),
            misfiled: false,
            ownerless: false,
            keys: Vec::new(),
            holder: None,
        }
    }

    /// Whether there is a job, or a part of one.
    pub fn is_live(&self) -> bool {
        self.facts.is_some() || !self.places.is_empty()
    }
}

/// How far a look for strays came: the last row that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StrayCursor {
    /// In the order of the claim: queue, rank, id.
    Ready(String, i32, JobId),
    /// By id, in the narrow table of this place.
    Place(Place, JobId),
    /// Ability and unique key.
    Keys(String, String),
}

/// What a look for strays found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strays {
    /// Ids of rows that belong to no facts.
    pub ids: Vec<JobId>,
    /// Where the next look begins; `None` at the end.
    pub next: Option<StrayCursor>,
}

/// A row of the index of unique keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRow {
    /// The ability.
    pub ability: String,
    /// The key.
    pub uniqkey: String,
    /// The job that holds it.
    pub id: JobId,
}

/// Looks into the tables for what must not be there.
///
/// Each answer comes from one view of the data and a bounded number of rows, found by an index, so
/// that a look waits for no other transaction and makes none wait.
pub trait Audit {
    /// Live jobs after this id, in the order of their ids, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn traces(&self, after: JobId, limit: u32) -> Result<Vec<Traces>, DriverError>;

    /// Rows of the narrow tables and of the index of keys that belong to no facts: looks at about
    /// `limit` rows behind the cursor.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn strays(&self, after: Option<&StrayCursor>, limit: u32) -> Result<Strays, DriverError>;

    /// Unique keys after this ability and key, in their order, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn keys(&self, after: Option<(&str, &str)>, limit: u32) -> Result<Vec<KeyRow>, DriverError>;

    /// All that lies under these ids. May read whole tables: meant for few ids.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn trace(&self, ids: &[JobId]) -> Result<Vec<Traces>, DriverError>;

    /// Repairs what lies under this id, after a look under the lock of the facts: a job without a
    /// place becomes ready; of several places one stays; rows that belong to no facts are removed; a
    /// key is taken if it is free. Leaves a row in the exception log. Tells whether it changed
    /// anything.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn mend(&self, id: JobId) -> Result<bool, DriverError>;
}
