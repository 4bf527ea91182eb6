use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use qudo_core::driver::{Due, Settled, Verdict};
use qudo_core::{Event, Observer};
use qudo_hooks::JobId;

use crate::event::{Answer, Line, Step, micros};

/// Writes the steps of a manager's jobs to a file, one JSON object a line.
///
/// Share it in an `Arc` to call [`replied`](Recorder::replied) beside the manager.
///
/// Each line is handed to the system at once, so that a process that is killed leaves all it did.
/// A file that cannot be written to any more is a broken proof: the recorder panics in the thread
/// that observed, and the manager logs it.
///
/// ```
/// use qudo_core::Manager;
/// use qudo_history::Recorder;
///
/// let place = tempfile::tempdir()?;
/// let manager = Manager::builder()
///     .database("memory:recorded")
///     .observer(Recorder::create(place.path().join("client.jsonl"))?)
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Recorder {
    file: Mutex<File>,
}

impl Recorder {
    /// Records into a new file, or after the lines of an old one.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Notes that a client read a reply that says which run wrote it.
    ///
    /// # Panics
    ///
    /// When the file cannot be written to.
    pub fn replied(&self, job: JobId, attempt: i32) {
        self.write(&[Step::Replied { job: job.to_string(), attempt }]);
    }

    fn write(&self, steps: &[Step]) {
        let at = micros(SystemTime::now());
        let mut text = Vec::new();
        for step in steps {
            let line = Line { at, step: step.clone() };
            serde_json::to_writer(&mut text, &line).expect("a line has no keys but text");
            text.push(b'\n');
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text).expect("the history is written");
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &Event<'_>) {
        if let Some(step) = step(event) {
            self.write(&[step]);
        }
    }
}

fn step(event: &Event<'_>) -> Option<Step> {
    Some(match event {
        Event::Enqueued { job, database, doubtful, key_may_double, begun, .. } => Step::Enqueued {
            job: job.id.to_string(),
            database: (*database).to_owned(),
            queue: job.facts.queue.to_string(),
            ability: job.facts.ability.to_string(),
            key: job.facts.uniqkey.clone(),
            key_may_double: *key_may_double,
            priority: job.facts.priority,
            delayed: job.due != Due::Now,
            doubtful: doubtful.iter().map(|one| (*one).to_owned()).collect(),
            begun: micros(*begun),
        },
        Event::Uncertain { job, .. } => Step::Uncertain { job: job.to_string() },
        Event::Dropped { job, .. } => Step::Dropped { job: job.to_string() },
        Event::Claimed { worker, database, queue, jobs, begun, .. } => Step::Claimed {
            worker: worker.to_string(),
            database: (*database).to_owned(),
            queue: (*queue).to_owned(),
            jobs: jobs.iter().map(|job| (job.id.to_string(), job.facts.priority)).collect(),
            begun: micros(*begun),
        },
        Event::Started { worker, database, job, .. } => Step::Started {
            worker: worker.to_string(),
            database: (*database).to_owned(),
            job: job.id.to_string(),
            attempt: job.attempt,
        },
        Event::Finished { worker, database, job, attempt, outcome, .. } => Step::Finished {
            worker: worker.to_string(),
            database: (*database).to_owned(),
            job: job.to_string(),
            attempt: *attempt,
            outcome: (*outcome).to_owned(),
        },
        Event::Settled { worker, database, job, attempt, verdict, answer, .. } => Step::Settled {
            worker: worker.to_string(),
            database: (*database).to_owned(),
            job: job.to_string(),
            attempt: *attempt,
            last: matches!(verdict, Verdict::Complete | Verdict::Discard),
            given_back: *verdict == Verdict::GiveBack,
            answer: match answer {
                Some(Settled::Done | Settled::DoneWithout(_)) => Answer::Done,
                Some(Settled::LeaseLost) => Answer::LeaseLost,
                None => Answer::Unknown,
            },
        },
        _ => return None,
    })
}
