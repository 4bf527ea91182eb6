//! Questions to all databases at once.

use std::sync::Arc;
use std::time::Duration;

use super::Database;
use super::asked::{Asked, LISTING};
use super::set::Databases;
use crate::driver::{Driver, DriverError};
use crate::error::Error;
use crate::tools::sync::mpsc;
use crate::tools::time::Instant;

/// An answer that was given is handed over within this time.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// Tells that a question was answered, or will not be, in whatever way it ended.
struct Ended(mpsc::Sender<usize>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        // Whoever asked may have what it wanted.
        let _gone = self.0.send(self.1);
    }
}

/// The answer of one database: listings have the answers of the other databases even when one is
/// down.
#[derive(Debug)]
pub struct PerDatabase<T> {
    /// The database's short name.
    pub database: String,
    /// Its answer, or why there is none.
    pub answer: Result<T, Error>,
}

impl Databases {
    /// Asks all databases at once, so that one that hangs holds up no other's answer.
    pub(crate) fn on_each<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
    ) -> Vec<PerDatabase<T>> {
        self.collect(action, ask, Asked::wait)
    }

    pub(crate) fn collect<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
        wait: fn(Asked<T>) -> Result<T, Error>,
    ) -> Vec<PerDatabase<T>> {
        let begun = self.begin_on_each(action, ask);
        let answer = |(database, asked): (Arc<Database>, _)| PerDatabase {
            database: database.name.to_string(),
            answer: wait(asked),
        };
        begun.into_iter().map(answer).collect()
    }

    /// The same for who waits no longer than this: a database that has not answered by then has an error.
    pub(crate) fn on_each_within<T: Send + 'static>(
        &self,
        action: &'static str,
        limit: Duration,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
    ) -> Vec<PerDatabase<T>> {
        let started = Instant::now();
        let begun = self.begin_on_each(action, ask);
        let answer = |(database, asked): (Arc<Database>, Asked<T>)| {
            let left = limit.saturating_sub(started.elapsed());
            PerDatabase { database: database.name.to_string(), answer: asked.wait_at_most(left) }
        };
        begun.into_iter().map(answer).collect()
    }

    fn begin_on_each<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
    ) -> Vec<(Arc<Database>, Asked<T>)> {
        let begin = |database: Arc<Database>| {
            let asked = database.begin(action, ask.clone());
            (database, asked)
        };
        self.everywhere().into_iter().map(begin).collect()
    }

    /// The first database that knows; an error only if none knows and one could not say.
    pub(crate) fn first<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<Option<T>, DriverError> + Clone + Send + 'static,
    ) -> Result<Option<(String, T)>, Error> {
        self.best(action, ask, |_| false, None)
    }

    /// As [`first`](Self::first), within this time if there is one; a weak answer, such as the trail of a
    /// moved job, counts only if no database has another.
    pub(crate) fn best<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<Option<T>, DriverError> + Clone + Send + 'static,
        is_weak: fn(&T) -> bool,
        limit: Option<Duration>,
    ) -> Result<Option<(String, T)>, Error> {
        let begun = Instant::now();
        let (mut failed, mut weak) = (None, None);
        // Answers are taken as they come: one that knows must not wait for one that hangs.
        let (tell, told) = mpsc::channel();
        let ask_one = |(at, database): (usize, Arc<Database>)| {
            let (ask, ended) = (ask.clone(), Ended(tell.clone(), at));
            let ask = move |driver: &dyn Driver| {
                let _ended = ended;
                ask(driver)
            };
            // Only who waits for a job's end has a limit, and a line for that.
            let asked = match limit {
                Some(_) => database.begin_ticket(action, ask),
                None => database.begin(action, ask),
            };
            Some((database, asked))
        };
        let mut asked: Vec<_> = self.everywhere().into_iter().enumerate().map(ask_one).collect();
        drop(tell);
        while asked.iter().any(Option::is_some) {
            let limits = asked.iter().flatten().map(|(database, _)| database.limit());
            let longest = limits.max().unwrap_or_default();
            let patience =
                limit.map_or(longest.saturating_mul(LISTING), |limit| limit.min(longest));
            let left = patience.saturating_sub(begun.elapsed());
            let next = told.recv_timeout(left).ok();
            // In time, or whichever is left when the time is over.
            let at = next.or_else(|| asked.iter().position(Option::is_some));
            let Some((database, asked_here)) = at.and_then(|at| asked[at].take()) else { continue };
            let answer = match (next, limit) {
                (Some(_), _) => asked_here.wait_at_most(HANDED_OVER),
                // Who waited for less than a call may take has no reason for suspicion.
                (None, Some(limit)) if limit < longest => asked_here.wait_at_most(Duration::ZERO),
                (None, _) => asked_here.wait_in_vain(),
            };
            let name = || database.name.to_string();
            match answer {
                Ok(Some(found)) if is_weak(&found) => weak = Some((name(), found)),
                Ok(Some(found)) => {
                    asked.into_iter().flatten().for_each(|(_, other)| other.abandon());
                    return Ok(Some((name(), found)));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        match (weak, failed) {
            (None, Some(error)) => Err(error),
            (weak, _) => Ok(weak),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::driver::ErrorKind;
    use crate::fixture::{SOON, database_with, databases, memory, settings};
    use crate::testing::FaultyDriver;
    use crate::tools::threads::sleep;

    fn with_second(
        fault: impl Fn(&str) -> Result<(), DriverError> + Send + Sync + 'static,
    ) -> Databases {
        let settings = settings(SOON);
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(fault);
        let one = database_with("one", memory(), &settings);
        let two = database_with("two", Arc::new(driver), &settings);
        Databases::new(vec![one, two], None, settings)
    }

    fn refused(call: &str) -> Result<(), DriverError> {
        if call == "depth" { Err(DriverError::new(ErrorKind::Other, "refused")) } else { Ok(()) }
    }

    #[test]
    fn each_database_answers_for_itself() {
        let set = with_second(refused);
        let answers = set.on_each("count jobs", |driver| driver.depth(1));
        let names: Vec<_> = answers.iter().map(|on| &*on.database).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(answers[0].answer.is_ok() && answers[1].answer.is_err());
    }

    #[test]
    fn one_that_knows_is_enough_and_one_that_cannot_say_is_an_error_only_if_none_knows() {
        let set = with_second(refused);
        let knows = |driver: &dyn Driver| Ok(Some(driver.depth(1)?));
        let (name, _) = set.first("count jobs", knows).expect("one knows").expect("it does");
        assert_eq!(name, "one");
        let nobody = |driver: &dyn Driver| driver.depth(1).map(|_| None::<()>);
        assert!(set.first("count jobs", nobody).is_err());
        let set = databases(&["one", "two"]);
        assert!(set.first("count jobs", nobody).expect("both say so").is_none());
    }

    #[test]
    fn an_answer_does_not_wait_for_a_database_that_hangs() {
        let hangs = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&hangs);
        let set = with_second(move |call| {
            while call == "depth" && still.load(Ordering::Acquire) {
                sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let begun = Instant::now();
        let found = set.first("count jobs", |driver| Ok(Some(driver.depth(1)?)));
        assert!(found.expect("one knows").is_some() && begun.elapsed() < SOON / 2);
        hangs.store(false, Ordering::Release);
    }

    #[test]
    fn a_weak_answer_counts_where_nobody_has_another() {
        let set = databases(&["one", "two"]);
        let two = set.find("two").expect("is there").identity().expect("answers");
        let ask = move |driver: &dyn Driver| Ok(Some(driver.identity()? == two));
        let found = set.best("look", ask, |is_two| !is_two, Some(SOON)).expect("both answer");
        assert_eq!(found, Some(("two".to_owned(), true)));
        let found = set.best("look", ask, |_| true, Some(SOON)).expect("both answer");
        assert!(found.is_some());
    }
}
