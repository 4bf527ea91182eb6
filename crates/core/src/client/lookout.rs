//! Threads that wait for jobs which other processes may end: one of them looks for all.
//!
//! No thread of ours is needed for it, and a database is asked for many jobs in one statement. Whoever looks waits
//! for its own job too; when it leaves, another takes its place. Where tasks await jobs, which cannot look, a
//! [keeper](super::keeper) looks for all.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;

use super::waiters::{Ended, Waiters, Watch, Woken};
use crate::database::Database;
use crate::driver::News;
use crate::tools::bell::Bell;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// The first look for an end in another process comes this soon.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// Looks for a job are never farther apart while few wait.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// With more that wait, by so much for each: at most 10,000 jobs are looked up in a second, unless more than
/// that many wait.
const PAUSE_EACH: Duration = Duration::from_micros(100);

/// And never farther apart than this.
const RAREST_LOOK: Duration = Duration::from_secs(1);

/// So many jobs are asked for in one statement.
const MAX_IDS: usize = 1_000;

/// The last look before a limit still gets a moment.
pub(super) const MIN_ANSWER: Duration = Duration::from_millis(50);

/// Who waits for the jobs of which database, by the place of the database in memory: each holds its own.
#[derive(Default)]
pub(crate) struct Lookouts(Mutex<HashMap<usize, Arc<Lookout>>>);

/// Those who wait for jobs of one database.
pub(super) struct Lookout {
    pub(super) database: Arc<Database>,
    pub(super) inner: Mutex<Inner>,
    /// Wakes the keeper.
    pub(super) bell: Bell,
}

#[derive(Default)]
pub(super) struct Inner {
    jobs: HashMap<JobId, Wanted>,
    /// Somebody looks for all, or is about to.
    has_leader: bool,
    /// A thread of its own looks for all, because tasks await.
    pub(super) has_keeper: bool,
    /// How many tasks await.
    pub(super) tasks: usize,
}

/// A job whose end is waited for.
struct Wanted {
    threads: usize,
    due: Instant,
    pause: Duration,
    ended: Arc<Ended>,
    /// What is known of what it told, where somebody hears that.
    known: Option<News>,
}

impl Wanted {
    /// Somebody hears what the job tells, and knows so much of it: whoever knows less is woken too early at most.
    fn hear(&mut self, known: News) {
        let order = |news: &News| (news.sent, news.noted_at);
        if self.known.is_none_or(|ours| order(&known) < order(&ours)) {
            self.known = Some(known);
        }
    }
}

impl Lookouts {
    fn key(database: &Arc<Database>) -> usize {
        Arc::as_ptr(database) as usize
    }

    pub(super) fn join(&self, database: &Arc<Database>, watch: &Watch<'_>) -> Arc<Lookout> {
        let mut all = self.0.lock();
        let new = || {
            let (database, inner, bell) = (Arc::clone(database), Mutex::default(), Bell::default());
            Arc::new(Lookout { database, inner, bell })
        };
        let lookout = Arc::clone(all.entry(Self::key(database)).or_insert_with(new));
        // Under the lock, so that none is let go of that somebody joins.
        let mut inner = lookout.inner.lock();
        let pause = watch.pause.unwrap_or(FIRST_LOOK);
        let wanted = inner.jobs.entry(watch.job()).or_insert_with(|| Wanted {
            threads: 0,
            due: Instant::now() + pause,
            pause,
            ended: watch.ended(),
            known: None,
        });
        wanted.threads += 1;
        if let Some(known) = watch.hears {
            wanted.hear(known);
        }
        drop(inner);
        lookout
    }

    /// The pause is kept: a job that turns out to live is not looked for as often as at first again.
    pub(super) fn leave(&self, lookout: &Arc<Lookout>, watch: &mut Watch<'_>) {
        let job = watch.job();
        let mut all = self.0.lock();
        let mut inner = lookout.inner.lock();
        if let Some(wanted) = inner.jobs.get_mut(&job) {
            watch.pause = Some(wanted.pause);
            wanted.threads -= 1;
            if wanted.threads == 0 {
                inner.jobs.remove(&job);
            }
        }
        // A keeper lets go of it when it ends.
        if inner.jobs.is_empty() && !inner.has_keeper {
            all.remove(&Self::key(&lookout.database));
        }
    }

    /// Lets go of a lookout that its keeper leaves; `false` if a task has come meanwhile, for which it has to stay.
    pub(super) fn dismiss_keeper(&self, lookout: &Arc<Lookout>) -> bool {
        let mut all = self.0.lock();
        let mut inner = lookout.inner.lock();
        if inner.tasks > 0 {
            return false;
        }
        inner.has_keeper = false;
        if inner.jobs.is_empty() {
            all.remove(&Self::key(&lookout.database));
        }
        true
    }

    /// Waits until the job may have ended, or until then. Those whose jobs are gone are woken through `waiters`, of
    /// which `watch` is. Tells whether it may have ended, or told something that is heard.
    pub(super) fn wait(
        &self,
        waiters: &Waiters,
        database: &Arc<Database>,
        watch: &mut Watch<'_>,
        until: Instant,
    ) -> bool {
        let lookout = self.join(database, watch);
        if lookout.inner.lock().has_keeper {
            // This job may be due before the one that it sleeps for.
            lookout.bell.ring();
        }
        let (led, is_told) = lookout.wait(waiters, watch, until);
        self.leave(&lookout, watch);
        lookout.hand_over(led);
        is_told
    }

    /// Whether anybody waits for a job of this database.
    pub(super) fn has_waiters(&self, database: &Arc<Database>) -> bool {
        self.0.lock().get(&Self::key(database)).is_some_and(|lookout| lookout.has_jobs())
    }

    /// How many databases are looked at.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Inner {
    /// Whether the thread that asks is to look for all from now on.
    fn take_lead(&mut self) -> bool {
        !self.has_keeper && !std::mem::replace(&mut self.has_leader, true)
    }
}

impl Lookout {
    /// Tells whether this thread is the one that looks, which is for it to hand over, and whether its job may have ended or told
    /// something.
    fn wait(&self, waiters: &Waiters, watch: &mut Watch<'_>, until: Instant) -> (bool, bool) {
        let mut leads = false;
        loop {
            leads = leads || self.inner.lock().take_lead();
            let next = if leads { self.next_due().min(until) } else { until };
            match watch.wait_until(next) {
                Woken::Ended => return (leads, true),
                Woken::Called => {}
                Woken::TimeIsUp if Instant::now() >= until => return (leads, false),
                Woken::TimeIsUp => self.look(waiters, until),
            }
        }
    }

    /// Lets another thread look, if there is one. Also called by one that did not look: it may have been called
    /// to it at the moment when its own job ended.
    pub(super) fn hand_over(&self, led: bool) {
        let mut inner = self.inner.lock();
        if led {
            inner.has_leader = false;
        }
        let has_nobody = !inner.has_leader && !inner.has_keeper;
        let next = inner.jobs.values().next().filter(|_| has_nobody);
        let next = next.map(|wanted| Arc::clone(&wanted.ended));
        drop(inner);
        if let Some(ended) = next {
            ended.call();
        }
    }

    /// Calls all who wait, threads and tasks: nobody looks for them.
    pub(super) fn call_all(&self) {
        let inner = self.inner.lock();
        let all: Vec<_> = inner.jobs.values().map(|wanted| Arc::clone(&wanted.ended)).collect();
        drop(inner);
        for ended in all {
            ended.call();
        }
    }

    /// Whether anybody waits.
    pub(super) fn has_jobs(&self) -> bool {
        !self.inner.lock().jobs.is_empty()
    }

    pub(super) fn next_due(&self) -> Instant {
        let inner = self.inner.lock();
        let due = inner.jobs.values().map(|wanted| wanted.due).min();
        due.unwrap_or_else(|| Instant::now() + MAX_PAUSE)
    }

    /// The jobs that are looked for now: those that are due, and those that are nearly, so that they are the
    /// next time too.
    fn due(&self, now: Instant) -> Arc<[JobId]> {
        let inner = self.inner.lock();
        let is_due =
            |wanted: &Wanted| wanted.due.saturating_duration_since(now) <= wanted.pause / 4;
        let due = inner.jobs.iter().filter(|(_, wanted)| is_due(wanted)).take(MAX_IDS);
        due.map(|(job, _)| *job).collect()
    }

    /// Those of these jobs of which somebody hears what they tell.
    fn heard(&self, jobs: &[JobId]) -> Vec<JobId> {
        let inner = self.inner.lock();
        let is_heard = |job: &&JobId| inner.jobs.get(job).is_some_and(|one| one.known.is_some());
        jobs.iter().filter(is_heard).copied().collect()
    }

    /// The jobs that told something since.
    fn new_among(&self, news: &[News]) -> Vec<JobId> {
        let mut inner = self.inner.lock();
        let mut told = Vec::new();
        for one in news {
            let known = inner.jobs.get_mut(&one.job).and_then(|wanted| wanted.known.as_mut());
            if let Some(known) = known.filter(|known| **known != *one) {
                *known = *one;
                told.push(one.job);
            }
        }
        told
    }

    /// These were looked for: the next time is later.
    fn put_off(&self, jobs: &[JobId]) {
        let mut inner = self.inner.lock();
        let all = u32::try_from(inner.jobs.len()).unwrap_or(u32::MAX);
        let longest = MAX_PAUSE.max(PAUSE_EACH.saturating_mul(all)).min(RAREST_LOOK);
        let now = Instant::now();
        for job in jobs {
            if let Some(wanted) = inner.jobs.get_mut(job) {
                wanted.pause = (wanted.pause * 5 / 4).min(longest);
                wanted.due = now + wanted.pause;
            }
        }
    }

    /// Wakes those whose jobs are gone. On an error that may stay, all that were asked for: each finds out for
    /// itself.
    pub(super) fn look(&self, waiters: &Waiters, until: Instant) {
        let jobs = self.due(Instant::now());
        if jobs.is_empty() {
            return;
        }
        let (asked, heard) = (Arc::clone(&jobs), self.heard(&jobs));
        let ask = self.database.begin_ticket("say which jobs live", move |driver| {
            let news = if heard.is_empty() { Vec::new() } else { driver.news(&heard)? };
            Ok((driver.live(&asked)?, news))
        });
        let left = until.saturating_duration_since(Instant::now());
        match ask.wait_at_most(left.min(self.database.limit()).max(MIN_ANSWER)) {
            Ok((live, news)) => {
                self.put_off(&jobs);
                waiters.note_news(self.new_among(&news));
                let live: HashSet<_> = live.into_iter().collect();
                waiters.note(jobs.iter().copied().filter(|job| !live.contains(job)));
            }
            // This thread's time was too short for an answer. Whoever takes its place asks at once.
            Err(error) if error.is_down() && Instant::now() >= until => {}
            Err(error) => {
                self.put_off(&jobs);
                if !error.is_down() {
                    waiters.note(jobs.iter().copied());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::driver::{Deadline, DriverError, ErrorKind};
    use crate::fixture::{self, SOON, memory, records};
    use crate::testing::FaultyDriver;

    fn eventually(done: impl Fn() -> bool) {
        fixture::eventually("the ends are noticed", done);
    }

    struct Bed {
        waiters: Arc<Waiters>,
        lookouts: Arc<Lookouts>,
        database: Arc<Database>,
        /// How often it was asked which jobs live, and for anything else.
        asked: Arc<(AtomicUsize, AtomicUsize)>,
        fails: Arc<StdMutex<Option<ErrorKind>>>,
        jobs: Vec<JobId>,
    }

    impl Bed {
        fn new(jobs: usize) -> Self {
            let inner = memory();
            let records = records(jobs);
            inner.insert(&records, Deadline::NONE).expect("stored");
            let asked = Arc::<(AtomicUsize, AtomicUsize)>::default();
            let fails = Arc::<StdMutex<Option<ErrorKind>>>::default();
            let (counts, kind) = (Arc::clone(&asked), Arc::clone(&fails));
            let driver = FaultyDriver::new(inner).with_fault(move |call| {
                let which = if call == "live" { &counts.0 } else { &counts.1 };
                which.fetch_add(1, Ordering::SeqCst);
                let kind = *kind.lock().expect("no panic");
                if call == "live"
                    && let Some(kind) = kind
                {
                    return Err(DriverError::new(kind, "no"));
                }
                Ok(())
            });
            let database = fixture::database("one", Arc::new(driver));
            let jobs = records.iter().map(|job| job.id).collect();
            let (waiters, lookouts) = (Arc::default(), Arc::default());
            Self { waiters, lookouts, database, asked, fails, jobs }
        }

        /// A thread for each of these that waits for its end; `ended` counts those that came back.
        fn wait_for(&self, jobs: &[JobId], limit: Duration, ended: &Arc<AtomicUsize>) {
            for job in jobs.iter().copied() {
                let (waiters, database) = (Arc::clone(&self.waiters), Arc::clone(&self.database));
                let (ended, lookouts) = (Arc::clone(ended), Arc::clone(&self.lookouts));
                std::thread::spawn(move || {
                    let mut watch = waiters.watch(job);
                    lookouts.wait(&waiters, &database, &mut watch, Instant::now() + limit);
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
            eventually(|| self.waiters.count() >= jobs.len());
        }

        /// Ends a job as another process does, of which nobody here is told.
        fn end(&self, job: JobId) {
            assert!(self.database.driver().dequeue(job, None).expect("answers"));
        }
    }

    #[test]
    fn many_that_wait_are_looked_for_in_one_question_and_each_is_woken_by_its_own_end() {
        let bed = Bed::new(2_000);
        let ended = Arc::default();
        let begun = Instant::now();
        bed.wait_for(&bed.jobs, SOON, &ended);
        for (count, job) in bed.jobs.iter().enumerate() {
            bed.end(*job);
            // What others wait for is still awaited.
            if count == 0 {
                eventually(|| ended.load(Ordering::SeqCst) == 1);
            }
        }
        eventually(|| ended.load(Ordering::SeqCst) == 2_000);
        // One question a millisecond, were there only new ones, and each takes its time.
        let most = begun.elapsed().as_millis() as usize + 10;
        assert!(bed.asked.0.load(Ordering::SeqCst) <= most, "{:?}", bed.asked);
        eventually(|| bed.lookouts.len() == 0);
    }

    #[test]
    fn those_that_have_waited_for_long_are_asked_for_seldom_and_together() {
        let bed = Bed::new(2_000);
        let ended = Arc::default();
        bed.wait_for(&bed.jobs, SOON, &ended);
        // By then looks for all are a tenth of a second apart, and come together.
        std::thread::sleep(Duration::from_millis(800));
        let before = bed.asked.0.load(Ordering::SeqCst);
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        let asked = bed.asked.0.load(Ordering::SeqCst) - before;
        // One question for each waiting thread would be five thousand.
        let few = begun.elapsed().as_millis() as usize / 10;
        assert!(asked <= few, "{asked} questions in {:?}", begun.elapsed());
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        bed.jobs.iter().for_each(|job| bed.end(*job));
        eventually(|| ended.load(Ordering::SeqCst) == 2_000);
    }

    #[test]
    fn the_ends_of_other_jobs_in_this_process_cost_those_that_wait_no_question() {
        let bed = Bed::new(1);
        bed.fails.lock().expect("no panic").replace(ErrorKind::Down);
        let ended = Arc::default();
        bed.wait_for(&bed.jobs, SOON, &ended);
        let before = bed.asked.1.load(Ordering::SeqCst);
        for _ in 0..1_000 {
            bed.waiters.note([JobId::new()]);
        }
        assert_eq!((bed.asked.1.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (before, 0));
        bed.waiters.note([bed.jobs[0]]);
        eventually(|| ended.load(Ordering::SeqCst) == 1);
    }

    #[test]
    fn when_the_one_that_looks_leaves_another_looks() {
        let bed = Bed::new(2);
        let (left, ended) = (Arc::default(), Arc::default());
        bed.wait_for(&bed.jobs[..1], Duration::from_millis(30), &left);
        bed.wait_for(&bed.jobs[1..], SOON, &ended);
        eventually(|| left.load(Ordering::SeqCst) == 1);
        bed.end(bed.jobs[1]);
        eventually(|| ended.load(Ordering::SeqCst) == 1);
    }

    #[test]
    fn a_job_that_lives_after_all_is_not_looked_for_as_often_as_at_first() {
        let bed = Bed::new(1);
        let mut watch = bed.waiters.watch(bed.jobs[0]);
        let until = Instant::now() + Duration::from_millis(50);
        bed.lookouts.wait(&bed.waiters, &bed.database, &mut watch, until);
        let pause = watch.pause.expect("it was looked for");
        assert!(pause > FIRST_LOOK, "{pause:?}");
        bed.fails.lock().expect("no panic").replace(ErrorKind::Other);
        let before = bed.asked.0.load(Ordering::SeqCst);
        for _ in 0..20 {
            // It is told to look for itself, finds the job alive, and waits again.
            let until = Instant::now() + SOON;
            bed.lookouts.wait(&bed.waiters, &bed.database, &mut watch, until);
        }
        assert_eq!(bed.asked.0.load(Ordering::SeqCst), before + 20);
        assert!(watch.pause.expect("it was looked for") >= (pause * 10).min(MAX_PAUSE));
    }

    #[test]
    fn a_database_that_is_away_is_asked_again_and_an_error_that_stays_is_each_one_s_own() {
        let bed = Bed::new(1);
        bed.fails.lock().expect("no panic").replace(ErrorKind::Down);
        let ended = Arc::default();
        bed.wait_for(&bed.jobs, SOON, &ended);
        bed.end(bed.jobs[0]);
        let before = bed.asked.0.load(Ordering::SeqCst);
        eventually(|| bed.asked.0.load(Ordering::SeqCst) > before + 1);
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        bed.fails.lock().expect("no panic").replace(ErrorKind::Permission);
        eventually(|| ended.load(Ordering::SeqCst) == 1);
    }
}
