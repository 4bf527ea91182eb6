use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};
use qudo_hooks::Due;

use crate::backoff::MAX_DELAY;
use crate::driver::{Act, JobInfo, JobState, Name};
use crate::error::Error;
use crate::names::check_name;

/// What an [`Operation`](super::Operation) does to live jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verb {
    /// Jobs that wait for their next attempt are ready now.
    Retry,
    /// Jobs that wait run then, whether they were ready or scheduled.
    Reschedule(Due),
    /// Jobs that wait have this priority.
    Prioritize(i32),
    /// Jobs that wait go to this queue.
    MoveToQueue(String),
    /// Jobs that wait go to the database of this name; see [`move_jobs`](crate::Manager::move_jobs).
    MoveToDatabase(String),
    /// Jobs end as cancelled; see [`cancel`](crate::Manager::cancel).
    Cancel,
    /// The same, without waiting for the workers of those that run; see
    /// [`cancel_by_force`](crate::Manager::cancel_by_force).
    CancelByForce,
    /// Jobs that wait are removed, and nothing is kept of them but that they were; see [`dequeue`](crate::Manager::dequeue).
    Delete,
}

impl Verb {
    /// The same with an instant instead of a delay, so that it means the same whenever it is gone on with.
    pub(super) fn from(self, now: DateTime<Utc>) -> Self {
        match self {
            Self::Reschedule(Due::In(delay)) => {
                // A year is far from the end of time.
                Self::Reschedule(Due::At(now + delay.min(MAX_DELAY)))
            }
            // Ranks are priorities with the other sign, and the least number has no opposite.
            Self::Prioritize(priority) => Self::Prioritize(priority.max(-i32::MAX)),
            other => other,
        }
    }

    /// Whether it can be asked for.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            Self::MoveToQueue(name) => check_name("queue", name),
            _ => Ok(()),
        }
    }

    /// Whether there is something to do about a job. One that is as it should be is passed over, so that none is met
    /// twice when it moves on in the order in which jobs are gone through.
    pub(super) fn concerns(&self, job: &JobInfo) -> bool {
        match (self, &job.state) {
            (Self::Retry, JobState::Scheduled { .. }) => job.attempt > 0,
            (Self::Retry, _) | (Self::Reschedule(Due::Now), JobState::Ready) => false,
            (Self::Reschedule(Due::At(at)), JobState::Scheduled { run_after }) => {
                at.timestamp_micros() != run_after.timestamp_micros()
            }
            (Self::Prioritize(priority), _) => job.facts.priority != *priority,
            (Self::MoveToQueue(queue), _) => *job.facts.queue != **queue,
            _ => true,
        }
    }

    /// What a database is told to do; `None` where two of them have a part in it.
    pub(super) fn act(&self, reason: &str) -> Option<Act> {
        let cancel = |by_force| Act::Cancel { reason: reason.to_owned(), by_force };
        Some(match self {
            Self::Retry => Act::Reschedule(Due::Now),
            Self::Reschedule(due) => Act::Reschedule(*due),
            Self::Prioritize(priority) => Act::Prioritize(*priority),
            Self::MoveToQueue(queue) => Act::Requeue(Name::from(&**queue)),
            Self::MoveToDatabase(_) => return None,
            Self::Cancel => cancel(false),
            Self::CancelByForce => cancel(true),
            Self::Delete => Act::Remove(Some(crate::driver::Ending::Removed)),
        })
    }
}

/// As it is stored, and read back.
impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry => f.write_str("retry"),
            Self::Reschedule(Due::At(at)) => {
                write!(f, "reschedule {}", at.to_rfc3339_opts(SecondsFormat::Micros, true))
            }
            Self::Reschedule(Due::In(delay)) => write!(f, "reschedule in {delay:?}"),
            Self::Reschedule(_) => f.write_str("reschedule now"),
            Self::Prioritize(priority) => write!(f, "prioritize {priority}"),
            Self::MoveToQueue(queue) => write!(f, "move to queue {queue}"),
            Self::MoveToDatabase(database) => write!(f, "move to database {database}"),
            Self::Cancel => f.write_str("cancel"),
            Self::CancelByForce => f.write_str("cancel by force"),
            Self::Delete => f.write_str("delete"),
        }
    }
}

/// A verb of a later version of this library.
#[derive(Debug, thiserror::Error)]
#[error("this program does not know the verb {0:?}")]
pub struct UnknownVerb(String);

impl FromStr for Verb {
    type Err = UnknownVerb;

    fn from_str(text: &str) -> Result<Self, UnknownVerb> {
        let unknown = || UnknownVerb(text.to_owned());
        Ok(match text {
            "retry" => Self::Retry,
            "cancel" => Self::Cancel,
            "cancel by force" => Self::CancelByForce,
            "delete" => Self::Delete,
            "reschedule now" => Self::Reschedule(Due::Now),
            _ => {
                let after = |words| text.strip_prefix(words);
                if let Some(queue) = after("move to queue ") {
                    Self::MoveToQueue(queue.to_owned())
                } else if let Some(database) = after("move to database ") {
                    Self::MoveToDatabase(database.to_owned())
                } else if let Some(priority) = after("prioritize ") {
                    Self::Prioritize(priority.parse().map_err(|_| unknown())?)
                } else {
                    let at = after("reschedule ").ok_or_else(unknown)?;
                    Self::Reschedule(Due::At(at.parse().map_err(|_| unknown())?))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::driver::{JobFacts, WorkerId};
    use qudo_hooks::JobId;

    #[test]
    fn a_verb_is_read_back_from_what_is_stored_of_it() {
        let now = crate::tools::time::utc_now();
        let at = DateTime::from_timestamp_micros(now.timestamp_micros()).expect("a time");
        for verb in [
            Verb::Retry,
            Verb::Reschedule(Due::Now),
            Verb::Reschedule(Due::At(at)),
            Verb::Reschedule(Due::In(Duration::from_secs(60))).from(at),
            Verb::Prioritize(-7),
            Verb::Prioritize(i32::MIN).from(at),
            Verb::MoveToQueue("gl accounts".to_owned()),
            Verb::MoveToDatabase("two".to_owned()),
            Verb::Cancel,
            Verb::CancelByForce,
            Verb::Delete,
        ] {
            assert_eq!(verb.to_string().parse::<Verb>().expect("is known"), verb);
        }
        for text in ["", "drop", "prioritize x", "reschedule soon"] {
            assert!(text.parse::<Verb>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn jobs_that_are_as_they_should_be_are_passed_over() {
        let now = crate::tools::time::utc_now();
        let job = |state, attempt| {
            let facts = JobFacts::new("mail", "post", "json", Vec::new());
            JobInfo::new(JobId::new(), facts, attempt, now, state)
        };
        let ready = job(JobState::Ready, 0);
        let retrying = job(JobState::Scheduled { run_after: now }, 2);
        let delayed = job(JobState::Scheduled { run_after: now }, 0);
        let running = job(JobState::Running { worker: WorkerId::new(), until: now }, 1);
        let later = Due::At(now + Duration::from_secs(1));
        for (verb, concerns) in [
            (Verb::Retry, [false, true, false, false]),
            (Verb::Reschedule(Due::Now), [false, true, true, true]),
            (Verb::Reschedule(Due::At(now)), [true, false, false, true]),
            (Verb::Reschedule(later), [true; 4]),
            (Verb::Prioritize(0), [false; 4]),
            (Verb::Prioritize(1), [true; 4]),
            (Verb::MoveToQueue("post".to_owned()), [false; 4]),
            (Verb::MoveToQueue("fast".to_owned()), [true; 4]),
            (Verb::Delete, [true; 4]),
        ] {
            let all = [&ready, &retrying, &delayed, &running].map(|job| verb.concerns(job));
            assert_eq!(all, concerns, "{verb}");
        }
    }
}
