//! What a database is like at one moment, as numbers under the names that monitoring uses.

use std::time::Duration;

use super::monitor::Reading;
use crate::driver::{Ages, Bounded, Depth};

/// One number of a database.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Gauge {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What tells it from others of its name, beside the database.
    pub label: Option<(&'static str, &'static str)>,
    /// The number; not a number where the database did not tell.
    pub value: f64,
}

impl Gauge {
    /// The numbers of a database, always the same ones in the same order; those that it did not tell are not numbers.
    ///
    /// ```
    /// use qudo_core::{Gauge, Manager, NewJob, Watch};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:gauged").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let all = Gauge::of(&manager.readings(Watch::default())[0]);
    /// let ready = all.iter().find(|one| one.label == Some(("state", "ready")));
    /// assert_eq!(ready.map(|one| (one.name, one.value)), Some(("qudo_jobs", 1.0)));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn of(seen: &Reading) -> Vec<Self> {
        let number = |value: usize| if seen.up { value as f64 } else { f64::NAN };
        let yes = |value: bool| number(usize::from(value));
        let jobs = |of: fn(&Depth) -> Bounded| {
            seen.depth.as_ref().map_or(f64::NAN, |depth| of(depth).count as f64)
        };
        let age = |of: fn(&Ages) -> Option<Duration>| {
            let seconds = |ages| of(ages).unwrap_or_default().as_secs_f64();
            seen.ages.as_ref().map_or(f64::NAN, seconds)
        };
        let state = |state| Some(("state", state));
        [
            ("qudo_database_up", UP, None, f64::from(u8::from(seen.up))),
            ("qudo_jobs", JOBS, state("ready"), jobs(|depth| depth.ready)),
            ("qudo_jobs", JOBS, state("scheduled"), jobs(|depth| depth.scheduled)),
            ("qudo_jobs", JOBS, state("running"), jobs(|depth| depth.running)),
            ("qudo_jobs", JOBS, state("moving"), jobs(|depth| depth.moving)),
            ("qudo_workers", WORKERS, state("live"), number(seen.workers)),
            ("qudo_workers", WORKERS, state("silent"), number(seen.silent_workers)),
            ("qudo_oldest_ready_seconds", OLDEST, None, age(|ages| ages.ready)),
            ("qudo_lease_overdue_seconds", OVERDUE, None, age(|ages| ages.overdue)),
            ("qudo_database_paused", PAUSED, None, yes(seen.paused)),
            ("qudo_database_draining", DRAINING, None, yes(seen.draining)),
            ("qudo_pauses", PAUSES, None, number(seen.pauses)),
        ]
        .map(|(name, help, label, value)| Self { name, help, label, value })
        .to_vec()
    }
}

const UP: &str = "Whether the database answered in time who works it";
const JOBS: &str = "Live jobs by their state, counted up to a bound";
const WORKERS: &str = "Worker processes that the database knows, by whether they are silent for longer than they promised";
const OLDEST: &str = "For how long the job has been ready that has been ready for longest, of those that are not paused; 0 without one";
const OVERDUE: &str =
    "For how long the lease is over that ended first and was not taken back; 0 without one";
const PAUSED: &str = "Whether no job of the database is claimed";
const DRAINING: &str = "Whether new jobs go to other databases";
const PAUSES: &str = "Queues and abilities of the database that are paused";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_does_not_answer_is_down_and_tells_nothing_else() {
        let depth = |count| Bounded::new(count, 100);
        let seen = Reading {
            up: true,
            draining: true,
            workers: 5,
            silent_workers: 6,
            depth: Some(Depth::new(depth(1), depth(2), depth(3), depth(4))),
            ages: Some(Ages::new(Some(Duration::from_millis(1_500)), None)),
            ..Reading::default()
        };
        let (up, down) = (Gauge::of(&seen), Gauge::of(&Reading::default()));
        let values: Vec<_> = up.iter().map(|one| one.value).collect();
        assert_eq!(values, [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.5, 0.0, 0.0, 1.0, 0.0]);
        let keys = |all: &[Gauge]| all.iter().map(|one| (one.name, one.label)).collect::<Vec<_>>();
        assert_eq!(keys(&up), keys(&down));
        assert!(down[0].value == 0.0 && down[1..].iter().all(|one| one.value.is_nan()));
    }
}
