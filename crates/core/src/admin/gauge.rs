//! What a database is like at one moment, as numbers under the names that monitoring uses.

use std::time::Duration;

use super::overview::Overview;

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
    /// The numbers of a database, always the same ones in the same order; `None` of one that did not answer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use qudo_core::{Gauge, Manager, NewJob};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:gauged").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let seen = manager.overview(Duration::from_secs(1)).remove(0).answer.ok();
    /// let ready = Gauge::of(seen.as_ref()).into_iter().find(|one| one.label == Some(("state", "ready")));
    /// assert_eq!(ready.map(|one| (one.name, one.value)), Some(("qudo_jobs", 1.0)));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn of(seen: Option<&Overview>) -> Vec<Self> {
        let of = |number: fn(&Overview) -> f64| seen.map_or(f64::NAN, number);
        let state = |state| Some(("state", state));
        [
            ("qudo_database_up", UP, None, f64::from(u8::from(seen.is_some()))),
            ("qudo_jobs", JOBS, state("ready"), of(|seen| seen.depth.ready.count as f64)),
            ("qudo_jobs", JOBS, state("scheduled"), of(|seen| seen.depth.scheduled.count as f64)),
            ("qudo_jobs", JOBS, state("running"), of(|seen| seen.depth.running.count as f64)),
            ("qudo_jobs", JOBS, state("moving"), of(|seen| seen.depth.moving.count as f64)),
            ("qudo_workers", WORKERS, state("live"), of(|seen| seen.workers as f64)),
            ("qudo_workers", WORKERS, state("silent"), of(|seen| seen.silent_workers as f64)),
            ("qudo_oldest_ready_seconds", OLDEST, None, of(|seen| seconds(seen.ages.ready))),
            ("qudo_lease_overdue_seconds", OVERDUE, None, of(|seen| seconds(seen.ages.overdue))),
            ("qudo_database_paused", PAUSED, None, of(|seen| f64::from(u8::from(seen.paused)))),
            (
                "qudo_database_draining",
                DRAINING,
                None,
                of(|seen| f64::from(u8::from(seen.draining))),
            ),
            ("qudo_pauses", PAUSES, None, of(|seen| seen.pauses.len() as f64)),
        ]
        .map(|(name, help, label, value)| Self { name, help, label, value })
        .to_vec()
    }
}

const UP: &str = "Whether the database answered in time";
const JOBS: &str = "Live jobs by their state, counted up to a bound";
const WORKERS: &str = "Worker processes that the database knows, by whether they are silent for longer than they promised";
const OLDEST: &str = "For how long the job is ready that is ready for longest; 0 without one";
const OVERDUE: &str =
    "For how long the lease is over that ended first and was not taken back; 0 without one";
const PAUSED: &str = "Whether no job of the database is claimed";
const DRAINING: &str = "Whether new jobs go to other databases";
const PAUSES: &str = "Queues and abilities of the database that are paused";

fn seconds(span: Option<Duration>) -> f64 {
    span.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Ages, Bounded, Depth};

    #[test]
    fn a_database_that_does_not_answer_is_down_and_tells_nothing_else() {
        let depth = |count| Bounded::new(count, 100);
        let seen = Overview {
            depth: Depth::new(depth(1), depth(2), depth(3), depth(4)),
            ages: Ages::new(Some(Duration::from_millis(1_500)), None),
            draining: true,
            paused: false,
            pauses: Vec::new(),
            workers: 5,
            silent_workers: 6,
        };
        let (up, down) = (Gauge::of(Some(&seen)), Gauge::of(None));
        let values: Vec<_> = up.iter().map(|one| one.value).collect();
        assert_eq!(values, [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.5, 0.0, 0.0, 1.0, 0.0]);
        let keys = |all: &[Gauge]| all.iter().map(|one| (one.name, one.label)).collect::<Vec<_>>();
        assert_eq!(keys(&up), keys(&down));
        assert!(down[0].value == 0.0 && down[1..].iter().all(|one| one.value.is_nan()));
    }
}
