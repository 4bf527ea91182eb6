//! Whether the tables are what they should be: every live job in exactly one place, in one database,
//! with its facts and its key.
//!
//! The [history](crate::Observer) shows which jobs ran, but not which rows lie forgotten in a
//! table. [`Manager::audit`](crate::Manager::audit) looks for such rows.

mod judge;
mod merge;
mod run;

#[cfg(test)]
pub(crate) use judge::flaws;
pub(crate) use run::run;

use std::fmt;

use qudo_hooks::JobId;

use crate::driver::Place;
use crate::error::Error;

/// What an audit looks for and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AuditOptions {
    /// Repairs what can be repaired; see [`Audit::mend`](crate::driver::Audit::mend). Default: no.
    pub repair: bool,
    /// Whether a unique key may live in two databases, as
    /// [`UniqPolicy::Available`](crate::UniqPolicy) allows. Default: no.
    pub keys_may_double: bool,
}

impl AuditOptions {
    /// Repairs what can be repaired.
    #[must_use]
    pub fn repair(mut self, yes: bool) -> Self {
        self.repair = yes;
        self
    }

    /// Allows a unique key to live in two databases.
    #[must_use]
    pub fn keys_may_double(mut self, yes: bool) -> Self {
        self.keys_may_double = yes;
        self
    }
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Flaw {
    /// Facts without a place: nobody will ever run the job.
    NoPlace,
    /// Places without facts: nobody can run the job.
    NoFacts(Vec<Place>),
    /// The job is in several narrow tables at once.
    ManyPlaces(Vec<Place>),
    /// A narrow table says another queue, priority or ability than the facts.
    Misfiled,
    /// The job is leased by a worker that has no row. A rescue takes it back within seconds.
    NoWorker,
    /// The index gives a unique key to a job that does not have it.
    KeyWithoutJob {
        /// The ability.
        ability: String,
        /// The key.
        uniqkey: String,
    },
    /// The job has a unique key that the index does not give to it.
    JobWithoutKey {
        /// Who holds it instead.
        holder: Option<JobId>,
    },
    /// The job lives in two databases, and is not on its way from one to the other.
    TwoDatabases,
    /// The unique key lives in two databases.
    KeyInTwoDatabases {
        /// The ability.
        ability: String,
        /// The key.
        uniqkey: String,
    },
}

impl Flaw {
    /// The word for reports that programs read.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoPlace => "no_place",
            Self::NoFacts(_) => "no_facts",
            Self::ManyPlaces(_) => "many_places",
            Self::Misfiled => "misfiled",
            Self::NoWorker => "no_worker",
            Self::KeyWithoutJob { .. } => "key_without_job",
            Self::JobWithoutKey { .. } => "job_without_key",
            Self::TwoDatabases => "two_databases",
            Self::KeyInTwoDatabases { .. } => "key_in_two_databases",
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |places: &[Place]| {
            places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        };
        match self {
            Self::NoPlace => f.write_str("has facts and is in no other table: nobody will run it"),
            Self::NoFacts(places) => write!(f, "is {} and has no facts", list(places)),
            Self::ManyPlaces(places) => write!(f, "is {} at once", list(places)),
            Self::Misfiled => f.write_str("stands under another queue, priority or ability"),
            Self::NoWorker => f.write_str("is leased by a worker that has no row"),
            Self::KeyWithoutJob { ability, uniqkey } => {
                write!(f, "is said to hold the key {uniqkey:?} of {ability:?} and does not")
            }
            Self::JobWithoutKey { holder: None } => f.write_str("does not hold its unique key"),
            Self::JobWithoutKey { holder: Some(other) } => {
                write!(f, "has a unique key that the job {other} holds")
            }
            Self::TwoDatabases => f.write_str("lives in two databases"),
            Self::KeyInTwoDatabases { ability, uniqkey } => {
                write!(f, "holds the key {uniqkey:?} of {ability:?} in two databases")
            }
        }
    }
}

/// One thing that an audit found and a second look confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The short names of the databases, two where the flaw is between them.
    pub databases: Vec<String>,
    /// The job.
    pub job: JobId,
    /// What is wrong.
    pub flaw: Flaw,
    /// Whether it was put right.
    pub repaired: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.databases.iter().map(|name| format!("{name:?}")).collect();
        write!(f, "database {}: job {} {}", names.join(" and "), self.job, self.flaw)?;
        if self.repaired { f.write_str("; repaired") } else { Ok(()) }
    }
}

/// What [`Manager::audit`](crate::Manager::audit) tells.
#[derive(Debug)]
#[non_exhaustive]
pub struct AuditReport {
    /// How many live jobs were looked at.
    pub jobs: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Databases that could not be looked at to the end, with the reason.
    pub failures: Vec<(String, Error)>,
}

impl AuditReport {
    /// Whether everything was checked, and nothing is wrong or everything wrong was repaired.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.findings.iter().all(|finding| finding.repaired)
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        for (database, error) in &self.failures {
            writeln!(f, "database {database:?}: {}", crate::tools::causes::with_causes(error))?;
        }
        write!(f, "{} live jobs, {} findings", self.jobs, self.findings.len())
    }
}
