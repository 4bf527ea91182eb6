//! News of jobs as they are sent on the channel for them.

use std::fmt::Write as _;

use qudo_core::driver::Tidings;
use qudo_hooks::JobId;
use uuid::Uuid;

/// The payload, on the channel for news, of a process that begins to listen to those who ask.
pub(super) const WORKER: &str = "w";

/// What a payload with the ids of jobs begins with: those that ended, those that told something.
pub(super) const ENDED: char = 'e';
pub(super) const TOLD: char = 't';

/// A payload takes at most 8,000 bytes, and an id 32.
const MAX_IDS: usize = 240;

/// With more, the rest is not told of: those who wait find out by themselves, and a server under such a load is spared.
const MAX_NEWS: usize = 10 * MAX_IDS;

/// The payload that tells of these jobs.
fn payload(kind: char, jobs: &[JobId]) -> String {
    let mut text = String::with_capacity(1 + 32 * jobs.len());
    text.push(kind);
    for job in jobs {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", job.as_uuid().simple());
    }
    text
}

/// The jobs of such a payload.
pub(super) fn jobs_of(ids: &str) -> Vec<JobId> {
    let whole = ids.as_bytes().chunks_exact(32).filter_map(|id| Uuid::try_parse_ascii(id).ok());
    whole.map(JobId::from_uuid).collect()
}

/// What was not sent yet.
#[derive(Default)]
pub(super) struct Untold {
    /// The process began to listen to those who ask.
    is_worker: bool,
    ended: Vec<JobId>,
    told: Vec<JobId>,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.told.is_empty() && !self.is_worker
    }

    pub(super) fn add(&mut self, tidings: Tidings<'_>) {
        let more = |known: &mut Vec<JobId>, jobs: &[JobId]| {
            let room = MAX_NEWS.saturating_sub(known.len());
            known.extend_from_slice(&jobs[..jobs.len().min(room)]);
        };
        match tidings {
            Tidings::Worker => self.is_worker = true,
            Tidings::Ended(jobs) => more(&mut self.ended, jobs),
            Tidings::Told(jobs) => more(&mut self.told, jobs),
            _ => {}
        }
    }

    /// The payloads that tell of all.
    pub(super) fn take(&mut self) -> Vec<String> {
        let Self { is_worker, ended, mut told } = std::mem::take(self);
        told.sort_unstable();
        told.dedup();
        let payloads = |kind, jobs: &[JobId]| -> Vec<String> {
            jobs.chunks(MAX_IDS).map(|jobs| payload(kind, jobs)).collect()
        };
        let worker = is_worker.then(|| WORKER.to_owned());
        let news = worker.into_iter().chain(payloads(ENDED, &ended)).chain(payloads(TOLD, &told));
        news.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written_and_fit_into_a_payload() {
        let jobs: Vec<_> = (0..MAX_IDS).map(|_| JobId::new()).collect();
        let text = payload(ENDED, &jobs);
        assert!(text.len() < 8_000, "{}", text.len());
        assert_eq!(jobs_of(text.strip_prefix(ENDED).expect("of those that ended")), jobs);
        assert_eq!(jobs_of(""), []);
        assert_eq!(jobs_of("not an id"), [], "of a later version");
    }

    #[test]
    fn what_is_too_much_to_tell_is_left_out() {
        let mut untold = Untold::default();
        assert!(untold.is_empty());
        untold.ended = (0..=MAX_IDS).map(|_| JobId::new()).collect();
        untold.told = vec![untold.ended[0]; 3];
        untold.is_worker = true;
        let news = untold.take();
        assert_eq!(news.len(), 4);
        assert_eq!((&*news[0], news[3].len()), (WORKER, 33), "each once");
        assert!(untold.is_empty());
    }
}
