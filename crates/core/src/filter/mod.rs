//! The filter language: which rows of a list are meant.

mod condition;
mod error;
mod expr;
mod field;
mod instant;
mod parse;
mod pattern;
mod scan;

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(crate) use condition::Value;
pub use error::FilterError;
use expr::{Expr, Look};
pub(crate) use field::Field;
use field::List;
pub(crate) use scan::quote;

use crate::driver::{Exception, ExceptionId, JobInfo, StatusRow};
use crate::tools::time::utc_now;
use qudo_hooks::{Due, FailureKind, JobId};

/// Which live jobs a list shows or a command changes.
pub type JobFilter = Filter<JobInfo>;
/// Which rows of the exception log.
pub type ExceptionFilter = Filter<Exception>;
/// Which rows of the job status.
pub type StatusFilter = Filter<StatusRow>;

/// A kind of row that can be filtered.
pub trait Filtered: list::OfList {}

impl<R: list::OfList> Filtered for R {}

/// Users name the lists, but make none.
mod list {
    pub trait OfList {
        const LIST: super::List;
    }
}

impl list::OfList for JobInfo {
    const LIST: List = List::Jobs;
}

impl list::OfList for Exception {
    const LIST: List = List::Exceptions;
}

impl list::OfList for StatusRow {
    const LIST: List = List::History;
}

/// Which rows of a list are meant: one language for the API, the command and pages.
///
/// # The language
///
/// A filter is a list of terms; a row is meant if all of them hold, and without terms every row is. A term is a
/// field, an operator and a value without spaces between them: `ability:mail`, `age>10m`.
///
/// * `ability:mail,sms` is met by one of the values; `=` means the same as `:`, and `!=` the opposite. `*` in a value
///   stands for any characters: `queue:gl.*`.
/// * `error~timeout`: the text has this part, in small or capital letters.
/// * `attempt>=3`, `age>10m`, `failed>2026-11-27`: `<`, `<=`, `>`, `>=` for numbers, spans of time (`ms`, `s`, `m`,
///   `h`, `d`, `w`; `1h30m`) and times. A time is a month, a day, a minute, a second or `now`, in UTC unless an
///   offset follows; `failed>2026-11-27` is after the end of that day, `failed:2026-11-27` within it.
/// * `meta.tenant=7`, `arg.user.name:Bob`: names behind dots lead into metadata and into the argument, numbers into lists. `7` is met by
///   the number and by the text, `"7"` by the text only; a list meets what one of its elements does.
/// * `NOT`, `AND`, `OR` and parentheses, in small or capital letters: `NOT` binds most, then `AND`, which may be left out,
///   then `OR`.
/// * A value with spaces, commas, quotes or parentheses stands in quotes, in which `\"` and `\\` are a quote and a
///   backslash, and `*` is an ordinary character: `error~"no space left"`.
///
/// What a row does not have meets no term: `key:*` is a job with a unique key, `NOT key:*` one without.
///
/// # Fields
///
/// | | jobs | exception log | job status | |
/// |---|---|---|---|---|
/// | `id` | yes | yes | yes | of the job |
/// | `exception` | | yes | | of the row |
/// | `ability`, `key`, `db`, `attempt` | yes | yes | yes | `key` is the unique key, `db` the short name of the database |
/// | `queue`, `priority`, `codec`, `tag`, `meta.…`, `arg.…` | yes | yes | | |
/// | `state` | yes | | | `ready`, `scheduled`, `running`, `moving` |
/// | `status` | | | yes | `completed`, `replaced`, `retried`, `failed`, `snoozed`, `cancelled` |
/// | `due` | yes | | | when a scheduled job becomes ready |
/// | `enqueued` | yes | | yes | |
/// | `started`, `finished`, `took` | | | yes | of the run |
/// | `failed` | | yes | | when |
/// | `age` | yes | yes | yes | since the enqueue; since the failure; since the end of the run |
/// | `worker` | yes | yes | | id or name of the process that holds, or held, the job |
/// | `version`, `kind` | | yes | | of its program; [`FailureKind`](qudo_hooks::FailureKind) |
/// | `error` | | yes | yes | `:` is the class of the error in the exception log; `~` looks into the message too |
/// | `discarded`, `redriven` | | yes | | `yes` or `no`: the job left the queue with it; it was enqueued again |
///
/// Arguments are read where their codec is known to the manager and does not [hide](qudo_hooks::Codec::hides) them:
/// a term on an encrypted argument never holds, its `NOT` neither.
///
/// ```
/// use qudo_core::JobFilter;
///
/// let filter: JobFilter = "ability:mail queue:gl.* (state:running OR attempt>=3) NOT tag:eu".parse()?;
/// assert!(filter.to_string().starts_with("ability:mail"));
/// let error = "ability:mail failed>2026-11-27".parse::<JobFilter>().expect_err("jobs have no such time");
/// assert_eq!((error.position(), error.length()), (13, 6));
/// # Ok::<(), qudo_core::FilterError>(())
/// ```
pub struct Filter<R> {
    text: String,
    expr: Expr,
    rows: PhantomData<fn(R)>,
}

impl<R> Clone for Filter<R> {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), expr: self.expr.clone(), rows: PhantomData }
    }
}

/// The text, in which there may be keys and values of arguments that its writer looks for.
impl<R> fmt::Debug for Filter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

/// The text that it was read from.
impl<R> fmt::Display for Filter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// All rows.
impl<R> Default for Filter<R> {
    fn default() -> Self {
        Self { text: String::new(), expr: Expr::And(Vec::new()), rows: PhantomData }
    }
}

impl<R: Filtered> FromStr for Filter<R> {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse_at(text, utc_now())
    }
}

impl<R: Filtered> Filter<R> {
    /// Reads a filter as it was meant at an earlier time.
    pub(crate) fn parse_at(text: &str, now: DateTime<Utc>) -> Result<Self, FilterError> {
        let expr = parse::parse(R::LIST, text, now)?;
        Ok(Self { text: text.to_owned(), expr, rows: PhantomData })
    }
}

impl<R> Filter<R> {
    /// All rows.
    pub fn all() -> Self {
        Self::default()
    }

    /// The rows of this job.
    pub fn job(id: JobId) -> Self {
        Self::of_ids(Field::Id, "id", *id.as_uuid())
    }

    /// The rows of this ability.
    pub fn ability(name: &str) -> Self {
        Self::of_text(Field::Ability, "ability", name)
    }

    /// The rows that both mean.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let text = match (self.text.trim(), other.text.trim()) {
            ("", one) | (one, "") => one.to_owned(),
            (one, other) => format!("({one}) ({other})"),
        };
        Self { text, expr: Expr::And(vec![self.expr, other.expr]), rows: PhantomData }
    }

    /// The short names of the only databases of which a row can be meant; `None` if it says nothing of databases, or
    /// uses `*`.
    pub fn databases(&self) -> Option<Vec<String>> {
        self.only_texts(Field::Db)
    }

    fn of_ids(field: Field, name: &str, id: Uuid) -> Self {
        let condition = condition::Condition::Ids(vec![id]);
        Self::of(field, condition, format!("{name}:{id}"))
    }

    fn of_text(field: Field, name: &str, value: &str) -> Self {
        let pattern = pattern::Pattern::Exact(value.to_owned());
        let condition = condition::Condition::Texts(vec![pattern]);
        Self::of(field, condition, format!("{name}:{}", scan::quote(value)))
    }

    fn of(field: Field, condition: condition::Condition, text: String) -> Self {
        let expr = Expr::Term(expr::Term { field, path: Vec::new(), condition });
        Self { text, expr, rows: PhantomData }
    }

    /// Whether a row is meant; `None` as long as that hangs on an unknown value.
    pub(crate) fn holds(&self, look: Look<'_, '_>) -> Option<bool> {
        self.expr.holds(look)
    }

    /// The texts of which a field must have one for a row to be meant.
    pub(crate) fn only_texts(&self, field: Field) -> Option<Vec<String>> {
        self.expr.only_texts(field)
    }

    /// The ids of which a field must have one for a row to be meant.
    pub(crate) fn only_ids(&self, field: Field) -> Option<Vec<Uuid>> {
        self.expr.only_ids(field)
    }

    /// Whether a field must be yes, or must be no, for a row to be meant.
    pub(crate) fn only_yes_or_no(&self, field: Field) -> Option<bool> {
        self.expr.only_yes_or_no(field)
    }

    /// Whether any part asks for a field.
    pub(crate) fn asks_for(&self, field: Field) -> bool {
        self.expr.asks_for(field)
    }
}

impl Filter<JobInfo> {
    /// The jobs of this queue.
    pub fn queue(name: &str) -> Self {
        Self::of_text(Field::Queue, "queue", name)
    }
}

impl Filter<Exception> {
    /// This row.
    pub fn exception(id: ExceptionId) -> Self {
        Self::of_ids(Field::Exception, "exception", *id.as_uuid())
    }

    /// Whether jobs that were cancelled are meant, which is not so unless it is said: by `kind:cancelled`, alone or among others.
    pub(crate) fn means_cancelled(&self) -> bool {
        let kinds = self.only_texts(Field::Kind);
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == FailureKind::Cancelled.as_str()))
    }

    /// Failures with which jobs left the queue.
    pub fn discarded() -> Self {
        Self::of(Field::Discarded, condition::Condition::YesNo(true), "discarded:yes".to_owned())
    }
}

/// When a job is to run, as people write it: `now`, a span of time such as `10m` or `1h30m`, or a time such as
/// `2026-12-01T10:00`, in UTC unless an offset follows; the begin of what is written, so that `2026-12-01` is midnight. `None` of another text.
///
/// ```
/// use std::time::Duration;
/// use qudo_core::driver::Due;
/// use qudo_core::read_due;
///
/// assert_eq!(read_due("1h30m"), Some(Due::In(Duration::from_secs(5_400))));
/// assert_eq!(read_due("2026-12-01"), Some(Due::At("2026-12-01T00:00:00Z".parse()?)));
/// assert_eq!(read_due("soon"), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_due(text: &str) -> Option<Due> {
    if text.eq_ignore_ascii_case("now") {
        return Some(Due::Now);
    }
    let span = instant::span(text).and_then(|span| span.to_std().ok());
    let at = || instant::instant(text, utc_now()).map(|written| Due::At(written.from));
    span.map(Due::In).or_else(at)
}

/// The fields of a kind of row, for help and completion.
pub fn fields<R: Filtered>() -> Vec<&'static str> {
    field::names(R::LIST)
}

#[cfg(test)]
mod tests;
