//! Failures by kind: what fails, how often, since when.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use qudo_hooks::{CodecSet, FailureKind};

use super::page::Budget;
use super::row::{Asks, Lens};
use crate::driver::{Driver, DriverError, Exception, ExceptionId, ExceptionScan, Past};
use crate::filter::{ExceptionFilter, Field};

/// So many rows are read at once.
const PIECE: u32 = 2_000;

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
    /// The last one, without its job's argument.
    pub sample: Exception,
}

/// The failures of one database that a filter means, by group.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FailureGroups {
    /// The groups, the most frequent first.
    pub groups: Vec<FailureGroup>,
    /// How many rows were looked at, from the newest on.
    pub searched: u64,
    /// About how many rows the exception log has, if not all of them were looked at.
    pub about: Option<u64>,
    /// How many rows were passed over because they hang on an argument that cannot be read.
    pub unreadable: u64,
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
    let lens = Lens::new(database, codecs, &[], asks);
    let mut groups: HashMap<Key, FailureGroup> = HashMap::new();
    let mut answer = FailureGroups::default();
    let mut before: Option<ExceptionId> = None;
    let ids = filter.only_ids(Field::Exception);
    let longest = if asks.arg { PIECE / 10 } else { PIECE };
    while !budget.is_spent(answer.searched) {
        let piece = budget.next(answer.searched, longest).min(longest);
        let scan = ExceptionScan { before, arguments: asks.arg, ..ExceptionScan::all(piece) };
        let rows = driver.scan_exceptions(&scan)?;
        let ends = rows.len() < piece as usize;
        before = rows.last().map(|row| row.id).or(before);
        for row in rows {
            answer.searched += 1;
            if ids.as_ref().is_some_and(|ids| !ids.contains(row.id.as_uuid())) {
                continue;
            }
            match lens.exception(filter, &row) {
                Some(true) => add(&mut groups, row),
                Some(false) => {}
                None => answer.unreadable += 1,
            }
        }
        if ends {
            answer.groups = sorted(groups);
            return Ok(answer);
        }
    }
    answer.groups = sorted(groups);
    let about = driver.count_past(Past::Exceptions, ABOUT)?.count;
    answer.about = Some(about).filter(|about| *about > answer.searched);
    Ok(answer)
}

fn add(groups: &mut HashMap<Key, FailureGroup>, mut row: Exception) {
    let key = (row.facts.ability.to_string(), row.kind, row.class.clone(), row.version.clone());
    let open = u64::from(row.discarded && row.redriven_as.is_none());
    let (failed_at, ability) = (row.failed_at, key.0.clone());
    let group = groups.entry(key).or_insert_with(|| {
        row.facts.arg = Vec::new();
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
}

fn sorted(groups: HashMap<Key, FailureGroup>) -> Vec<FailureGroup> {
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by(|one, other| {
        (other.count, other.last, &one.ability).cmp(&(one.count, one.last, &other.ability))
    });
    groups
}
