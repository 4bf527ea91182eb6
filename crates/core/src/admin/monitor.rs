//! What monitoring asks of each database again and again, told as far as it is answered in time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::database::Database;
use crate::database::asked::Asked;
use crate::database::set::Databases;
use crate::driver::{Ages, Depth, Driver, DriverError, StatRow, StatScan};
use crate::tools::causes::with_causes;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// What a look that goes on for longer than this saw at its beginning says nothing of now.
const STALE: Duration = Duration::from_secs(60);

/// What is asked for monitoring, and for how long is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watch {
    /// How long a database has to answer. Default: 5 s.
    pub within: Duration,
    /// Jobs are counted up to this number. A count takes as long as the jobs that it counts, a fraction of a second for a million.
    /// Default: 10,000.
    pub count_to: u64,
    /// Which numbers of runs; by default none.
    pub stats: Option<StatScan>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { within: Duration::from_secs(5), count_to: 10_000, stats: None }
    }
}

/// What a database told, as far as it told it in time.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Reading {
    /// Its short name.
    pub database: String,
    /// Whether it answered: which orders it has, and who works it. Without that there is nothing else.
    pub up: bool,
    /// New jobs go to other databases.
    pub draining: bool,
    /// Its jobs are not claimed.
    pub paused: bool,
    /// How many queues and abilities are paused in it.
    pub pauses: usize,
    /// How many worker processes work it.
    pub workers: usize,
    /// How many more were silent for longer than they promised.
    pub silent_workers: usize,
    /// Numbers of runs; `None` if they were not asked for, or not told.
    pub stats: Option<Arc<[StatRow]>>,
    /// How long the work has waited that is not paused; `None` if that was not told.
    pub ages: Option<Ages>,
    /// How many live jobs there are; `None` if that was not told.
    pub depth: Option<Depth>,
    /// Why something was not told.
    pub trouble: Option<String>,
}

/// A look at a database, which goes on although nobody waits for it any more.
struct Look {
    begun: Instant,
    seen: Mutex<Reading>,
    over: AtomicBool,
}

/// Says that the look is over, in whatever way: answered, failed, or never begun.
struct Over(Arc<Look>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// The looks that are under way. One goes on at each database: whoever comes meanwhile is told what it has seen so far. So a
/// database that takes longer than is waited is asked no more than one that is well, however often somebody comes.
#[derive(Default)]
pub(crate) struct Monitor(Mutex<HashMap<Arc<str>, Arc<Look>>>);

impl Monitor {
    /// The look at a database, with its answer if it is begun now.
    fn look(&self, database: &Arc<Database>, watch: Watch) -> (Arc<Look>, Option<Asked<()>>) {
        let mut looks = self.0.lock();
        let known = looks.get(&database.name).filter(|look| !look.over.load(Ordering::Acquire));
        if let Some(look) = known {
            return (Arc::clone(look), None);
        }
        let seen = Reading { database: database.name.to_string(), ..Reading::default() };
        let over = AtomicBool::new(false);
        let look = Arc::new(Look { begun: Instant::now(), seen: Mutex::new(seen), over });
        looks.insert(Arc::clone(&database.name), Arc::clone(&look));
        let over = Over(Arc::clone(&look));
        let ask = move |driver: &dyn Driver| see(driver, watch, &over.0);
        (look, Some(database.begin("be monitored", ask)))
    }

    /// Looks at all databases at the same time, but for the spool.
    pub(crate) fn readings(&self, databases: &Databases, watch: Watch) -> Vec<Reading> {
        let started = Instant::now();
        let looks: Vec<_> =
            databases.all().iter().map(|database| self.look(database, watch)).collect();
        let names: Vec<_> = databases.all().iter().map(|one| Arc::clone(&one.name)).collect();
        // Of databases that were removed nothing is kept.
        self.0.lock().retain(|name, _| names.contains(name));
        let reading = |(look, asked): (Arc<Look>, Option<Asked<()>>)| {
            let left = watch.within.saturating_sub(started.elapsed());
            let trouble = match asked.map(|asked| asked.wait_at_most(left)) {
                Some(Ok(())) => None,
                Some(Err(error)) => Some(with_causes(&error)),
                None => Some("an earlier look is still under way".to_owned()),
            };
            let mut seen = look.seen.lock().clone();
            if trouble.is_some() {
                seen.up &= look.begun.elapsed() < STALE.max(watch.within);
                seen.trouble = seen.trouble.or(trouble);
            }
            seen
        };
        looks.into_iter().map(reading).collect()
    }
}

/// What is quick comes first: who it is that waits for the rest knows by then that the database answers.
fn see(driver: &dyn Driver, watch: Watch, look: &Look) -> Result<(), DriverError> {
    let (control, workers) = (driver.control()?, driver.workers()?);
    let live = workers.iter().filter(|one| one.is_live()).count();
    let pauses = control.pauses.unwrap_or_default();
    {
        let mut seen = look.seen.lock();
        (seen.up, seen.draining, seen.paused) = (true, control.draining, control.paused);
        (seen.workers, seen.silent_workers) = (live, workers.len() - live);
        seen.pauses = pauses.len();
    }
    let mut trouble = None;
    let stats = watch.stats.map(|scan| driver.stats(&scan)).transpose();
    let stats = told(stats, &mut trouble)?.flatten();
    look.seen.lock().stats = stats.map(Into::into);
    let ages = told(driver.ages(&pauses), &mut trouble)?;
    look.seen.lock().ages = ages;
    let depth = told(driver.depth(watch.count_to), &mut trouble)?;
    let mut seen = look.seen.lock();
    (seen.depth, seen.trouble) = (depth, trouble);
    Ok(())
}

/// An account may lack the right to one of the answers: the others are told all the same.
fn told<T>(
    answer: Result<T, DriverError>,
    trouble: &mut Option<String>,
) -> Result<Option<T>, DriverError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_down() => Err(error),
        Err(error) => {
            trouble.get_or_insert_with(|| with_causes(&error));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::driver::ErrorKind;
    use crate::fixture::{SOON, memory};
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;
    use crate::tools::threads::sleep;

    fn watch(within: Duration) -> Watch {
        Watch { within, stats: Some(StatScan::ever()), ..Watch::default() }
    }

    #[test]
    fn a_count_that_takes_long_is_made_once_and_the_database_is_up_meanwhile() {
        let (hangs, counts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (still, counted) = (Arc::clone(&hangs), Arc::clone(&counts));
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |call| {
            if call == "depth" {
                counted.fetch_add(1, Ordering::SeqCst);
                while still.load(Ordering::Acquire) {
                    sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        });
        let builder = Manager::builder().linked(false).driver("slow", Arc::new(driver));
        let manager = builder.driver("free", memory()).build().expect("valid");
        for _ in 0..10 {
            let all = manager.readings(watch(Duration::from_millis(20)));
            let told: Vec<_> = all.iter().map(|one| (one.up, one.depth.is_some())).collect();
            assert_eq!(told, [(true, false), (true, true)], "{all:?}");
            assert!(all[0].trouble.is_some() && all[1].trouble.is_none(), "{all:?}");
        }
        assert_eq!(counts.load(Ordering::SeqCst), 1);
        hangs.store(false, Ordering::Release);
        let begun = Instant::now();
        while manager.readings(watch(SOON))[0].depth.is_none() {
            assert!(begun.elapsed() < SOON);
        }
    }

    #[test]
    fn what_an_account_may_not_read_keeps_nothing_else_from_being_told() {
        let driver = FaultyDriver::new(memory()).with_fault(|call| match call {
            "stats" => Err(DriverError::new(ErrorKind::Permission, "it lacks SELECT")),
            _ => Ok(()),
        });
        let builder = Manager::builder().linked(false).driver("one", Arc::new(driver));
        let manager = builder.build().expect("valid");
        let seen = manager.readings(watch(SOON)).remove(0);
        assert!(seen.up && seen.stats.is_none() && seen.depth.is_some(), "{seen:?}");
        assert!(seen.trouble.is_some_and(|why| why.contains("lacks SELECT")));
    }

    #[test]
    fn a_database_that_refuses_is_down_and_says_why() {
        let driver = FaultyDriver::new(memory())
            .with_fault(|_| Err(DriverError::new(ErrorKind::Down, "connection refused")));
        let builder = Manager::builder().linked(false).driver("one", Arc::new(driver));
        let manager = builder.build().expect("valid");
        for _ in 0..3 {
            let seen = manager.readings(watch(SOON)).remove(0);
            assert!(!seen.up && seen.depth.is_none(), "{seen:?}");
            assert!(seen.trouble.is_some_and(|why| why.contains("refused")));
        }
    }
}
