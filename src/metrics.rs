//! Gauges of the databases for the `metrics` facade. Feature `metrics`.
//!
//! The hook [`Metrics`](crate::hook::builtin::Metrics) counts and times the jobs of its process; this tells how the databases
//! are: each name is that of [`Gauge`], with the label `database`, and a database that does not answer has
//! `qudo_database_up` 0 and no numbers else (NaN); jobs are counted up to a million. Beside them what only the process knows:
//!
//! | gauge | labels | |
//! |---|---|---|
//! | `qudo_spool_jobs` | | jobs in the spool of this process, if it has one |
//! | `qudo_spool_dropped` | | jobs dropped from it, because their unique key was held when they came to a database |
//! | `qudo_loop_idle_seconds` | database, loop | how long ago a loop of this process last did its work |
//!
//! Whoever has no program to ask, or asks for the whole, scrapes `qudo metrics --listen` instead.

use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Label, gauge};

use crate::Manager;
use crate::admin::Gauge;

/// Jobs are counted up to this.
const BOUND: u64 = 1_000_000;

/// Looks at all databases once and sets the gauges. Blocks for as long as the slowest database takes, and at most this long.
///
/// ```
/// use std::time::Duration;
///
/// let manager = qudo::Manager::builder().database("memory:measured").build()?;
/// qudo::metrics::measure(&manager, Duration::from_secs(1));
/// # Ok::<(), qudo::Error>(())
/// ```
pub fn measure(manager: &Manager, limit: Duration) {
    let databases = manager.database_names();
    for on in manager.overview_counting(limit, BOUND) {
        // The spool is not one of them, and is told of below.
        if databases.contains(&on.database) {
            for one in Gauge::of(on.answer.as_ref().ok()) {
                let mut labels = vec![Label::new("database", on.database.clone())];
                labels.extend(one.label.map(|(name, value)| Label::new(name, value)));
                gauge!(one.name, labels).set(one.value);
            }
        }
    }
    if let Ok(Some(spool)) = manager.spool() {
        gauge!("qudo_spool_jobs").set(spool.waiting as f64);
        gauge!("qudo_spool_dropped").set(spool.dropped as f64);
    }
    for one in manager.loops() {
        let labels = vec![Label::new("database", one.database), Label::new("loop", one.name)];
        let idle = one.last_success.map_or(f64::NAN, |last| last.as_secs_f64());
        gauge!("qudo_loop_idle_seconds", labels).set(idle);
    }
}

/// Sets the gauges again and again, on a thread of its own, until it is dropped.
pub struct Sampler {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampler")
    }
}

impl Sampler {
    /// Begins at once; between two looks there is this much time. Databases have 5 seconds to answer.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let manager = qudo::Manager::builder().database("memory:sampled").build()?;
    /// let sampler = qudo::metrics::Sampler::start(&manager, Duration::from_secs(15))?;
    /// // manager.work()?;
    /// drop(sampler);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the system refuses a thread.
    pub fn start(manager: &Manager, every: Duration) -> std::io::Result<Self> {
        const LIMIT: Duration = Duration::from_secs(5);
        let (stop, stopped) = channel::<()>();
        let manager = manager.clone();
        let sample = move || {
            loop {
                measure(&manager, LIMIT);
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("qudo-metrics".to_owned()).spawn(sample)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was told of when it came.
            let _ended = thread.join();
        }
    }
}
