use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Hook, JobView};

/// Adds up how long the runs of each ability take, for a look without a metrics system.
///
/// Its clones share their measurements: keep a clone to read the report.
///
/// ```
/// use qudo_hooks::builtin::Timing;
/// use qudo_hooks::{Hook, JobId, JobView};
///
/// let timing = Timing::default();
/// let job = JobView::new(JobId::new(), "scale", "default");
/// timing.around_work(&job, &mut || std::hint::black_box(()));
/// let report = timing.report();
/// assert_eq!((&*report[0].ability, report[0].runs), ("scale", 1));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Timing {
    abilities: Arc<Mutex<BTreeMap<String, Sum>>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    runs: u64,
    total: Duration,
    longest: Duration,
}

/// What [`Timing`] knows of one ability.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimingReport {
    /// The ability.
    pub ability: String,
    /// How many runs ended.
    pub runs: u64,
    /// How long they took together.
    pub total: Duration,
    /// How long the longest took.
    pub longest: Duration,
}

impl Timing {
    /// What was measured so far, by ability.
    pub fn report(&self) -> Vec<TimingReport> {
        let abilities = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |(ability, sum): (&String, &Sum)| TimingReport {
            ability: ability.clone(),
            runs: sum.runs,
            total: sum.total,
            longest: sum.longest,
        };
        abilities.iter().map(report).collect()
    }
}

impl Hook for Timing {
    fn name(&self) -> &'static str {
        "timing"
    }

    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        let begun = Instant::now();
        next();
        let took = begun.elapsed();
        let mut abilities = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = abilities.entry(job.ability().to_owned()).or_default();
        sum.runs += 1;
        sum.total += took;
        sum.longest = sum.longest.max(took);
    }
}
