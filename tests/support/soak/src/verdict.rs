use std::fmt;
use std::time::{Duration, Instant};

use qudo::Manager;
use qudo::admin::AuditOptions;
use qudo::admin::{JobFilter, Paging};
use qudo::history::{Fault, History, Line, Remains, Rules};

use crate::{Result, World};

/// What a run came to.
#[derive(Debug)]
pub struct Verdict {
    /// Jobs that were accepted or run.
    pub jobs: usize,
    /// Runs that began.
    pub runs: usize,
    /// Jobs that ran in two databases after the answer of an enqueue was lost: at least once.
    pub in_two: usize,
    /// What should not have happened.
    pub faults: Vec<Fault>,
    /// What was recorded of the first job that met a fault.
    pub story: Vec<Line>,
    /// How long working off took after everything was healed.
    pub worked_off: Duration,
    /// What lies in the tables that must not; `None` when there is nothing.
    pub audit: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} jobs ({} in two databases after a lost answer), {} runs, worked off {:.1} s \
             after the last fault: ",
            self.jobs,
            self.in_two,
            self.runs,
            self.worked_off.as_secs_f32()
        )?;
        if let Some(audit) = &self.audit {
            writeln!(f, "the audit found:\n{audit}")?;
        }
        match self.faults.as_slice() {
            [] => f.write_str("no job lost, none run twice without a lost lease"),
            faults => {
                writeln!(f, "{} FAULTS", faults.len())?;
                faults.iter().take(20).try_for_each(|fault| writeln!(f, "  {fault}"))?;
                self.story.iter().try_for_each(|Line { at, step }| writeln!(f, "    {at} {step:?}"))
            }
        }
    }
}

/// How many jobs there still are; `None` while a database does not say.
fn left(manager: &Manager) -> Option<u64> {
    manager.database_reports().iter().map(|one| one.depth).try_fold(0, |sum, depth| {
        let depth = depth?;
        Some(
            sum + depth.ready.count
                + depth.scheduled.count
                + depth.running.count
                + depth.moving.count,
        )
    })
}

/// Waits until everything is worked off, and checks the history.
///
/// # Errors
///
/// When jobs are left after the limit, or a database does not answer.
pub fn judge(world: &World, manager: &Manager, rules: &Rules, limit: Duration) -> Result<Verdict> {
    let begun = Instant::now();
    while left(manager) != Some(0) {
        if begun.elapsed() > limit {
            let states = manager.database_reports();
            let left = manager.jobs(&JobFilter::all(), &Paging::default().limit(30));
            return Err(format!("not worked off in {limit:?}: {states:#?}\n{left:#?}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let worked_off = begun.elapsed();
    let remains = Remains::of(manager)?;
    // The last settlements are noted after their commit.
    std::thread::sleep(Duration::from_millis(200));
    let audit = manager.audit(AuditOptions::default());
    let audit = (!audit.is_clean() || audit.jobs > 0).then(|| audit.to_string());
    let history = History::read(world.history())?;
    let faults = rules.check(&history, &remains);
    let story = match faults.first() {
        Some(fault) => History::story(world.history(), fault.job())?,
        None => Vec::new(),
    };
    let (jobs, runs, in_two) = (history.len(), history.runs(), history.ended_in_two());
    Ok(Verdict { jobs, runs, in_two, faults, story, worked_off, audit })
}
