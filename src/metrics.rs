//! Gauges for the `metrics` facade: how the databases are, as this process sees it. Feature `metrics`.
//!
//! The hook [`Metrics`](crate::hook::builtin::Metrics) counts and times the jobs of this process. These gauges are told beside it:
//!
//! | gauge | labels | |
//! |---|---|---|
//! | `qudo_process_database_up`, `qudo_process_jobs` and so on | database, state | those of [`Gauge`], with `process_` behind `qudo_`; jobs are counted up to 10,000 |
//! | `qudo_process_spool_jobs` | | jobs in the spool of this process, if it has one |
//! | `qudo_process_spool_dropped` | | jobs dropped from it since the process started, because their unique key was held when they came to a database |
//! | `qudo_process_loop_idle_seconds` | database, loop | how long ago a loop of this process last did its work |
//!
//! What is not known any more is not a number (NaN): all but `qudo_process_database_up` of a database that does not answer, a database that was
//! removed, the loops after the work ended. For all processes together there is `qudo metrics --listen`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{Label, gauge};

use crate::Manager;
use crate::admin::{Gauge, Watch};

/// Two looks are this far apart at least.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// A gauge and what tells it from others of its name.
type Series = (String, Vec<(String, String)>);

/// Looks at all databases once and sets the gauges. Blocks until the databases have answered, and at most this long; then it reads the
/// spool's file, if there is one.
///
/// ```
/// use std::time::Duration;
///
/// let manager = qudo::Manager::builder().database("memory:measured").build()?;
/// qudo::metrics::measure(&manager, Duration::from_secs(1));
/// # Ok::<(), qudo::Error>(())
/// ```
pub fn measure(manager: &Manager, limit: Duration) {
    for (series, value) in look(manager, limit) {
        set(&series, value);
    }
}

fn set((name, labels): &Series, value: f64) {
    let labels = labels.iter().map(|(name, value)| Label::new(name.clone(), value.clone()));
    gauge!(name.clone(), labels.collect::<Vec<_>>()).set(value);
}

fn look(manager: &Manager, limit: Duration) -> BTreeMap<Series, f64> {
    let mut all = BTreeMap::new();
    let mut note = |name: &str, labels: &[(&str, &str)], value| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        all.insert((name.to_owned(), labels.collect()), value);
    };
    let mut watch = Watch::default();
    watch.within = limit;
    for one in manager.readings(watch) {
        for gauge in Gauge::of(&one) {
            let name = gauge.name.replacen("qudo_", "qudo_process_", 1);
            let mut labels = vec![("database", &*one.database)];
            labels.extend(gauge.label);
            note(&name, &labels, gauge.value);
        }
    }
    if let Ok(Some(spool)) = manager.spool() {
        note("qudo_process_spool_jobs", &[], spool.waiting as f64);
        note("qudo_process_spool_dropped", &[], spool.dropped as f64);
    }
    for one in manager.loops() {
        let idle = one.last_success.map_or(f64::NAN, |last| last.as_secs_f64());
        let labels = [("database", &*one.database), ("loop", one.name)];
        note("qudo_process_loop_idle_seconds", &labels, idle);
    }
    all
}

/// They are not numbers any more.
fn forget(all: &BTreeSet<Series>) {
    let forgotten = catch_unwind(|| all.iter().for_each(|series| set(series, f64::NAN)));
    drop(forgotten);
}

/// Sets the gauges again and again, on a thread of its own, until it is dropped: then none of them is a number any more. To drop it
/// waits for a look that is under way.
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
    /// Begins at once, and looks again after this time; after a second at least. Databases have 5 seconds to answer. The recorder is the
    /// one that is installed for the whole program.
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
        let (stop, stopped) = channel::<()>();
        let manager = manager.clone();
        let sample = move || {
            let mut known: BTreeSet<Series> = BTreeSet::new();
            loop {
                let mut now = BTreeMap::new();
                // A recorder that panics, say: the next look may do better.
                let looked = catch_unwind(AssertUnwindSafe(|| {
                    now = look(&manager, Watch::default().within);
                    for (series, value) in &now {
                        set(series, *value);
                    }
                }));
                drop(looked);
                let gone = known.iter().filter(|series| !now.contains_key(*series)).cloned();
                forget(&gone.collect());
                known.extend(now.into_keys());
                if stopped.recv_timeout(every.max(MIN_PAUSE)) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            forget(&known);
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
