//! Verbs over the jobs or failures that a filter means: previewed, carried out in slices, gone on with after a crash.

mod pace;
mod preview;
mod run;
mod slice;
mod verb;

use std::fmt;

use chrono::{DateTime, Utc};

pub use preview::Preview;
pub(crate) use preview::preview;
pub use run::{OperationReport, PartReport};
pub(crate) use run::{find, list, operate};
pub use slice::{Slice, Treated};
pub use verb::{UnknownVerb, Verb};

use crate::driver::{OperationId, OperationRecord};
use crate::error::Error;
use crate::filter::{ExceptionFilter, FilterError, JobFilter};
use crate::tools::time::utc_now;

#[cfg(test)]
mod tests;

/// What is done, and to what.
#[derive(Debug, Clone)]
enum What {
    Jobs(Verb, JobFilter),
    Redrive(ExceptionFilter),
}

/// A verb over the jobs, or over the failures, that a filter means; [`Manager::operate`](crate::Manager::operate) carries it out.
///
/// ```
/// use std::ops::ControlFlow;
/// use qudo_core::{Manager, NewJob, Operation, Verb};
///
/// let manager = Manager::builder().linked(false).database("memory:operated on").build()?;
/// for tenant in [7, 8, 7] {
///     manager.enqueue(NewJob::named("mail", "ada@example.org".into()).meta("tenant", tenant))?;
/// }
/// let operation = Operation::on("meta.tenant=7".parse()?, Verb::Delete).reason("tenant 7 left");
/// let preview = manager.preview(&operation, 10)?.remove(0).answer?;
/// assert_eq!((preview.count, preview.jobs.len()), (2, 2));
/// let report = manager.operate(&operation, |_slice| ControlFlow::Continue(()))?;
/// assert_eq!((report.counts().done, report.is_done()), (2, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Operation {
    id: OperationId,
    what: What,
    operator: Option<String>,
    reason: String,
    at_most: Option<u64>,
    rate: Option<u32>,
    asked_at: DateTime<Utc>,
    /// Rows of it may be stored.
    is_known: bool,
}

/// The verb of a redrive, as it is stored.
const REDRIVE: &str = "redrive";

/// Jobs each second, unless the operator says another rate.
const RATE: u32 = 1_000;

/// Longer reasons and names of operators are cut.
const MAX_TEXT: usize = 1_000;

impl Operation {
    /// Does this to live jobs.
    pub fn on(filter: JobFilter, verb: Verb) -> Self {
        let now = utc_now();
        Self::new(What::Jobs(verb.from(now), filter), now)
    }

    /// Redrive: enqueues discarded jobs again, each once; see [`Manager::redrive`](crate::Manager::redrive). Of jobs that were cancelled, it enqueues
    /// only those that the filter asks for by `kind`.
    pub fn redrive(filter: ExceptionFilter) -> Self {
        Self::new(What::Redrive(filter), utc_now())
    }

    fn new(what: What, asked_at: DateTime<Utc>) -> Self {
        Self {
            id: OperationId::new(),
            what,
            operator: None,
            reason: String::new(),
            at_most: None,
            rate: Some(RATE),
            asked_at,
            is_known: false,
        }
    }

    /// Why, for the record; a cancel needs a reason, which clients are told. Default: empty.
    #[must_use]
    pub fn reason(self, reason: &str) -> Self {
        Self { reason: tidy(reason), ..self }
    }

    /// Who, for the record. Default: the name of this process.
    #[must_use]
    pub fn operator(self, name: &str) -> Self {
        Self { operator: Some(tidy(name)), ..self }
    }

    /// Ends after this number of jobs of all databases together was done. Default: all.
    #[must_use]
    pub fn limit(self, jobs: u64) -> Self {
        Self { at_most: Some(jobs), ..self }
    }

    /// At most this number of jobs each second, of all databases together; `None` sets no limit. Default: 1,000.
    #[must_use]
    pub fn rate(self, jobs_each_second: Option<u32>) -> Self {
        Self { rate: jobs_each_second.map(|rate| rate.max(1)), ..self }
    }

    /// Its id, by which it can be gone on with: [`Manager::find_operation`](crate::Manager::find_operation).
    pub const fn id(&self) -> OperationId {
        self.id
    }

    fn verb(&self) -> String {
        match &self.what {
            What::Jobs(verb, _) => verb.to_string(),
            What::Redrive(_) => REDRIVE.to_owned(),
        }
    }

    /// As it is stored.
    fn record(&self, process: &str) -> OperationRecord {
        OperationRecord {
            id: self.id,
            verb: self.verb(),
            filter: match &self.what {
                What::Jobs(_, filter) => filter.to_string(),
                What::Redrive(filter) => filter.to_string(),
            },
            operator: self.operator.clone().unwrap_or_else(|| process.to_owned()),
            reason: self.reason.clone(),
            at_most: self.at_most,
            asked_at: self.asked_at,
        }
    }

    /// As it was stored: spans of time in its filter count from when it was asked for.
    fn from_record(record: OperationRecord) -> Result<Self, Error> {
        let (id, now) = (record.id, record.asked_at);
        let unreadable = |reason: String| Error::UnreadableOperation { operation: id, reason };
        let of_filter = |error: FilterError| unreadable(error.to_string());
        let what = if record.verb == REDRIVE {
            What::Redrive(ExceptionFilter::parse_at(&record.filter, now).map_err(of_filter)?)
        } else {
            let verb = record.verb.parse();
            let verb = verb.map_err(|error: UnknownVerb| unreadable(error.to_string()))?;
            What::Jobs(verb, JobFilter::parse_at(&record.filter, now).map_err(of_filter)?)
        };
        Ok(Self {
            id,
            what,
            operator: Some(record.operator),
            reason: record.reason,
            at_most: record.at_most,
            rate: Some(RATE),
            asked_at: now,
            is_known: true,
        })
    }

    /// Whether it can be asked for.
    fn check(&self) -> Result<(), Error> {
        match &self.what {
            What::Jobs(verb @ (Verb::Cancel | Verb::CancelByForce), _) => {
                super::orders::check_reason(&self.reason)?;
                verb.check()
            }
            What::Jobs(verb, _) => verb.check(),
            What::Redrive(_) => Ok(()),
        }
    }
}

/// The verb, and the text of the filter.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.what {
            What::Jobs(_, filter) => filter.to_string(),
            What::Redrive(filter) => filter.to_string(),
        };
        let of = if text.is_empty() { "all" } else { &text };
        write!(f, "{} {of}", self.verb())
    }
}

fn tidy(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).take(MAX_TEXT).collect()
}
