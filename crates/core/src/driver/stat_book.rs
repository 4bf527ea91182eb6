use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{StatRow, StatScan};

/// The numbers of runs of one database, for drivers that keep them without SQL: what
/// [`add_stats`](super::Work::add_stats) and [`stats`](super::Inspect::stats) ask for. The driver keeps it with its other data and
/// says what time it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StatBook {
    /// In the order of their time, queue and ability.
    rows: Vec<StatRow>,
    /// The number of the last report of each reporter, and when it came.
    reports: BTreeMap<Uuid, (i64, DateTime<Utc>)>,
}

/// The begin of the span of this many minutes in which `at` lies.
fn begin(at: DateTime<Utc>, minutes: u64) -> DateTime<Utc> {
    let step = i64::try_from(minutes).ok().and_then(TimeDelta::try_minutes);
    step.and_then(|step| at.duration_trunc(step).ok()).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The instant that is `span` before `at`, but not before the year 1970.
fn before(at: DateTime<Utc>, span: Duration) -> DateTime<Utc> {
    let span = TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX);
    at.checked_sub_signed(span).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
}

fn add(rows: &mut Vec<StatRow>, since: Option<DateTime<Utc>>, row: &StatRow) {
    let key = (since, &row.queue, &row.ability);
    match rows.binary_search_by(|one| (one.since, &one.queue, &one.ability).cmp(&key)) {
        Ok(at) => rows[at].stats.add(&row.stats),
        Err(at) => rows.insert(at, StatRow { since, ..row.clone() }),
    }
}

impl StatBook {
    /// Adds to the numbers of this minute and to the sums since the first run, unless this reporter has made a report of this number or a higher one
    /// before.
    pub fn add(&mut self, now: DateTime<Utc>, reporter: Uuid, number: i64, rows: &[StatRow]) {
        if self.reports.get(&reporter).is_some_and(|(last, _)| number <= *last) {
            return;
        }
        self.reports.insert(reporter, (number, now));
        for row in rows {
            add(&mut self.rows, None, row);
            add(&mut self.rows, Some(begin(now, 1)), row);
        }
    }

    /// Reads the numbers of a scan.
    pub fn read(&self, now: DateTime<Utc>, scan: &StatScan) -> Vec<StatRow> {
        let first = scan.last.map(|span| begin(before(now, span), 1));
        let mut sums: Vec<StatRow> = Vec::new();
        for row in &self.rows {
            match (row.since, first) {
                (None, None) => add(&mut sums, None, row),
                (Some(minute), Some(first)) if minute >= first => {
                    let since = scan.step_minutes().map_or(first, |step| begin(minute, step));
                    add(&mut sums, Some(since), row);
                }
                _ => {}
            }
        }
        // The latest, and of one time the first by name.
        sums.sort_by_key(|row| std::cmp::Reverse(row.since));
        sums.truncate(scan.limit as usize);
        sums.sort_by_key(|row| row.since);
        sums
    }

    /// Removes all numbers of a queue; returns how many rows it removed.
    pub fn forget(&mut self, queue: &str) -> usize {
        let before = self.rows.len();
        self.rows.retain(|row| *row.queue != *queue);
        before - self.rows.len()
    }

    /// Removes the rows of minutes that are older than `age`, and the numbers of reports that are older than a day; returns how many rows of minutes.
    pub fn purge(&mut self, now: DateTime<Utc>, age: Duration) -> usize {
        let minutes = self.rows.len();
        let oldest = before(now, age.saturating_add(Duration::from_secs(60)));
        self.rows.retain(|row| row.since.is_none_or(|minute| minute >= oldest));
        let day = before(now, Duration::from_secs(86_400));
        self.reports.retain(|_, (_, at)| *at >= day);
        minutes - self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::RunStats;

    fn row(completed: u64) -> StatRow {
        StatRow::new(None, "q", "a", RunStats { completed, ..RunStats::default() })
    }

    fn read(book: &StatBook, now: DateTime<Utc>, scan: StatScan) -> Vec<(Option<i64>, u64)> {
        let line = |row: &StatRow| (row.since.map(|since| since.timestamp()), row.stats.completed);
        book.read(now, &scan).iter().map(line).collect()
    }

    #[test]
    fn minutes_are_summed_up_and_removed_when_they_are_old_and_the_sum_of_all_never_falls() {
        let (mut book, worker) = (StatBook::default(), Uuid::from_u128(7));
        let at = |second| DateTime::from_timestamp(second, 0).expect("a time");
        for (number, second) in [(1, 61), (2, 119), (3, 130), (4, 400)] {
            book.add(at(second), worker, number, &[row(number.unsigned_abs())]);
            book.add(at(second), worker, number, &[row(100)]);
        }
        let minute = Duration::from_secs(60);
        let now = at(410);
        assert_eq!(read(&book, now, StatScan::ever()), [(None, 10)]);
        assert_eq!(
            read(&book, now, StatScan::last(minute * 6).every(minute)),
            [(Some(60), 3), (Some(120), 3), (Some(360), 4)]
        );
        let three = StatScan::last(minute * 6).every(minute * 3);
        assert_eq!(read(&book, now, three), [(Some(0), 3 + 3), (Some(360), 4)]);
        assert_eq!(read(&book, now, StatScan::last(minute * 2)), [(Some(240), 4)]);
        assert_eq!(book.purge(now, minute * 3), 2);
        assert_eq!(read(&book, now, StatScan::last(minute * 6)), [(Some(0), 4)]);
        assert_eq!(read(&book, now, StatScan::ever()), [(None, 10)]);
    }
}
