//! How far running jobs are, as they say it themselves.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;

use crate::driver::{ProgressRecord, ProgressRow};
use crate::tools::sync::Mutex;
use crate::tools::time::utc_now;

/// The longest note that is kept, in bytes.
const MAX_NOTE: usize = 1_000;

/// With fewer, runs that ended are not looked for.
const FEW: usize = 64;

/// How far a job said that it is, with [`Job::progress`](crate::Job::progress).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How much is done, in the job's own unit.
    pub done: u64,
    /// Of how much; `None` where the job does not know it.
    pub total: Option<u64>,
    /// A word for people.
    pub note: Option<String>,
    /// The attempt that said it; 1 is the first.
    pub attempt: u32,
    /// When it said it, by the clock of this machine, or when that was stored, by the clock of the database.
    pub at: DateTime<Utc>,
}

impl Progress {
    /// Which part is done, from 0 to 1; `None` without a total.
    pub fn fraction(&self) -> Option<f64> {
        match self.total? {
            0 => Some(1.0),
            total => Some((self.done as f64 / total as f64).min(1.0)),
        }
    }
}

impl From<ProgressRow> for Progress {
    fn from(row: ProgressRow) -> Self {
        let ProgressRow { attempt, done, total, note, noted_at: at } = row;
        Self { done, total, note, attempt: attempt.unsigned_abs(), at }
    }
}

/// How far one run is. The run writes it as often as it likes; its process stores it now and then.
pub(crate) struct ProgressCell {
    job: JobId,
    claim: i64,
    attempt: i32,
    database: Arc<str>,
    /// When the run began, by the clock that goes on while the machine sleeps.
    begun: Duration,
    noted: Mutex<Noted>,
}

struct Noted {
    done: u64,
    total: Option<u64>,
    note: String,
    at: DateTime<Utc>,
    /// How often it changed, and at which of these changes it was stored.
    changes: u64,
    stored: u64,
}

impl ProgressCell {
    pub(crate) fn new(
        job: JobId,
        (claim, attempt): (i64, i32),
        database: Arc<str>,
        begun: Duration,
    ) -> Self {
        let (note, at) = (String::new(), utc_now());
        let noted = Noted { done: 0, total: None, note, at, changes: 0, stored: 0 };
        Self { job, claim, attempt, database, begun, noted: Mutex::new(noted) }
    }

    pub(crate) fn note(&self, done: u64, total: Option<u64>, note: &str) {
        let end = (0..=note.len().min(MAX_NOTE)).rev().find(|at| note.is_char_boundary(*at));
        let mut noted = self.noted.lock();
        (noted.done, noted.total, noted.at) = (done, total, utc_now());
        noted.note.clear();
        noted.note.push_str(&note[..end.unwrap_or_default()]);
        noted.changes += 1;
    }

    /// What it said last; `None` when it said nothing yet.
    fn now(&self) -> Option<Progress> {
        let noted = self.noted.lock();
        (noted.changes > 0).then(|| Progress {
            done: noted.done,
            total: noted.total,
            note: Some(noted.note.clone()).filter(|note| !note.is_empty()),
            attempt: self.attempt.unsigned_abs(),
            at: noted.at,
        })
    }

    /// What is to be stored, with the number of the change, if it changed since it was stored.
    fn changed(&self) -> Option<(ProgressRecord, u64)> {
        let noted = self.noted.lock();
        let (changes, is_stored) = (noted.changes, noted.stored == noted.changes);
        drop(noted);
        if is_stored {
            return None;
        }
        let Progress { done, total, note, .. } = self.now()?;
        // Not every engine stores a NUL.
        let note = note.map(|note| note.replace('\0', "\u{fffd}"));
        let (job, claim, attempt) = (self.job, self.claim, self.attempt);
        Some((ProgressRecord { job, claim, attempt, done, total, note }, changes))
    }
}

/// The runs of this process that say how far they are.
#[derive(Default)]
pub(crate) struct ProgressBook(Mutex<HashMap<JobId, Weak<ProgressCell>>>);

/// What is to be stored of the runs of one database.
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) records: Vec<ProgressRecord>,
    cells: Vec<(Arc<ProgressCell>, u64)>,
}

impl Changed {
    /// It is stored.
    pub(crate) fn note_stored(self) {
        for (cell, change) in self.cells {
            cell.noted.lock().stored = change;
        }
    }
}

impl ProgressBook {
    /// A run begins to say how far it is.
    pub(crate) fn register(&self, cell: &Arc<ProgressCell>) {
        let mut book = self.0.lock();
        // Where no heartbeat does so.
        if book.len() >= FEW && book.len().is_power_of_two() {
            book.retain(|_, cell| cell.strong_count() > 0);
        }
        // A run that lost its lease may begin to say it after the one that has it.
        let newer = |other: &Weak<ProgressCell>| {
            other.upgrade().is_some_and(|other| other.begun > cell.begun)
        };
        if !book.get(&cell.job).is_some_and(newer) {
            book.insert(cell.job, Arc::downgrade(cell));
        }
    }

    /// How far a job is that runs in this process.
    pub(crate) fn of(&self, job: JobId) -> Option<Progress> {
        let cell = self.0.lock().get(&job)?.upgrade()?;
        cell.now()
    }

    /// What the runs of this database said since it was stored. Forgets those that ended.
    pub(crate) fn changed(&self, database: &str) -> Changed {
        let mut book = self.0.lock();
        book.retain(|_, cell| cell.strong_count() > 0);
        let cells: Vec<_> = book.values().filter_map(Weak::upgrade).collect();
        drop(book);
        let mut all = Changed::default();
        for cell in cells.into_iter().filter(|cell| &*cell.database == database) {
            if let Some((record, change)) = cell.changed() {
                all.records.push(record);
                all.cells.push((cell, change));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_to_be_stored_until_it_is() {
        let (book, job) = (ProgressBook::default(), JobId::new());
        let cell =
            Arc::new(ProgressCell::new(job, (7, 2), Arc::from("one"), Duration::from_secs(9)));
        book.register(&cell);
        assert_eq!(book.of(job), None, "it said nothing yet");
        book.register(&Arc::new(ProgressCell::new(
            job,
            (8, 1),
            Arc::from("one"),
            Duration::from_secs(8),
        )));
        assert!(book.changed("one").records.is_empty(), "nothing was said");
        cell.note(1, Some(4), "a\0b");
        assert!(book.changed("two").records.is_empty(), "of another database");
        let changed = book.changed("one");
        let note = Some("a\u{fffd}b".to_owned());
        let record = ProgressRecord { job, claim: 7, attempt: 2, done: 1, total: Some(4), note };
        assert_eq!(changed.records, [record]);
        assert_eq!(book.changed("one").records.len(), 1, "it may not have been stored");
        // What is said while it is stored is to be stored too.
        cell.note(2, None, "");
        changed.note_stored();
        let changed = book.changed("one");
        assert_eq!((changed.records[0].done, changed.records[0].total), (2, None));
        changed.note_stored();
        assert!(book.changed("one").records.is_empty());
        let now = book.of(job).expect("it runs");
        assert_eq!((now.done, now.total, now.note, now.attempt), (2, None, None, 2));
        drop(cell);
        assert_eq!(book.of(job), None);
        book.changed("one");
        assert!(book.0.lock().is_empty(), "runs that ended are forgotten");
    }

    #[test]
    fn a_long_note_is_cut_at_a_letter_and_a_fraction_is_at_most_one() {
        let cell = ProgressCell::new(JobId::new(), (1, 1), Arc::from("one"), Duration::ZERO);
        cell.note(7, Some(5), &"ä".repeat(1_000));
        let now = cell.now().expect("said");
        assert_eq!(now.note.as_deref().map(str::len), Some(MAX_NOTE));
        assert_eq!(now.fraction(), Some(1.0));
        cell.note(1, Some(4), &format!("a{}", "ä".repeat(1_000)));
        let now = cell.now().expect("said");
        assert_eq!(now.note.as_deref().map(str::len), Some(MAX_NOTE - 1));
        assert_eq!(now.fraction(), Some(0.25));
        cell.note(1, None, "");
        assert_eq!(cell.now().expect("said").fraction(), None);
        cell.note(0, Some(0), "");
        assert_eq!(cell.now().expect("said").fraction(), Some(1.0), "of nothing all is done");
    }
}
