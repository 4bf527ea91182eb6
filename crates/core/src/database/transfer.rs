//! Waiting jobs on their way from one database to another; see [`Moves`](crate::driver::Moves) for
//! the protocol and why it loses and doubles nothing.

use std::collections::HashSet;
use std::sync::Arc;

use qudo_hooks::JobId;
use uuid::Uuid;

use super::Database;
use super::set::Databases;
use crate::driver::{Arrival, Departure, Driver, DriverError, Leg, MovingJob, Place, Traces};
use crate::error::Error;
use crate::tools::random::new_id;

/// Jobs of one step: few enough that no transaction is long.
const BATCH: u32 = 250;

/// The first step takes so many: how large their arguments are is not known yet.
const FIRST_BATCH: u32 = 16;

/// Arguments of one step have about so many bytes at most, if they are as large as those of the one before.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Jobs looked at in one step, without their arguments.
const PAGE: u32 = 1_000;

/// What [`Manager::move_jobs`](crate::Manager::move_jobs) did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MoveReport {
    /// Jobs that are in the other database now.
    pub moved: usize,
    /// Jobs with a unique key that stayed: the other database is not the key's home, or another
    /// job holds the key there.
    pub stayed: usize,
}

/// One move, from one database to another.
pub(crate) struct Move<'a> {
    databases: &'a Databases,
    from: &'a Arc<Database>,
    to: &'a Arc<Database>,
    from_id: String,
    to_id: String,
    done: MoveReport,
    /// How many jobs the next step takes.
    batch: u32,
    /// Jobs that cannot go there now: it is not the home of their key, or another job holds it there.
    stayed: HashSet<JobId>,
    /// Those of them whose key another job holds there.
    taken: Vec<JobId>,
    /// Jobs that are in the other database now, where they are asked for.
    moved: Option<Vec<JobId>>,
}

/// What became of a move of some jobs.
pub(crate) struct MovedThese {
    /// Those that are in the other database now.
    pub(crate) moved: Vec<JobId>,
    /// Those whose key another job holds there.
    pub(crate) taken: Vec<JobId>,
}

/// How many jobs the next step takes after one of so many that had so many bytes, as if the next were as
/// large.
fn next_batch(batch: u32, bytes: usize) -> u32 {
    if bytes <= MAX_BYTES {
        return (batch * 2).min(BATCH);
    }
    let fits = u64::from(batch) * MAX_BYTES as u64 / bytes as u64;
    (fits as u32).max(1)
}

impl<'a> Move<'a> {
    pub(crate) fn new(
        databases: &'a Databases,
        from: &'a Arc<Database>,
        to: &'a Arc<Database>,
    ) -> Result<Self, Error> {
        let (from_id, to_id) = (from.identity()?, to.identity()?);
        if from_id == to_id {
            return Err(Error::SameDatabase {
                first: from.name.to_string(),
                second: to.name.to_string(),
                reason: format!("both have the identity {from_id}"),
            });
        }
        let (from_id, to_id) = (from_id.to_string(), to_id.to_string());
        let (done, batch) = (MoveReport::default(), FIRST_BATCH);
        let (stayed, taken, moved) = (HashSet::new(), Vec::new(), None);
        Ok(Self { databases, from, to, from_id, to_id, done, batch, stayed, taken, moved })
    }

    /// Finishes what an earlier move left, then moves batch after batch.
    pub(crate) fn run(mut self) -> Result<MoveReport, Error> {
        let ended = self.move_all();
        self.end(ended)?;
        Ok(self.done)
    }

    /// As [`run`](Self::run), for some jobs only.
    pub(crate) fn run_these(mut self, jobs: &[JobId]) -> Result<MovedThese, Error> {
        self.moved = Some(Vec::new());
        let ended = self.move_these(jobs);
        self.end(ended)?;
        Ok(MovedThese { moved: self.moved.unwrap_or_default(), taken: self.taken })
    }

    /// Takes jobs out as they come, until some of a batch may not go. From then on it goes through the
    /// waiting jobs in the order of their ids and takes out only those that may: the others would be found
    /// again, and none is to be out of reach for longer than its batch. Until a whole round moves nothing.
    fn move_all(&mut self) -> Result<(), Error> {
        self.resume()?;
        while self.stayed.is_empty() {
            let (name, batch) = (self.to_id.clone(), self.batch);
            let jobs = at(self.from, move |driver| driver.move_out(&name, new_id(), None, batch))?;
            if jobs.is_empty() {
                return Ok(());
            }
            self.carry(jobs)?;
        }
        loop {
            let before = self.done.moved;
            self.stayed.clear();
            self.move_round()?;
            if self.done.moved == before {
                return Ok(());
            }
        }
    }

    fn move_round(&mut self) -> Result<(), Error> {
        let mut after = JobId::from_uuid(Uuid::nil());
        loop {
            let from = after;
            let page = at(self.from, move |driver| driver.traces(from, PAGE))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let waits = |one: &&Traces| {
                one.places.iter().any(|place| matches!(place, Place::Ready | Place::Scheduled))
            };
            let (go, stay): (Vec<_>, Vec<_>) = page.iter().filter(waits).partition(|one| {
                one.facts
                    .as_ref()
                    .is_some_and(|(ability, key)| self.may_go(ability, key.as_deref()))
            });
            self.stayed.extend(stay.iter().map(|one| one.id));
            let go: Vec<_> = go.iter().map(|one| one.id).collect();
            self.move_these_now(&go)?;
        }
    }

    fn move_these(&mut self, jobs: &[JobId]) -> Result<(), Error> {
        self.resume()?;
        self.move_these_now(jobs)
    }

    fn move_these_now(&mut self, jobs: &[JobId]) -> Result<(), Error> {
        let mut rest = jobs;
        while !rest.is_empty() {
            let (ids, later) = rest.split_at(rest.len().min(self.batch as usize));
            rest = later;
            let (name, ids, batch) = (self.to_id.clone(), ids.to_vec(), self.batch);
            let take =
                move |driver: &dyn Driver| driver.move_out(&name, new_id(), Some(&ids), batch);
            let jobs = at(self.from, take)?;
            self.carry(jobs)?;
        }
        Ok(())
    }

    /// Also after an error.
    fn end(&mut self, ended: Result<(), Error>) -> Result<(), Error> {
        self.done.stayed = self.stayed.len();
        ended?;
        // A job that an earlier move had brought already, and that may not go there any more.
        self.cancel_ghosts(JobId::from_uuid(Uuid::nil()))
    }

    /// The steps after a batch was taken out. Those that cannot stay there are put back at once, also
    /// after an error; if that fails too, the next move finds them as the remains of this one.
    fn carry(&mut self, mut jobs: Vec<MovingJob>) -> Result<(), Error> {
        if !jobs.is_empty() {
            let bytes = jobs.iter().map(|job| job.record.facts.size()).sum();
            self.batch = next_batch(jobs.len() as u32, bytes);
        }
        let mut back = Vec::new();
        jobs.retain(|job| {
            let goes = self.may_go(&job.record.facts.ability, job.record.facts.uniqkey.as_deref());
            if !goes {
                back.push(job.departed());
            }
            goes
        });
        let carried = self.bring(jobs, &mut back);
        if back.is_empty() {
            return carried;
        }
        self.stayed.extend(back.iter().map(|one| one.job));
        let put_back = at(self.from, move |driver| driver.move_back(&back));
        carried.and(put_back.map(drop))
    }

    fn bring(&mut self, jobs: Vec<MovingJob>, back: &mut Vec<Departure>) -> Result<(), Error> {
        let mut brought: Vec<_> = jobs.iter().map(MovingJob::departed).collect();
        let name = self.from_id.clone();
        let answers = at(self.to, move |driver| driver.move_in(&name, &jobs))?;
        let mut answers = answers.into_iter();
        brought.retain(|one| {
            let answer = answers.next();
            if matches!(answer, Some(Arrival::KeyHeld(_))) {
                self.taken.push(one.job);
            }
            let arrived = answer == Some(Arrival::Here);
            if !arrived {
                back.push(*one);
            }
            arrived
        });
        let asked = brought.clone();
        let left = at(self.from, move |driver| driver.moved_out(&asked))?;
        if left.len() < brought.len() {
            // These departures are over: another mover ended them, or took them back. What we brought came too late.
            let known: HashSet<_> = left.iter().copied().collect();
            let late: Vec<_> = brought.into_iter().filter(|one| !known.contains(one)).collect();
            at(self.to, move |driver| driver.cancel_move_in(&late))?;
        }
        self.note_moved(&left);
        self.finish(left)
    }

    fn note_moved(&mut self, left: &[Departure]) {
        self.done.moved += left.len();
        if let Some(moved) = &mut self.moved {
            moved.extend(left.iter().map(|one| one.job));
        }
    }

    /// A key's job goes to the key's home only.
    fn may_go(&self, ability: &str, key: Option<&str>) -> bool {
        let Some(key) = key else { return true };
        self.databases.home_of(ability, key).is_some_and(|home| Arc::ptr_eq(&home, self.to))
    }

    /// The steps after a batch surely arrived.
    fn finish(&self, left: Vec<Departure>) -> Result<(), Error> {
        let arrived = left.clone();
        at(self.to, move |driver| driver.moved_in(&arrived))?;
        at(self.from, move |driver| driver.leave_trail(&left))
    }

    /// Goes on with what a move that was killed left in either database.
    fn resume(&mut self) -> Result<(), Error> {
        let first = JobId::from_uuid(Uuid::nil());
        let mut after = first;
        loop {
            let (name, from) = (self.to_id.clone(), after);
            let left = at(self.from, move |driver| driver.left_for(&name, from, BATCH))?;
            let Some(last) = left.last() else { break };
            after = last.job;
            self.note_moved(&left);
            self.finish(left)?;
        }
        after = first;
        loop {
            let (name, from) = (self.to_id.clone(), after);
            let batch = self.batch;
            let jobs = at(self.from, move |driver| driver.moving_out(&name, from, batch))?;
            let Some(last) = jobs.last() else { break };
            after = last.record.id;
            self.carry(jobs)?;
        }
        self.cancel_ghosts(first)
    }

    /// What arrives without a mark of its departure where it came from was brought by a mover that had been
    /// overtaken and then died. The look at the arrivals comes first: a departure is marked before anything arrives by it.
    fn cancel_ghosts(&self, mut after: JobId) -> Result<(), Error> {
        loop {
            let (name, from) = (self.from_id.clone(), after);
            let rows = at(self.to, move |driver| driver.moving_in(&name, from, BATCH))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.job;
            let ids: Vec<_> = rows.iter().map(|one| one.job).collect();
            let legs = at(self.from, move |driver| driver.legs(&ids))?;
            let known: HashSet<_> = legs.into_iter().map(|(one, _): (_, Leg)| one).collect();
            let ghosts: Vec<_> = rows.into_iter().filter(|one| !known.contains(one)).collect();
            if !ghosts.is_empty() {
                at(self.to, move |driver| driver.cancel_move_in(&ghosts))?;
            }
        }
    }
}

fn at<T: Send + 'static>(
    database: &Arc<Database>,
    ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
) -> Result<T, Error> {
    database.call("move jobs", ask)
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;
    use crate::driver::{Deadline, Due, JobRecord, JobState};
    use crate::driver::{ErrorKind, Order};
    use crate::fixture::{SOON, database_with, memory, record, settings};
    use crate::testing::FaultyDriver;

    #[test]
    fn steps_grow_with_small_arguments_and_shrink_with_large_ones() {
        assert_eq!(next_batch(FIRST_BATCH, 100), 32);
        assert_eq!(next_batch(200, 100), BATCH);
        assert_eq!(next_batch(16, 16 * 8 * 1024 * 1024), 2);
        assert_eq!(next_batch(1, 64 * 1024 * 1024), 1);
    }

    /// Two databases; a call to either of them that is counted down to fails as if its answer were lost.
    struct Bed {
        set: Databases,
        from: Arc<Database>,
        to: Arc<Database>,
        calls: Arc<Mutex<Option<u32>>>,
    }

    impl Bed {
        fn new() -> Self {
            let settings = settings(SOON);
            let calls = Arc::new(Mutex::new(None));
            let database = |name| {
                let calls: Arc<Mutex<Option<u32>>> = Arc::clone(&calls);
                let driver = FaultyDriver::new(memory()).with_fault(move |call| {
                    let mut left = calls.lock().expect("no panic");
                    let counts =
                        call.starts_with("move") || call.contains("moved") || call == "leave_trail";
                    match &mut *left {
                        Some(0) => Err(DriverError::new(ErrorKind::Other, "killed")),
                        Some(left) if counts => {
                            *left -= 1;
                            Ok(())
                        }
                        _ => Ok(()),
                    }
                });
                database_with(name, Arc::new(driver), &settings)
            };
            let (from, to) = (database("from"), database("to"));
            let set = Databases::new(vec![Arc::clone(&from), Arc::clone(&to)], None, settings);
            Self { set, from, to, calls }
        }

        fn store(&self, job: JobRecord) -> JobId {
            let id = job.id;
            self.from.driver().insert(&[job], Deadline::NONE).expect("stored");
            id
        }

        fn run(&self) -> Result<MoveReport, Error> {
            Move::new(&self.set, &self.from, &self.to)?.run()
        }

        /// Where the job can be claimed, now or later.
        fn places(&self, id: JobId) -> Vec<&str> {
            let waits = |one: &&Arc<Database>| {
                matches!(
                    one.driver().state(id).expect("answers"),
                    Some(JobState::Ready | JobState::Scheduled { .. })
                )
            };
            [&self.from, &self.to].into_iter().filter(waits).map(|one| &*one.name).collect()
        }
    }

    #[test]
    fn what_waits_is_moved_with_its_due_time_and_followed_by_its_trail() {
        let bed = Bed::new();
        let ready = bed.store(record());
        let later = bed.store(JobRecord { due: Due::In(SOON * 100), ..record() });
        let moved = bed.run().expect("answers");
        assert_eq!((moved.moved, moved.stayed), (2, 0));
        assert_eq!((bed.places(ready), bed.places(later)), (vec!["to"], vec!["to"]));
        let state = bed.to.driver().state(later).expect("answers");
        assert!(matches!(state, Some(JobState::Scheduled { .. })), "{state:?}");
        let to = bed.to.identity().expect("answers").to_string();
        let trail = bed.from.driver().trail(ready).expect("answers").expect("it was moved");
        assert!(trail.to == Some(to) && trail.age.is_some_and(|age| age < SOON), "{trail:?}");
        assert_eq!(bed.to.driver().trail(ready).expect("answers").map(|one| one.to), Some(None));
    }

    #[test]
    fn a_key_moves_to_its_home_only() {
        let bed = Bed::new();
        let keyed = |key: &str| crate::fixture::keyed(key);
        let jobs: Vec<_> = (0..20).map(|n| bed.store(keyed(&n.to_string()))).collect();
        let moved = bed.run().expect("answers");
        assert!(moved.moved > 0 && moved.stayed > 0 && moved.moved + moved.stayed == 20);
        for (n, id) in jobs.iter().enumerate() {
            let home = bed.set.home_of("mail", &n.to_string()).expect("there are two");
            assert_eq!(bed.places(*id), [&*home.name]);
        }
        bed.from.order(Order::Draining, true).expect("answers");
        let rest = bed.run().expect("answers");
        assert_eq!((rest.moved, rest.stayed), (moved.stayed, 0));
    }

    #[test]
    fn a_key_that_another_job_holds_there_stays() {
        let bed = Bed::new();
        let keyed = || crate::fixture::keyed("k");
        bed.from.order(Order::Draining, true).expect("answers");
        let ours = bed.store(keyed());
        bed.to.driver().insert(&[keyed()], Deadline::NONE).expect("stored");
        let moved = bed.run().expect("answers");
        assert_eq!((moved.moved, moved.stayed), (0, 1));
        assert_eq!(bed.places(ours), ["from"]);
    }

    #[test]
    fn killed_before_any_step_the_next_move_goes_on_and_no_job_is_lost_or_doubled() {
        for steps in 0..20 {
            let bed = Bed::new();
            let jobs: Vec<_> = (0..3).map(|_| bed.store(record())).collect();
            *bed.calls.lock().expect("no panic") = Some(steps);
            let broken_off = bed.run().is_err();
            *bed.calls.lock().expect("no panic") = None;
            for id in &jobs {
                assert!(bed.places(*id).len() <= 1, "after {steps} steps");
            }
            bed.run().expect("answers");
            for id in &jobs {
                assert_eq!(bed.places(*id), ["to"], "after {steps} steps");
            }
            if !broken_off {
                assert!(steps > 4, "a move has more steps");
                return;
            }
        }
        panic!("a move of three jobs has fewer steps");
    }

    /// Two movers, one of which does something at a time: so many calls of the first, then so many of the second, then the
    /// rest of the first, then the rest of the second.
    struct Turns {
        /// Whose turn it is, and how many calls are left of it.
        turn: Mutex<(usize, u32)>,
        next: Mutex<Vec<(usize, u32)>>,
        passed: Condvar,
    }

    impl Turns {
        fn new(first: u32, second: u32) -> Arc<Self> {
            let next = vec![(1, u32::MAX), (0, u32::MAX), (1, second)];
            let (turn, next, passed) = (Mutex::new((0, first)), Mutex::new(next), Condvar::new());
            Arc::new(Self { turn, next, passed })
        }

        fn pass(&self, turn: &mut (usize, u32)) {
            *turn = self.next.lock().expect("no panic").pop().unwrap_or((usize::MAX, 0));
            self.passed.notify_all();
        }

        /// A mover is about to call; what it called before is done.
        fn call(&self, who: usize) {
            let mut turn = self.turn.lock().expect("no panic");
            if *turn == (who, 0) {
                self.pass(&mut turn);
            }
            while turn.0 != who && turn.0 != usize::MAX {
                turn = self.passed.wait(turn).expect("no panic");
            }
            turn.1 = turn.1.saturating_sub(1);
        }

        /// A mover is at its end.
        fn end(&self, who: usize) {
            let mut turn = self.turn.lock().expect("no panic");
            let mut next = self.next.lock().expect("no panic");
            next.retain(|(of, _)| *of != who);
            drop(next);
            if turn.0 == who {
                self.pass(&mut turn);
            }
        }
    }

    /// A spool and the databases it is for, as one process sees them.
    fn process(
        drivers: &[Arc<dyn Driver>],
        watch: impl Fn() + Send + Sync + Clone + 'static,
    ) -> Databases {
        let settings = settings(SOON);
        let open = |(name, driver): (&str, &Arc<dyn Driver>)| {
            let watch = watch.clone();
            let fault = move |call: &str| {
                if call.contains("mov") || matches!(call, "legs" | "left_for" | "leave_trail") {
                    watch();
                }
                Ok(())
            };
            let driver = FaultyDriver::new(Arc::clone(driver)).with_fault(fault);
            database_with(name, Arc::new(driver), &settings)
        };
        let mut opened: Vec<_> =
            ["from", "one", "two"].into_iter().zip(drivers).map(open).collect();
        let spool = opened.remove(0);
        Databases::new(opened, Some(spool), settings.clone())
    }

    /// All moves out of the spool, as far as the process knows the homes.
    fn forward(set: &Databases) {
        let all = set.everywhere();
        let spool = all.iter().find(|one| set.is_spool(one)).expect("there is one");
        for to in all.iter().filter(|one| !set.is_spool(one)) {
            Move::new(set, spool, to).expect("two").run().expect("answers");
        }
    }

    /// Where a keyed job of a spool can be claimed after two processes moved it at the same time, of which the second
    /// knows that the home of its key is drained.
    fn after_two_movers(first: u32, second: u32) -> Vec<String> {
        let drivers: Vec<_> = (0..3).map(|_| memory()).collect();
        let turns = Turns::new(first, second);
        let watched = |who: usize| {
            let turns = Arc::clone(&turns);
            process(&drivers, move || turns.call(who))
        };
        let (slow, fast) = (watched(0), watched(1));
        let last = process(&drivers, || ());
        let record = crate::fixture::keyed("k");
        let job = record.id;
        drivers[0].insert(&[record], Deadline::NONE).expect("stored");
        let home = slow.home_of("mail", "k").expect("there are two").name.to_string();
        for set in [&fast, &last] {
            set.find(&home).expect("is there").order(Order::Draining, true).expect("answers");
        }
        std::thread::scope(|scope| {
            for (who, set) in [&slow, &fast].into_iter().enumerate() {
                let turns = &turns;
                scope.spawn(move || {
                    forward(set);
                    turns.end(who);
                });
            }
        });
        forward(&last);
        let all = last.everywhere();
        for one in &all {
            let depth = one.driver().depth(9).expect("answers");
            assert_eq!(depth.moving.count, 0, "{first} and {second} calls: {} is clear", one.name);
        }
        let waits = |one: &&Arc<Database>| {
            let state = one.driver().state(job).expect("answers");
            matches!(state, Some(JobState::Ready | JobState::Scheduled { .. }))
        };
        all.iter().filter(waits).map(|one| one.name.to_string()).collect()
    }

    #[test]
    fn two_movers_who_know_different_homes_lose_and_double_nothing_however_they_overtake_each_other()
     {
        for first in 0..24 {
            for second in 0..24 {
                let places = after_two_movers(first, second);
                assert_eq!(places.len(), 1, "after {first} and {second} calls: {places:?}");
            }
        }
    }

    #[test]
    fn two_names_for_one_database_are_no_way() {
        let (driver, settings) = (memory(), settings(SOON));
        let one = database_with("one", Arc::clone(&driver), &settings);
        let two = database_with("two", driver, &settings);
        let set = Databases::new(vec![Arc::clone(&one), Arc::clone(&two)], None, settings);
        assert!(matches!(Move::new(&set, &one, &two), Err(Error::SameDatabase { .. })));
    }
}
