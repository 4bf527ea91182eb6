//! Counts the runs of this process at one database until they are reported to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::Outcome;
use uuid::Uuid;

use crate::driver::{Driver, DriverError, ErrorKind, Name, RunStats, StatRow};
use crate::tools::random::new_id;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// After a report without an answer the next one waits for `FIRST_PAUSE`, and each pause is twice the last, up to `MAX_PAUSE`: each report may leave a connection behind
/// that waits for a lock.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A report that was refused this many times is dropped, so that the next ones are made.
const MAX_REFUSALS: u32 = 5;

/// The runs that ended since the last report. To count a run takes a lock that is nearly always free, and compares two names;
/// nothing is written.
pub(crate) struct Tally {
    /// The id of this tally. Not that of the process: a lane may work a database for which another lane of the process still settles jobs.
    reporter: Uuid,
    counted: Mutex<Counted>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { reporter: new_id(), counted: Mutex::default() }
    }
}

#[derive(Default)]
struct Counted {
    rows: Vec<StatRow>,
    /// The place in `rows` of each queue and ability.
    places: HashMap<(Name, Name), usize>,
    /// The place of the row of the last run, which is mostly the row of the next run too.
    last: usize,
    /// The report that has no answer yet; it may have arrived all the same.
    open: Option<Report>,
    /// The number of the last report.
    number: i64,
    /// How many times the open report was refused.
    refusals: u32,
    /// The pause after the next report without an answer, and the end of the pause after the last one.
    pause: Option<(Duration, Instant)>,
    /// Whether the log has the warning that this account may not report.
    said: bool,
}

/// Numbers of runs for a database, which counts a report of one number once, however often it is made.
#[derive(Clone)]
pub(crate) struct Report {
    reporter: Uuid,
    number: i64,
    rows: Arc<[StatRow]>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is counted.
    Counted,
    /// It is made again later.
    NotYet,
    /// It is dropped, because the database refuses it.
    Dropped,
    /// It is dropped, because this account may not report, and the log does not have that yet.
    Forbidden,
}

impl Tally {
    /// Counts a run.
    pub(crate) fn note(
        &self,
        queue: &Name,
        ability: &Name,
        outcome: &Outcome,
        waited: Duration,
        took: Duration,
    ) {
        let mut counted = self.counted.lock();
        let at = counted.place(queue, ability);
        counted.rows[at].stats.note(outcome, waited, took);
    }

    /// What is to be reported: an earlier report that may not have arrived, as it was, or all that came since, under the next number.
    pub(crate) fn report(&self) -> Option<Report> {
        let mut counted = self.counted.lock();
        if counted.open.is_none() && !counted.rows.is_empty() {
            let mut rows = std::mem::take(&mut counted.rows);
            counted.places.clear();
            // In the order of their keys, so that two processes wait for each other rather than deadlock.
            rows.sort_unstable_by(|one, other| {
                (&one.queue, &one.ability).cmp(&(&other.queue, &other.ability))
            });
            counted.refusals = 0;
            counted.number += 1;
            let (reporter, number) = (self.reporter, counted.number);
            counted.open = Some(Report { reporter, number, rows: rows.into() });
        }
        counted.open.clone()
    }

    /// Whether a report without an answer is too recent for another one.
    pub(crate) fn rests(&self) -> bool {
        self.counted.lock().pause.is_some_and(|(_, until)| Instant::now() < until)
    }

    /// Notes what became of a report.
    pub(crate) fn heard(&self, report: &Report, answer: &Result<(), DriverError>) -> Told {
        let mut counted = self.counted.lock();
        if counted.open.as_ref().is_none_or(|open| open.number != report.number) {
            // Another try was answered before.
            return Told::Counted;
        }
        let told = match answer {
            Ok(()) => Told::Counted,
            Err(error) if error.kind() == ErrorKind::Permission => {
                if std::mem::replace(&mut counted.said, true) {
                    Told::Dropped
                } else {
                    Told::Forbidden
                }
            }
            Err(error) if error.is_down() || error.kind() == ErrorKind::Contention => {
                let pause = counted.pause.map_or(FIRST_PAUSE, |(pause, _)| pause);
                counted.pause = Some(((pause * 2).min(MAX_PAUSE), Instant::now() + pause));
                return Told::NotYet;
            }
            Err(_) => {
                counted.refusals += 1;
                if counted.refusals < MAX_REFUSALS {
                    return Told::NotYet;
                }
                Told::Dropped
            }
        };
        (counted.open, counted.pause) = (None, None);
        told
    }
}

impl Counted {
    fn place(&mut self, queue: &Name, ability: &Name) -> usize {
        let is_it = |row: &StatRow| row.ability == *ability && row.queue == *queue;
        if self.rows.get(self.last).is_some_and(is_it) {
            return self.last;
        }
        let rows = &mut self.rows;
        let key = (queue.clone(), ability.clone());
        self.last = *self.places.entry(key).or_insert_with_key(|(queue, ability)| {
            let none = RunStats::default();
            rows.push(StatRow::new(None, queue.clone(), ability.clone(), none));
            rows.len() - 1
        });
        self.last
    }
}

impl Report {
    /// Reports the numbers to a database.
    pub(crate) fn make(&self, driver: &dyn Driver) -> Result<(), DriverError> {
        driver.add_stats(self.reporter, self.number, &self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(tally: &Tally, queue: &str, ability: &str) {
        let (waited, took) = (Duration::from_millis(3), Duration::from_millis(5));
        tally.note(&queue.into(), &ability.into(), &Outcome::Completed, waited, took);
    }

    fn said(report: &Report) -> Vec<(i64, String, String, u64)> {
        let line = |row: &StatRow| {
            let (queue, ability) = (row.queue.to_string(), row.ability.to_string());
            (report.number, queue, ability, row.stats.completed)
        };
        report.rows.iter().map(line).collect()
    }

    #[test]
    fn runs_are_counted_by_queue_and_ability_and_told_in_the_order_of_their_names() {
        let tally = Tally::default();
        assert!(tally.report().is_none(), "nothing to say");
        for (queue, ability) in [("q", "b"), ("q", "a"), ("q", "b"), ("p", "b"), ("q", "b")] {
            note(&tally, queue, ability);
        }
        let report = tally.report().expect("some");
        let line = |queue: &str, ability: &str, count| (1, queue.into(), ability.into(), count);
        assert_eq!(said(&report), [line("p", "b", 1), line("q", "a", 1), line("q", "b", 3)]);
    }

    #[test]
    fn a_report_whose_answer_was_lost_is_made_again_as_it_was_and_then_what_came_since() {
        let tally = Tally::default();
        note(&tally, "q", "a");
        let first = tally.report().expect("some");
        note(&tally, "q", "a");
        let lost = Err(DriverError::new(ErrorKind::Down, "gone").ambiguous(true));
        assert_eq!(tally.heard(&first, &lost), Told::NotYet);
        assert!(tally.rests(), "not at once");
        let again = tally.report().expect("some");
        assert_eq!(said(&again), said(&first), "the same number");
        assert_eq!(tally.heard(&again, &Ok(())), Told::Counted);
        assert!(!tally.rests());
        let second = tally.report().expect("some");
        assert_eq!(said(&second), [(2, "q".into(), "a".into(), 1)]);
        assert_eq!(tally.heard(&first, &Ok(())), Told::Counted, "a late answer to the first");
        assert!(tally.report().is_some(), "says nothing of the second");
    }

    #[test]
    fn a_report_that_is_refused_again_and_again_is_dropped() {
        let tally = Tally::default();
        note(&tally, "q", "a");
        let report = tally.report().expect("some");
        let refused = Err(DriverError::new(ErrorKind::Other, "out of range"));
        for _ in 1..MAX_REFUSALS {
            assert_eq!(tally.heard(&report, &refused), Told::NotYet);
        }
        assert_eq!(tally.heard(&report, &refused), Told::Dropped);
        assert!(tally.report().is_none());
        for told in [Told::Forbidden, Told::Dropped] {
            note(&tally, "q", "a");
            let report = tally.report().expect("some");
            let refused = Err(DriverError::new(ErrorKind::Permission, "no"));
            assert_eq!(tally.heard(&report, &refused), told, "it is said once");
        }
    }
}
