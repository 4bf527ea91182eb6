//! Failures by kind: what fails, how often, since when.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use qudo_hooks::{CodecSet, FailureKind};

use super::page::Budget;
use super::past::{self, Range};
use super::row::{Asks, Lens};
use crate::driver::{Driver, DriverError, Exception, ExceptionId, ExceptionScan, Past};
use crate::filter::{ExceptionFilter, quote};

/// So many rows are read at once.
const PIECE: u32 = 2_000;

/// More groups tell nobody anything.
const MAX_GROUPS: usize = 10_000;

/// So many characters of a sample's message are kept.
const SAMPLE: usize = 2_000;

/// The count that is told where a search was not ended goes up to this.
const ABOUT: u64 = 5_000_000;

/// Failures of one ability, for one reason, of one version of a program.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailureGroup {
    /// The kind of work.
    pub ability: String,
    /// Why attempts failed.
    pub kind: FailureKind,
    /// The class of the error, as far as there is one.
    pub class: Option<String>,
    /// The version of the program in which they failed, if it says.
    pub version: Option<String>,
    /// How many attempts failed.
    pub count: u64,
    /// How many of them were the last of their jobs, which were not enqueued again: so many jobs a redrive is for.
    pub open: u64,
    /// When the first one was.
    pub first: DateTime<Utc>,
    /// When the last one was.
    pub last: DateTime<Utc>,
    /// The last one, without its job's argument and with the first 2,000 characters of its message.
    pub sample: Exception,
}

impl FailureGroup {
    /// A filter that means the failures of this ability, kind, class and version, in all databases: to list them, or for a redrive. With
    /// [`and`](crate::Filter::and) it can be joined with the filter that the groups were asked for with.
    ///
    /// ```
    /// use qudo_core::{Ability, ExceptionFilter, Job, JobError, JobResult, Manager, Operation};
    ///
    /// struct Mail;
    /// impl Ability for Mail {
    ///     const NAME: &'static str = "mail";
    ///     type Arg = u32;
    ///     type Reply = ();
    ///     fn work(_: &Job, user: u32) -> JobResult<()> {
    ///         Err(JobError::fail(format!("no user {user}")))
    ///     }
    /// }
    /// let manager = Manager::builder().linked(false).ability::<Mail>().database("memory:grouped").build()?;
    /// manager.enqueue(Mail::job(17))?;
    /// manager.work_once()?;
    /// let group = manager.failures(&ExceptionFilter::all(), 100).remove(0).answer?.groups.remove(0);
    /// let again = Operation::redrive(group.filter());
    /// assert_eq!(manager.preview(&again, 1)?.remove(0).answer?.count, 1);
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn filter(&self) -> ExceptionFilter {
        let term = |name: &str, value: Option<&str>| match value {
            Some(value) => format!("{name}:{}", quote(value)),
            None => format!("NOT {name}:*"),
        };
        let mut terms = vec![
            term("ability", Some(&self.ability)),
            format!("kind:{}", self.kind.as_str()),
            term("version", self.version.as_deref()),
        ];
        // The text of an error is never absent: without a class its kind says what there is to say.
        terms.extend(self.class.as_deref().map(|class| term("error", Some(class))));
        // Of quoted values a filter can always be made.
        terms.join(" ").parse().unwrap_or_else(|_| ExceptionFilter::exception(self.sample.id))
    }
}

/// The failures of one database that a filter means, by group.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FailureGroups {
    /// The groups, the most frequent first.
    pub groups: Vec<FailureGroup>,
    /// How many rows were looked at, from the newest on.
    pub searched: u64,
    /// Whether the search ended before the list did.
    pub more: bool,
    /// About how many rows the exception log has then, as far as they can be counted.
    pub about: Option<u64>,
    /// How many rows were passed over because they hang on an argument that cannot be read.
    pub unreadable: u64,
    /// How many rows are meant and in none of the groups, because there would be more than 10,000 groups.
    pub ungrouped: u64,
}

type Key = (String, FailureKind, Option<String>, Option<String>);

/// Groups what a filter means among the newest rows.
pub(super) fn group(
    driver: &dyn Driver,
    database: &str,
    codecs: &CodecSet,
    filter: &ExceptionFilter,
    budget: &Budget,
) -> Result<FailureGroups, DriverError> {
    let asks = Asks::of(filter);
    let by_kind = filter.means_cancelled();
    let lens = Lens::new(database, codecs, &[], asks, None);
    let mut groups: HashMap<Key, FailureGroup> = HashMap::new();
    let mut answer = FailureGroups::default();
    let longest = if asks.arg { PIECE / 10 } else { PIECE };
    let mut is_ended = true;
    for range in past::ranges(filter).unwrap_or_else(|| vec![Range::All]) {
        let mut before: Option<ExceptionId> = None;
        loop {
            if budget.is_spent(answer.searched) {
                is_ended = false;
                break;
            }
            let piece = budget.next(answer.searched, longest).min(longest);
            let all = ExceptionScan { before, arguments: asks.arg, ..ExceptionScan::all(piece) };
            let rows = driver.scan_exceptions(&past::of_range(filter, range, all))?;
            let ends = rows.len() < piece as usize;
            before = rows.last().map(|row| row.id).or(before);
            for row in rows {
                answer.searched += 1;
                // A cancel is no failure, unless it is asked for.
                if row.kind == FailureKind::Cancelled && !by_kind {
                    continue;
                }
                match lens.exception(filter, &row) {
                    Some(true) if !add(&mut groups, row) => answer.ungrouped += 1,
                    Some(_) => {}
                    None => answer.unreadable += 1,
                }
            }
            if ends {
                break;
            }
        }
    }
    answer.groups = sorted(groups);
    if !is_ended {
        // What was found is told also if the count is not.
        let about = driver.count_past(Past::Exceptions, ABOUT).ok();
        answer.more = about.is_none_or(|about| about.more || about.count > answer.searched);
        answer.about = about.map(|about| about.count).filter(|_| answer.more);
    }
    Ok(answer)
}

/// Adds a failure to its group; not if that were one group too many.
fn add(groups: &mut HashMap<Key, FailureGroup>, mut row: Exception) -> bool {
    let key = (row.facts.ability.to_string(), row.kind, row.class.clone(), row.version.clone());
    if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
        return false;
    }
    let open = u64::from(row.discarded && row.redriven_as.is_none());
    let (failed_at, ability) = (row.failed_at, key.0.clone());
    let group = groups.entry(key).or_insert_with(|| {
        row.facts.arg = Vec::new();
        if let Some((at, _)) = row.message.char_indices().nth(SAMPLE) {
            row.message.truncate(at);
        }
        FailureGroup {
            ability,
            kind: row.kind,
            class: row.class.clone(),
            version: row.version.clone(),
            count: 0,
            open: 0,
            first: failed_at,
            last: failed_at,
            sample: row,
        }
    });
    group.count += 1;
    group.open += open;
    group.first = group.first.min(failed_at);
    group.last = group.last.max(failed_at);
    true
}

fn sorted(groups: HashMap<Key, FailureGroup>) -> Vec<FailureGroup> {
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|one, other| {
        (other.count, other.last, &one.ability).cmp(&(one.count, one.last, &other.ability))
    });
    groups
}
