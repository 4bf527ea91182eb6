//! A job that is followed to its end, through moves and databases that are away.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::Client;
use super::hearing::hear;
use super::known::{self, Known};
use super::lookout::MIN_ANSWER;
use crate::database::Database;
use crate::driver::{Driver, DriverError, Ending, Exception, JobState, ReplyRow, Trail};
use crate::error::Error;
use crate::progress::Progress;
use crate::tools::awake;
use crate::tools::sync::Mutex;
use crate::tools::time::{Instant, utc_now};

/// While no database says where the job is, all databases are asked with this pause.
pub(super) const LOST: Duration = Duration::from_millis(100);

/// The longest that anybody waits, where no end of it can be reckoned.
pub(super) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// How long one look waits for an answer.
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// A job that was moved more often is not followed further.
const MAX_MOVES: usize = 10;

/// What is known of a job after all databases were asked where it may be.
pub(super) enum Found {
    Lives(JobState),
    Completed(Vec<ReplyRow>),
    /// It completed longer ago than replies are kept.
    Expired,
    Failed(Box<Exception>),
    Removed(Ending),
    /// It completed without a reply, and this job took its place.
    Replaced(JobId),
    Unknown,
}

/// What a look means to whoever waits.
pub(super) enum Verdict {
    Done(Done),
    /// This job goes on in its place: it was replaced by it, or failed for good and was enqueued again as it.
    GoesOn(Arc<Tracked>),
    /// It lives, or its database is away.
    Waits(Option<JobState>),
}

/// What a look means to whoever reads what the job tells.
pub(super) enum Followed {
    Lives(Option<JobState>),
    /// Another job [goes on](Tracked::next).
    GoesOn,
    Completed,
    /// It failed for good, was cancelled or removed.
    Ended,
    /// Nobody knows it.
    Unknown,
}

/// A job that completed, as a caller who waited for it is told.
pub(super) enum Done {
    Replies(Vec<ReplyRow>),
    Expired,
}

/// A job, where it is, and when it was alive.
pub(super) struct Tracked {
    pub(super) client: Arc<Client>,
    pub(super) id: JobId,
    /// Where it was stored, or its key was found.
    pub(super) database: Option<Arc<Database>>,
    /// The database where the job was seen last, if that is another one. The time in `alive` belongs to this database:
    /// that another database does not have the job says nothing.
    place: Mutex<Option<Arc<Database>>>,
    /// When the job was alive for sure, in milliseconds by [`awake::now`]; 0 if nobody saw it yet.
    alive: AtomicU64,
    /// Of a restored ticket: the id of the database where the job was, until that was compared.
    expected: Mutex<Option<Uuid>>,
    /// The job that goes on in its place: it was replaced by it, or failed for good and was enqueued again as it.
    next: Mutex<Option<Arc<Tracked>>>,
}

impl Drop for Tracked {
    /// One after the other: a chain that is long would be dropped in as many calls within each other.
    fn drop(&mut self) {
        let mut next = self.next.get_mut().take();
        while let Some(mut job) = next.and_then(Arc::into_inner) {
            next = job.next.get_mut().take();
        }
    }
}

impl Tracked {
    /// A job that was stored there, or was found there by its key, after this instant by [`awake::now`].
    pub(super) fn stored(
        client: &Arc<Client>,
        id: JobId,
        database: Arc<Database>,
        asked: Duration,
    ) -> Self {
        Self::new(client, id, Some(database), millis(asked))
    }

    /// A job of which only the id is known.
    pub(super) fn of_id(client: &Arc<Client>, id: JobId) -> Self {
        Self::new(client, id, None, 0)
    }

    /// A job that was there when a ticket was saved, and alive then.
    pub(super) fn restored(
        client: &Arc<Client>,
        id: JobId,
        database: Option<Arc<Database>>,
        identity: Option<Uuid>,
        alive: Option<Duration>,
    ) -> Self {
        // Without the database where it was alive, that says nothing.
        let alive = alive.filter(|_| database.is_some() && identity.is_some()).map_or(0, millis);
        let job = Self::new(client, id, database, alive);
        *job.expected.lock() = identity;
        job
    }

    /// The id of the database where it was alive, if that is not compared yet.
    pub(super) fn expected(&self) -> Option<Uuid> {
        *self.expected.lock()
    }

    /// Makes sure, once, that the database of this name is the one where the job was. That another does not have it says nothing.
    fn check_identity(&self, limit: Duration) -> Result<(), Error> {
        let (Some(expected), Some(database)) = (self.expected(), &self.database) else {
            return Ok(());
        };
        let mut identity = database.orders.known().identity;
        if identity.is_none() {
            let asked = database.begin_ticket(ACTION, |driver| Ok(driver.control()?.identity));
            identity = asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER))?;
        }
        let mut open = self.expected.lock();
        // Another thread may have compared it, and found out more since.
        if open.take() == Some(expected) && identity != Some(expected) {
            self.alive.store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The same job for itself: what goes on in its place is found out anew.
    pub(super) fn alone(&self) -> Self {
        let alive = self.alive.load(Ordering::Relaxed);
        let job = Self::new(&self.client, self.id, self.database.clone(), alive);
        job.place.lock().clone_from(&self.place.lock());
        *job.expected.lock() = self.expected();
        job
    }

    /// The job that goes on in the place of this one at last, as far as is known. What lies between is forgotten: a chain may
    /// be long.
    pub(super) fn last(self: &Arc<Self>) -> Arc<Self> {
        let mut last = Arc::clone(self);
        while let Some(next) = last.next() {
            last = next;
        }
        if !Arc::ptr_eq(&last, self) {
            *self.next.lock() = Some(Arc::clone(&last));
        }
        last
    }

    /// When it was alive for sure, by [`awake::now`].
    pub(super) fn alive_at(&self) -> Option<Duration> {
        let alive = self.alive.load(Ordering::Relaxed);
        (alive != 0).then(|| Duration::from_millis(alive))
    }

    fn new(client: &Arc<Client>, id: JobId, database: Option<Arc<Database>>, alive: u64) -> Self {
        let (place, next, alive) = (Mutex::default(), Mutex::default(), AtomicU64::new(alive));
        let expected = Mutex::default();
        Self { client: Arc::clone(client), id, database, place, alive, expected, next }
    }

    /// The job that goes on in the place of this one, if a look found that out.
    pub(super) fn next(&self) -> Option<Arc<Self>> {
        self.next.lock().clone()
    }

    /// Notes as which job this one was enqueued again, after it failed for good; it is in the same database then.
    fn note_redrive(&self, failure: &Exception) -> Option<Arc<Self>> {
        let id = failure.redriven_as?;
        // It was alive after that failure, which says something if that was since this machine's clock began.
        let age = (utc_now() - failure.failed_at).to_std().unwrap_or_default();
        let alive = awake::now().checked_sub(age).map_or(0, millis);
        Some(self.note_next(id, alive))
    }

    /// Notes which job goes on in the place of this one, and when that was alive. It is in the same database then.
    fn note_next(&self, id: JobId, alive: u64) -> Arc<Self> {
        let new = || Arc::new(Self::new(&self.client, id, self.place(), alive));
        Arc::clone(self.next.lock().get_or_insert_with(new))
    }

    /// Notes the job that took the place of this one. It was alive when this one ended, which was after this one was seen alive.
    fn note_replacement(&self, id: JobId) -> Arc<Self> {
        self.note_next(id, self.alive.load(Ordering::Relaxed))
    }

    /// The database that is asked first.
    pub(super) fn place(&self) -> Option<Arc<Database>> {
        self.place.lock().clone().or_else(|| self.database.clone())
    }

    /// Looks once how the job fares, or the one that goes on in its place.
    pub(super) fn look_once(self: &Arc<Self>) -> Result<Found, Error> {
        let (mut job, mut passed) = (self.last(), HashSet::new());
        while passed.insert(job.id) {
            let next = match job.look(CHECK_WITHIN)? {
                Found::Failed(failure) => match job.note_redrive(&failure) {
                    Some(next) => next,
                    None => return Ok(Found::Failed(failure)),
                },
                Found::Replaced(by) if by != job.id => job.note_replacement(by),
                found => return Ok(found),
            };
            job = next;
        }
        Ok(Found::Unknown)
    }

    /// How far the job said last that it is, or the one that goes on in its place.
    pub(super) fn progress(self: &Arc<Self>) -> Result<Option<Progress>, Error> {
        let (mut job, mut passed) = (self.last(), HashSet::new());
        while passed.insert(job.id) {
            if let Some(ours) = job.client.progress.of(job.id) {
                return Ok(Some(ours));
            }
            match job.follow_on(CHECK_WITHIN)? {
                Followed::GoesOn => job = job.last(),
                Followed::Completed => return Ok(None),
                Followed::Lives(_) | Followed::Ended | Followed::Unknown => break,
            }
        }
        let (Some(database), id) = (job.place(), job.id) else { return Ok(None) };
        let asked = database.begin_ticket(ACTION, move |driver| driver.progress(id));
        let progress = asked.wait_at_most(CHECK_WITHIN.min(database.limit()))?;
        Ok(progress.map(Progress::from))
    }

    /// Waits until the job completed, or the one that goes on in its place; returns its replies.
    pub(super) fn wait_for_end(self: &Arc<Self>, limit: Duration) -> Result<Done, Error> {
        let begun = Instant::now();
        let (mut job, mut passed) = (self.last(), HashSet::new());
        while passed.insert(job.id) {
            match job.wait_for_this(begun, limit)? {
                Ok(done) => return Ok(done),
                Err(next) => job = next,
            }
        }
        Err(Error::OutcomeUnknown { job: job.id })
    }

    /// Waits for the end of this job, or for the one that goes on in its place.
    fn wait_for_this(
        &self,
        begun: Instant,
        limit: Duration,
    ) -> Result<Result<Done, Arc<Self>>, Error> {
        let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
        let mut seen = None;
        let waiters = &self.client.waiters;
        let mut watch = waiters.watch(self.id);
        loop {
            match self.judge(self.look(limit.saturating_sub(begun.elapsed())))? {
                Verdict::Done(done) => return Ok(Ok(done)),
                Verdict::GoesOn(next) => return Ok(Err(next)),
                Verdict::Waits(state) => seen = state.or(seen),
            }
            if limit.saturating_sub(begun.elapsed()).is_zero() {
                return Err(self.time_is_up(limit, seen));
            }
            match self.awaited_in(seen.as_ref()) {
                Some(database) => {
                    hear(&self.client, &database);
                    let again = Instant::now() + self.look_again_after();
                    self.client.lookouts.wait(waiters, &database, &mut watch, until.min(again));
                }
                None => drop(watch.wait_until(until.min(Instant::now() + LOST))),
            }
        }
    }

    /// What a look means to whoever waits for the end.
    pub(super) fn judge(&self, found: Result<Found, Error>) -> Result<Verdict, Error> {
        let job = self.id;
        match found {
            Ok(Found::Lives(state)) => Ok(Verdict::Waits(Some(state))),
            Ok(Found::Completed(replies)) => Ok(Verdict::Done(Done::Replies(replies))),
            Ok(Found::Expired) => Ok(Verdict::Done(Done::Expired)),
            Ok(Found::Failed(exception)) => {
                if let Some(next) = self.note_redrive(&exception) {
                    return Ok(Verdict::GoesOn(next));
                }
                let Exception { attempt, message, kind, .. } = *exception;
                Err(if kind == FailureKind::Cancelled {
                    Error::JobCancelled { job, reason: message }
                } else {
                    Error::JobFailed { job, attempt, message }
                })
            }
            // It was given its own id again, and ended once more.
            Ok(Found::Replaced(by)) if by == job => Ok(Verdict::Done(Done::Replies(Vec::new()))),
            Ok(Found::Replaced(by)) => Ok(Verdict::GoesOn(self.note_replacement(by))),
            Ok(Found::Removed(ending)) => Err(Error::JobRemoved { job, ending }),
            Ok(Found::Unknown) => Err(Error::OutcomeUnknown { job }),
            // A dead database may come back with the answer; the limit bounds the wait.
            Err(error) if error.is_down() => Ok(Verdict::Waits(None)),
            Err(error) => Err(error),
        }
    }

    /// Looks for whoever reads what the job tells.
    pub(super) fn follow_on(&self, limit: Duration) -> Result<Followed, Error> {
        match self.judge(self.look(limit)) {
            Ok(Verdict::Waits(state)) => Ok(Followed::Lives(state)),
            Ok(Verdict::GoesOn(_)) => Ok(Followed::GoesOn),
            Ok(Verdict::Done(_)) => Ok(Followed::Completed),
            Err(Error::OutcomeUnknown { .. }) => Ok(Followed::Unknown),
            Err(
                Error::JobFailed { .. } | Error::JobCancelled { .. } | Error::JobRemoved { .. },
            ) => Ok(Followed::Ended),
            Err(error) => Err(error),
        }
    }

    pub(super) fn time_is_up(&self, limit: Duration, seen: Option<JobState>) -> Error {
        let database = self.place().map(|one| one.name.to_string());
        Error::WaitTimeout { job: self.id, after: limit, database, state: seen }
    }

    /// The database where its end can be awaited, if there is one: a job that is moving out of the spool is in none.
    pub(super) fn awaited_in(&self, seen: Option<&JobState>) -> Option<Arc<Database>> {
        let is_spool = |one: &Arc<Database>| self.client.databases.is_spool(one);
        self.place().filter(|one| seen != Some(&JobState::Moving) || !is_spool(one))
    }

    /// That it was alive must be seen often enough to conclude from its absence.
    pub(super) fn look_again_after(&self) -> Duration {
        self.client.program.options.keep.replies / 10
    }

    /// Looks where the job is known to be, and follows it where it went; where it lives is known from then
    /// on.
    pub(super) fn look(&self, limit: Duration) -> Result<Found, Error> {
        self.check_identity(limit)?;
        let (begun, place) = (awake::now(), self.place());
        // As it was before: a thread that shares this ticket may see the job alive after this look found nothing.
        let mut alive = self.alive.load(Ordering::Relaxed);
        let mut found = match &place {
            Some(place) => self.follow(Arc::clone(place), limit, begun, &mut alive)?,
            None => None,
        };
        // What left the spool may live anywhere, and leaves no trail there when it was stored elsewhere before; the
        // trail of what was moved long ago is gone.
        let is_spool = |one: &Arc<Database>| self.client.databases.is_spool(one);
        let is_elsewhere = || place.as_ref().is_none_or(is_spool) || !self.is_certain(alive);
        // And trails that lead in a circle lead nowhere.
        let is_lost = matches!(found, Some(Known::Moved(_)));
        if is_lost || (found.is_none() && is_elsewhere()) {
            found = self.look_everywhere(limit, begun, &mut alive)?;
        }
        Ok(match found {
            Some(Known::Lives(state)) => Found::Lives(state),
            Some(Known::Replies(replies)) => Found::Completed(replies),
            Some(Known::Completed) => Found::Completed(Vec::new()),
            Some(Known::Expired) => Found::Expired,
            Some(Known::Failed(exception)) => Found::Failed(exception),
            Some(Known::Removed(ending)) => Found::Removed(ending),
            Some(Known::Replaced(by)) => Found::Replaced(by),
            None if self.is_certain(alive) => Found::Completed(Vec::new()),
            Some(Known::Moved(_)) | None => Found::Unknown,
        })
    }

    /// Whether a job that was alive then and of which nothing is found has completed.
    fn is_certain(&self, alive: u64) -> bool {
        is_certain(alive, millis(awake::now()), self.client.program.options.keep.replies)
    }

    /// Asks this database, and the databases to which it says that the job was moved.
    fn follow(
        &self,
        mut database: Arc<Database>,
        limit: Duration,
        begun: Duration,
        alive: &mut u64,
    ) -> Result<Option<Known>, Error> {
        let ask = self.question();
        for _ in 0..MAX_MOVES {
            let asked = database.begin_ticket(ACTION, ask.clone());
            // One lost answer must not take all the time there is.
            match asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER))? {
                Some(Known::Moved(trail)) => database = self.behind(&trail, alive)?,
                found => {
                    if matches!(found, Some(Known::Lives(_))) {
                        *alive = (*alive).max(millis(begun));
                    }
                    self.keep_place(database, *alive);
                    return Ok(found);
                }
            }
        }
        // Where it is now, nobody found out.
        Ok(Some(Known::Moved(Trail { to: None, age: None })))
    }

    /// Notes where the job is, or was last, and when it was alive: the one says nothing without the other, for it may live
    /// where nobody looks any more.
    fn keep_place(&self, database: Arc<Database>, alive: u64) {
        let mut place = self.place.lock();
        *place = Some(database);
        self.alive.fetch_max(alive, Ordering::Relaxed);
    }

    /// The database where a trail leads. The job was alive when it was moved, which says something if that was since this
    /// machine's clock began.
    fn behind(&self, trail: &Trail, alive: &mut u64) -> Result<Arc<Database>, Error> {
        if let Some(at) = trail.age.and_then(|age| awake::now().checked_sub(age)) {
            *alive = (*alive).max(millis(at));
        }
        self.moved_to(trail.to.as_deref().unwrap_or_default())
    }

    fn look_everywhere(
        &self,
        limit: Duration,
        begun: Duration,
        alive: &mut u64,
    ) -> Result<Option<Known>, Error> {
        let is_trail = |known: &Known| matches!(known, Known::Moved(_));
        let databases = &self.client.databases;
        let found =
            databases.best(ACTION, self.question(), is_trail, Some(limit.max(MIN_ANSWER)))?;
        match found {
            Some((_, Known::Moved(trail))) => {
                self.follow(self.behind(&trail, alive)?, limit, begun, alive)
            }
            Some((name, found)) => {
                // A moving job is in two databases, and it is not known in which of them it stays.
                let alive = match &found {
                    Known::Lives(state) if *state != JobState::Moving => Some(millis(begun)),
                    Known::Lives(_) => None,
                    // The job that goes on in its place is there too, and what it told.
                    _ => Some(0),
                };
                if let (Some(alive), Ok(database)) = (alive, databases.found(&name)) {
                    self.keep_place(database, alive);
                }
                Ok(Some(found))
            }
            None => Ok(None),
        }
    }

    /// What a database is asked. Its history is not needed where the job is known to have been stored.
    fn question(
        &self,
    ) -> impl Fn(&dyn Driver) -> Result<Option<Known>, DriverError> + Clone + Send + Sync + 'static
    {
        let kept = self.client.program.options.keep.replies;
        let is_certain = self.is_certain(self.alive.load(Ordering::Relaxed));
        let (job, history) = (self.id, (!is_certain).then_some(kept));
        move |driver| known::ask(driver, job, history)
    }

    fn moved_to(&self, identity: &str) -> Result<Arc<Database>, Error> {
        self.client.databases.find_identity(identity).ok_or_else(|| Error::DatabaseDown {
            database: format!("with the id {identity}"),
            reason: "the job was moved there, and it is none of the databases that answer"
                .to_owned(),
        })
    }
}

const ACTION: &str = "say how far a job is";

/// Whether a job that was alive then has completed if nothing is found of it now: it was alive not longer ago than all
/// other ends leave something that is found. A tenth of that time is given to clocks that do not agree.
fn is_certain(alive: u64, now: u64, kept: Duration) -> bool {
    alive != 0 && now.saturating_sub(alive) < millis(kept / 10 * 9)
}

/// Never 0, which says that there was no such moment.
fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Deadline;
    use crate::fixture::{client, databases, records};

    #[test]
    fn an_absence_says_something_for_nine_tenths_of_the_time_that_replies_are_kept() {
        let (kept, now) = (Duration::from_secs(1_000), 5_000_000);
        assert!(!is_certain(0, now, kept), "nobody saw it");
        for (ago, certain) in [(0, true), (899_999, true), (900_000, false), (4_999_999, false)] {
            assert_eq!(is_certain(now - ago, now, kept), certain, "{ago} ms ago");
        }
        // A clock that goes back, as after a restart that the ticket outlived in some other process.
        assert!(is_certain(now + 1, now, kept));
    }

    #[test]
    fn a_trail_from_before_this_machine_s_clock_says_nothing_of_when_the_job_was_alive() {
        let client = client(databases(&["one"]));
        let job = Tracked::of_id(&client, JobId::new());
        let identity = client.databases.find("one").expect("is there").identity();
        let trail = |age| Trail { to: Some(identity.as_ref().expect("answers").to_string()), age };
        let mut alive = 0;
        for age in [None, Some(Duration::MAX)] {
            job.behind(&trail(age), &mut alive).expect("is there");
        }
        assert_eq!((alive, job.alive.load(Ordering::Relaxed)), (0, 0));
        job.behind(&trail(Some(Duration::ZERO)), &mut alive).expect("is there");
        assert!(alive > 0 && job.is_certain(alive));
        // Until it is found there, which may never be, that says nothing of other places.
        assert_eq!(job.alive.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_job_that_was_seen_alive_is_remembered_so() {
        let client = client(databases(&["one"]));
        let job = Arc::new(Tracked::of_id(&client, JobId::new()));
        assert!(matches!(job.look_once(), Ok(Found::Unknown)));
        job.alive.store(millis(awake::now()), Ordering::Relaxed);
        assert!(matches!(job.look_once(), Ok(Found::Completed(_))));
    }

    #[test]
    fn a_job_of_which_its_place_has_no_trace_is_looked_for_everywhere() {
        let client = client(databases(&["one", "two"]));
        let [one, two] = ["one", "two"].map(|name| client.databases.find(name).expect("is there"));
        let records = records(1);
        two.driver().insert(&records, Deadline::NONE).expect("stored");
        // As after a move so long ago that its trail was removed.
        let job = Arc::new(Tracked::new(&client, records[0].id, Some(one), 0));
        assert!(matches!(job.look_once(), Ok(Found::Lives(JobState::Ready))));
        assert_eq!(job.place().map(|place| place.name.to_string()).as_deref(), Some("two"));
        two.driver().dequeue(records[0].id, None).expect("answers");
        assert!(matches!(job.look_once(), Ok(Found::Completed(_))), "it was alive a moment ago");
    }

    #[test]
    fn a_chain_of_any_length_is_followed_and_let_go_and_kept_as_its_last_job() {
        let client = client(databases(&["one"]));
        let first = Arc::new(Tracked::of_id(&client, JobId::new()));
        let mut last = Arc::clone(&first);
        for _ in 0..50_000 {
            last = last.note_next(JobId::new(), 0);
        }
        let between = Arc::downgrade(&first.next().expect("is there"));
        assert_eq!(first.last().id, last.id);
        assert!(between.upgrade().is_none(), "what lies between is forgotten");
        // As it is dropped before anybody asked for its end, on a thread of a small stack.
        let long = Arc::new(Tracked::of_id(&client, JobId::new()));
        let mut at = Arc::clone(&long);
        for _ in 0..50_000 {
            at = at.note_next(JobId::new(), 0);
        }
        drop(at);
        drop(long);
    }
}
