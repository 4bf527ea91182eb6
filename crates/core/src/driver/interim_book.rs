//! What jobs told while they ran, for drivers that keep their tables in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};

use super::{News, ProgressRecord, ProgressRow, ReplyRow, Sending, SentLast, SentRecord, SentRow};

/// What jobs sent, and how far they said that they were. Whether a lease is held is its driver's to know.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InterimBook {
    sent: BTreeMap<JobId, Vec<SentRow>>,
    progress: BTreeMap<JobId, ProgressRow>,
}

impl InterimBook {
    /// Stores what the job sends, unless it is there.
    pub fn send(&mut self, now: DateTime<Utc>, job: JobId, sent: &SentRecord) -> Sending {
        let (codec, body) = (sent.value.codec.to_string(), sent.value.body.clone());
        let (number, attempt, value) = (sent.number, sent.attempt, ReplyRow { codec, body });
        let rows = self.sent.entry(job).or_default();
        match rows.binary_search_by_key(&number, |row| row.number) {
            Err(at) => rows.insert(at, SentRow { number, attempt, sent_at: now, value }),
            Ok(at) if (rows[at].attempt, &rows[at].value) != (attempt, &value) => {
                return Sending::NumberTaken;
            }
            Ok(_) => {}
        }
        Sending::Stored
    }

    /// Stores how far a job is.
    pub fn note(&mut self, now: DateTime<Utc>, record: &ProgressRecord) {
        let ProgressRecord { job, attempt, done, total, note, .. } = record.clone();
        self.progress.insert(job, ProgressRow { attempt, done, total, note, noted_at: now });
    }

    /// What a job sent, from this number on.
    pub fn sent(&self, job: JobId, from: i32, limit: u32) -> Vec<SentRow> {
        let rows = self.sent.get(&job).into_iter().flatten();
        rows.filter(|row| row.number >= from).take(limit as usize).cloned().collect()
    }

    /// How far a job said that it was.
    pub fn progress(&self, job: JobId) -> Option<ProgressRow> {
        self.progress.get(&job).cloned()
    }

    /// What is new of these jobs.
    pub fn news(&self, jobs: &[JobId]) -> Vec<News> {
        let last = |row: &SentRow| SentLast { attempt: row.attempt, number: row.number };
        let last = |job| self.sent.get(job).and_then(|rows| rows.last()).map(last);
        let noted = |job| self.progress.get(job).map(|row| row.noted_at);
        jobs.iter().map(|job| News { job: *job, sent: last(job), noted_at: noted(job) }).collect()
    }

    /// Removes what is older than this, but for what live jobs sent, and the progress of jobs that run; returns how many rows.
    pub fn purge(
        &mut self,
        now: DateTime<Utc>,
        age: Duration,
        lives: impl Fn(JobId) -> bool,
        runs: impl Fn(JobId) -> bool,
    ) -> usize {
        let rows =
            |book: &Self| book.sent.values().map(Vec::len).sum::<usize>() + book.progress.len();
        let before = rows(self);
        self.sent.retain(|job, rows| {
            rows.retain(|row| row.sent_at + age >= now || lives(*job));
            !rows.is_empty()
        });
        self.progress.retain(|job, row| row.noted_at + age >= now || runs(*job));
        before - rows(self)
    }
}
