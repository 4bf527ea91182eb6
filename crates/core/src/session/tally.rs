//! Counts the runs of this process at one database until they are told to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::Outcome;

use crate::driver::{Driver, DriverError, ErrorKind, Name, RunStats, StatRow, WorkerId};
use crate::tools::sync::Mutex;

/// The runs that ended since the last words about them. Counting a run costs a lock that is free nearly always and a comparison of
/// two names; nothing is written for a run.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    rows: Vec<StatRow>,
    /// Where the rows of each queue and ability are.
    places: HashMap<(Name, Name), usize>,
    /// The row of the last run: as a rule the next one's too.
    last: usize,
    /// Words that may have arrived although no answer came.
    unsaid: Option<Words>,
    /// The number of the last words.
    number: i64,
    /// Whether some were refused.
    refused: bool,
}

/// What is told to a database. Under its number it is counted once, however often it is said.
#[derive(Clone)]
pub(crate) struct Words {
    number: i64,
    rows: Arc<[StatRow]>,
}

/// What became of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// There was nothing to say, or all is counted.
    All,
    /// They are said again later.
    NotYet,
    /// This account may not: they are dropped.
    Refused,
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
        let mut counted = self.0.lock();
        let at = counted.place(queue, ability);
        counted.rows[at].stats.note(outcome, waited, took);
    }

    /// What is to be said: earlier words that may not have arrived, as they were, or all that came since.
    pub(crate) fn words(&self) -> Option<Words> {
        let mut counted = self.0.lock();
        if counted.unsaid.is_none() && !counted.rows.is_empty() {
            let mut rows = std::mem::take(&mut counted.rows);
            counted.places.clear();
            // In the order of their keys, so that two processes wait for each other rather than deadlock.
            rows.sort_unstable_by(|one, other| {
                (&one.queue, &one.ability).cmp(&(&other.queue, &other.ability))
            });
            counted.number += 1;
            counted.unsaid = Some(Words { number: counted.number, rows: rows.into() });
        }
        counted.unsaid.clone()
    }

    /// Notes what became of the words.
    pub(crate) fn heard(&self, answer: &Result<bool, DriverError>) -> Told {
        let told = match answer {
            Ok(true) => Told::All,
            Err(error) if error.kind() == ErrorKind::Permission => Told::Refused,
            // Without its row a process has nothing to compare numbers with: its next heartbeat makes one.
            Ok(false) | Err(_) => return Told::NotYet,
        };
        self.0.lock().unsaid = None;
        told
    }
}

impl Tally {
    /// Whether nobody asked before: it is told once.
    pub(crate) fn is_first_refusal(&self) -> bool {
        !std::mem::replace(&mut self.0.lock().refused, true)
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

impl Words {
    /// Says them to a database.
    pub(crate) fn say(&self, driver: &dyn Driver, worker: WorkerId) -> Result<bool, DriverError> {
        driver.add_stats(worker, self.number, &self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(tally: &Tally, queue: &str, ability: &str) {
        let (waited, took) = (Duration::from_millis(3), Duration::from_millis(5));
        tally.note(&queue.into(), &ability.into(), &Outcome::Completed, waited, took);
    }

    fn said(words: &Words) -> Vec<(i64, String, String, u64)> {
        let line = |row: &StatRow| {
            let (queue, ability) = (row.queue.to_string(), row.ability.to_string());
            (words.number, queue, ability, row.stats.completed)
        };
        words.rows.iter().map(line).collect()
    }

    #[test]
    fn runs_are_counted_by_queue_and_ability_and_told_in_the_order_of_their_names() {
        let tally = Tally::default();
        assert!(tally.words().is_none(), "nothing to say");
        for (queue, ability) in [("q", "b"), ("q", "a"), ("q", "b"), ("p", "b"), ("q", "b")] {
            note(&tally, queue, ability);
        }
        let words = tally.words().expect("some");
        let line = |queue: &str, ability: &str, count| (1, queue.into(), ability.into(), count);
        assert_eq!(said(&words), [line("p", "b", 1), line("q", "a", 1), line("q", "b", 3)]);
    }

    #[test]
    fn words_whose_answer_was_lost_are_said_again_as_they_were_and_then_those_that_came_since() {
        let tally = Tally::default();
        note(&tally, "q", "a");
        let first = said(&tally.words().expect("some"));
        note(&tally, "q", "a");
        let lost = Err(DriverError::new(ErrorKind::Down, "gone").ambiguous(true));
        for answer in [lost, Ok(false)] {
            assert_eq!(tally.heard(&answer), Told::NotYet);
            assert_eq!(said(&tally.words().expect("some")), first, "the same number");
        }
        assert_eq!(tally.heard(&Ok(true)), Told::All);
        assert_eq!(said(&tally.words().expect("some")), [(2, "q".into(), "a".into(), 1)]);
        let refused = Err(DriverError::new(ErrorKind::Permission, "no"));
        assert_eq!(tally.heard(&refused), Told::Refused);
        assert!(tally.words().is_none(), "they are dropped");
    }
}
