//! What monitoring asks of each database again and again, told as far as it is answered in time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::database::Database;
use crate::database::asked::Asked;
use crate::database::set::Databases;
use crate::driver::{Ages, Depth, Driver, DriverError, StatRow, StatScan};
use crate::tools::causes::with_causes;
use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// The first answers of a look that goes on for longer than this are too old to be told.
const STALE: Duration = Duration::from_secs(60);

/// What [`Manager::readings`](crate::Manager::readings) asks each database, and how long it waits for the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watch {
    /// How long a database has to answer. Default: 5 s.
    pub within: Duration,
    /// Jobs are counted up to this number, because a count reads each job that it counts; a million take a fraction of a second.
    /// Default: 10,000.
    pub count_to: u64,
    /// Which numbers of runs to read. Default: none.
    pub stats: Option<StatScan>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { within: Duration::from_secs(5), count_to: 10_000, stats: None }
    }
}

/// The answers of a database that came in time.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Reading {
    /// Its short name.
    pub database: String,
    /// Whether it answered the first question: which orders it has, and which processes work it. If not, there are no other answers.
    pub up: bool,
    /// Whether new jobs go to other databases.
    pub draining: bool,
    /// Whether none of its jobs are claimed.
    pub paused: bool,
    /// How many queues and abilities are paused in it.
    pub pauses: usize,
    /// How many worker processes work it.
    pub workers: usize,
    /// How many other worker processes have been silent for longer than they promised.
    pub silent_workers: usize,
    /// Numbers of runs; `None` if they were not asked for, or not answered in time.
    pub stats: Option<Arc<[StatRow]>>,
    /// How long the oldest ready job that is not paused has been ready, and how long ago the lease ended that ended first; `None` if not answered in
    /// time.
    pub ages: Option<Ages>,
    /// How many live jobs there are; `None` if not answered in time.
    pub depth: Option<Depth>,
    /// Why an answer is missing.
    pub trouble: Option<String>,
}

/// A look at a database, which goes on although nobody waits for it any more.
struct Look {
    begun: Instant,
    /// The database itself, because a later one may have the same name.
    of: Weak<Database>,
    seen: Mutex<Seen>,
    ended: Condvar,
}

struct Seen {
    reading: Reading,
    /// Whether the look ended: answered, failed, or never begun.
    over: bool,
    /// Whether a caller was told the whole answer.
    told: bool,
}

/// Says that the look is over.
struct Over(Arc<Look>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.seen.lock().over = true;
        self.0.ended.notify_all();
    }
}

impl Look {
    fn new(database: &Arc<Database>) -> Self {
        let reading = Reading { database: database.name.to_string(), ..Reading::default() };
        let seen = Mutex::new(Seen { reading, over: false, told: false });
        Self { begun: Instant::now(), of: Arc::downgrade(database), seen, ended: Condvar::new() }
    }

    /// Whether a new caller shares this look: it is under way, or ended after its callers had stopped waiting.
    fn serves(&self, database: &Arc<Database>) -> bool {
        let seen = self.seen.lock();
        let is_young = self.begun.elapsed() < STALE;
        let is_open = !seen.over || (!seen.told && seen.reading.depth.is_some());
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(database)) && is_young && is_open
    }

    /// Waits for its end, but no longer than this.
    fn wait(&self, left: Duration) {
        let until = Instant::now() + left;
        let mut seen = self.seen.lock();
        while !seen.over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ended.wait_for(&mut seen, left).timed_out() {
                return;
            }
        }
    }

    /// The answers so far; none if the look has gone on for so long that they are too old.
    fn tell(&self, within: Duration, failure: Option<String>) -> Reading {
        let mut seen = self.seen.lock();
        let mut reading = seen.reading.clone();
        if seen.over {
            seen.told = true;
            reading.trouble = reading.trouble.or(failure);
            return reading;
        }
        if self.begun.elapsed() >= STALE.max(within) {
            reading = Reading { database: reading.database, ..Reading::default() };
        }
        let late = || format!("it did not tell all within {} s", within.as_secs_f64());
        reading.trouble.get_or_insert_with(late);
        reading
    }
}

/// What looks that can be shared have in common: the name of the database, how far jobs are counted, and the numbers of runs.
type Kind = (Arc<str>, u64, Option<StatScan>);

/// The looks that are under way, one of a kind at each database. A caller that comes meanwhile waits for the same look, and is told its answers
/// so far. So a database that answers slowly gets no more questions than a quick one, however often callers come. Only a look
/// that goes on for a minute is given up, and another begins beside it.
#[derive(Default)]
pub(crate) struct Monitor(Mutex<HashMap<Kind, Arc<Look>>>);

impl Monitor {
    /// The look at a database, and its question if the look begins with this call.
    fn look(&self, database: &Arc<Database>, watch: Watch) -> (Arc<Look>, Option<Asked<()>>) {
        let kind = (Arc::clone(&database.name), watch.count_to, watch.stats);
        let mut looks = self.0.lock();
        if let Some(look) = looks.get(&kind).filter(|look| look.serves(database)) {
            return (Arc::clone(look), None);
        }
        let look = Arc::new(Look::new(database));
        looks.insert(kind, Arc::clone(&look));
        let over = Over(Arc::clone(&look));
        let ask = move |driver: &dyn Driver| see(driver, watch, &over.0);
        (look, Some(database.begin("be monitored", ask)))
    }

    /// Looks at all databases at the same time, but for the spool.
    pub(crate) fn readings(&self, databases: &Databases, watch: Watch) -> Vec<Reading> {
        let started = Instant::now();
        let databases = databases.all();
        let looks: Vec<_> = databases.iter().map(|database| self.look(database, watch)).collect();
        let reading = |(look, asked): (Arc<Look>, Option<Asked<()>>)| {
            let left = watch.within.saturating_sub(started.elapsed());
            let failure = if let Some(asked) = asked {
                asked.wait_at_most(left).err().map(|error| with_causes(&error))
            } else {
                look.wait(left);
                None
            };
            look.tell(watch.within, failure)
        };
        let readings = looks.into_iter().map(reading).collect();
        // Looks at databases that were removed, and looks whose answers were told, are not kept: each answer may have 10,000 rows, and each
        // caller may ask for another span.
        let serves = |look: &Look| databases.iter().any(|one| look.serves(one));
        self.0.lock().retain(|_, look| serves(look));
        readings
    }
}

/// The quick questions come first: whoever waits for the counts knows by then that the database answers.
fn see(driver: &dyn Driver, watch: Watch, look: &Look) -> Result<(), DriverError> {
    let mut trouble = None;
    let control = told(driver.control(), &mut trouble)?.unwrap_or_default();
    let workers = told(driver.workers(), &mut trouble)?.unwrap_or_default();
    let live = workers.iter().filter(|one| one.is_live()).count();
    let pauses = control.pauses.unwrap_or_default();
    let note = |note: &dyn Fn(&mut Reading)| note(&mut look.seen.lock().reading);
    note(&|seen| {
        // It answers, also an account that may not read this.
        (seen.up, seen.draining, seen.paused) = (true, control.draining, control.paused);
        (seen.workers, seen.silent_workers) = (live, workers.len() - live);
        seen.pauses = pauses.len();
    });
    let stats = watch.stats.map(|scan| driver.stats(&scan)).transpose();
    let stats: Option<Arc<[StatRow]>> = told(stats, &mut trouble)?.flatten().map(Into::into);
    note(&|seen| seen.stats.clone_from(&stats));
    let ages = told(driver.ages(&pauses), &mut trouble)?;
    note(&|seen| seen.ages = ages);
    let depth = told(driver.depth(watch.count_to), &mut trouble)?;
    note(&|seen| (seen.depth, seen.trouble) = (depth, trouble.clone()));
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
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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
            let all = manager.readings(watch(Duration::from_millis(200)));
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
    fn four_who_come_at_once_share_one_look() {
        let (hangs, looks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (still, counted) = (Arc::clone(&hangs), Arc::clone(&looks));
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |call| {
            if call == "control" {
                counted.fetch_add(1, Ordering::SeqCst);
                while still.load(Ordering::Acquire) {
                    sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        });
        let builder = Manager::builder().linked(false).driver("one", Arc::new(driver));
        let manager = builder.build().expect("valid");
        let soon = watch(Duration::from_millis(500));
        crate::tools::threads::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| manager.readings(soon))).collect();
            for one in asked {
                assert!(!one.join().expect("no panic")[0].up);
            }
        });
        assert_eq!(looks.load(Ordering::SeqCst), 1);
        hangs.store(false, Ordering::Release);
        let told = manager.readings(watch(SOON)).remove(0);
        assert!(told.up && told.depth.is_some(), "{told:?}");
    }

    #[test]
    fn answers_that_were_told_are_not_kept() {
        let builder = Manager::builder().linked(false).driver("one", memory());
        let manager = builder.build().expect("valid");
        let monitor = Monitor::default();
        for minutes in 1..=20 {
            let stats = StatScan::last(Duration::from_mins(minutes));
            let watch = Watch { stats: Some(stats), ..watch(SOON) };
            assert!(monitor.readings(manager.set(), watch)[0].stats.is_some());
        }
        assert!(monitor.0.lock().is_empty());
    }

    #[test]
    fn a_look_that_ended_when_nobody_waited_is_told_to_the_next_who_comes() {
        let (hangs, counts) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (still, counted) = (Arc::clone(&hangs), Arc::clone(&counts));
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |call| {
            if call == "depth" {
                while still.load(Ordering::Acquire) {
                    sleep(Duration::from_millis(1));
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let builder = Manager::builder().linked(false).driver("slow", Arc::new(driver));
        let manager = builder.build().expect("valid");
        let soon = watch(Duration::from_millis(20));
        assert!(manager.readings(soon)[0].depth.is_none());
        hangs.store(false, Ordering::Release);
        let begun = Instant::now();
        while counts.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < SOON);
            sleep(Duration::from_millis(1));
        }
        let told = manager.readings(watch(SOON)).remove(0);
        assert!(told.depth.is_some() && told.trouble.is_none(), "{told:?}");
        assert_eq!(counts.load(Ordering::SeqCst), 1, "without another look");
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
