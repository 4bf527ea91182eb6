//! What a job tells while it runs, read in order.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::Client;
use super::hearing::hear;
use super::lookout::MIN_ANSWER;
use super::tracked::{FOR_EVER, Followed, LOST, Tracked};
use super::update_stream::UpdateStream;
use crate::database::Database;
use crate::driver::{Driver, DriverError, JobState, News, ProgressRow, SentRow};
use crate::error::Error;
use crate::progress::Progress;
use crate::tools::polling::warn_if_polled;
use crate::tools::time::Instant;

/// So many values are read at once: each may be large.
const PAGE: u32 = 100;

const ACTION: &str = "say what a job told";

/// How far a job of this process is, is looked at so often: it tells nobody.
const LOOK_AT_OURS: Duration = Duration::from_millis(100);

/// Something that a job told while it ran.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update<T> {
    /// It sent a value.
    Sent(Sent<T>),
    /// It said how far it is: the last that it said; what it said in between may be left out, and what it said in the seconds before its
    /// end.
    Progress(Progress),
}

/// A value that a job sent, with [`Job::send`](crate::Job::send).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent<T> {
    /// The job that sent it: that of the ticket, or the one that went on in its place.
    pub job: JobId,
    /// The attempt that sent it; 1 is the first.
    pub attempt: u32,
    /// Its number, from 0 on, which counts over all attempts of the job. There may be gaps.
    pub number: u32,
    /// When it was stored, by the database's clock.
    pub at: DateTime<Utc>,
    /// The value.
    pub value: T,
}

/// What one look found.
enum Raw {
    Sent(JobId, SentRow),
    Progress(Progress),
}

/// How far a reader is.
pub(super) struct Reader {
    pub(super) client: Arc<Client>,
    pub(super) job: Arc<Tracked>,
    /// Where the job is, or was; the last is where it is read now. Numbers are of one database.
    stations: Vec<Station>,
    /// Values of earlier attempts are passed over.
    attempt: i32,
    all_attempts: bool,
    progress: Option<Progress>,
    found: VecDeque<Raw>,
    state: Option<JobState>,
    /// The database that has its values did not answer.
    is_away: bool,
    /// All is read.
    ended: bool,
    /// Said at the end: how the job ended is not known.
    last_word: Option<Error>,
    /// How long after the last look the next one comes, if nothing is told.
    pub(super) pause: Option<Duration>,
}

/// What was read in one database.
struct Station {
    database: Arc<Database>,
    /// What is known of the job's news there.
    known: News,
    /// The number of the value that is read next.
    next: i32,
}

/// What a database was asked.
struct Told {
    news: News,
    sent: Vec<SentRow>,
    progress: Option<ProgressRow>,
}

/// How much of what there is was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    Part,
    /// The database did not answer.
    Away,
}

/// Asks one database what a job told since.
fn told(driver: &dyn Driver, job: JobId, next: i32, known: News) -> Result<Told, DriverError> {
    let news = driver.news(&[job])?.into_iter().find(|one| one.job == job);
    let news = news.unwrap_or(News::nothing(job));
    let has_more = news.sent.is_some_and(|last| last.number >= next);
    let sent = if has_more { driver.sent(job, next, PAGE)? } else { Vec::new() };
    let is_new = news.noted_at != known.noted_at;
    let progress = if is_new { driver.progress(job)? } else { None };
    Ok(Told { news, sent, progress })
}

impl Reader {
    pub(super) fn new(job: Arc<Tracked>) -> Self {
        Self {
            client: Arc::clone(&job.client),
            job,
            stations: Vec::new(),
            attempt: 0,
            all_attempts: false,
            progress: None,
            found: VecDeque::new(),
            state: None,
            is_away: false,
            ended: false,
            last_word: None,
            pause: None,
        }
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.found.is_empty() && self.last_word.is_none()
    }

    /// Looks what is new; whether to look again at once. The end of the job is looked at first: all that it told is there
    /// by then.
    pub(super) fn look(&mut self, limit: Duration) -> Result<bool, Error> {
        let followed = match self.job.next() {
            Some(_) => Followed::GoesOn,
            None => self.job.follow_on(limit)?,
        };
        let is_over = !matches!(followed, Followed::GoesOn | Followed::Lives(_));
        let extent = self.read(limit, is_over)?;
        self.is_away = extent == Extent::Away;
        if !self.found.is_empty() {
            self.pause = None;
        }
        match followed {
            Followed::Lives(state) => self.state = state,
            _ if extent != Extent::All => {}
            Followed::Completed | Followed::Ended => self.ended = true,
            Followed::Unknown => {
                self.ended = true;
                self.last_word = Some(Error::OutcomeUnknown { job: self.job.id });
            }
            Followed::GoesOn => {
                if let Some(next) = self.job.next() {
                    (self.job, self.attempt) = (next, 0);
                    self.stations.clear();
                }
                return Ok(true);
            }
        }
        Ok(extent == Extent::Part)
    }

    /// Reads what the job's database has of it.
    fn read(&mut self, limit: Duration, is_over: bool) -> Result<Extent, Error> {
        let Some(database) = self.place_of_news(limit, is_over)? else { return Ok(Extent::All) };
        let is_here = |one: &Station| Arc::ptr_eq(&one.database, &database);
        if let Some(last) = self.stations.last().filter(|last| !is_here(last)) {
            // It was moved: first what it told there since the last look.
            let left = Arc::clone(&last.database);
            match self.read_at(&left, limit)? {
                Extent::All => {}
                extent => return Ok(extent),
            }
        }
        // It may have come back.
        let station = if let Some(at) = self.stations.iter().position(is_here) {
            self.stations.remove(at)
        } else {
            let (known, database) = (News::nothing(self.job.id), Arc::clone(&database));
            Station { database, known, next: 0 }
        };
        self.stations.push(station);
        self.read_at(&database, limit)
    }

    /// Reads at the last station.
    fn read_at(&mut self, database: &Arc<Database>, limit: Duration) -> Result<Extent, Error> {
        let Some(station) = self.stations.last_mut() else { return Ok(Extent::All) };
        let (job, next, known) = (self.job.id, station.next, station.known);
        let ask = move |driver: &dyn Driver| told(driver, job, next, known);
        let asked = database.begin_ticket(ACTION, ask);
        let asked = asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER));
        let Told { news, sent, progress } = match asked {
            // It may come back with it; the limit bounds the wait.
            Err(error) if error.is_down() => return Ok(Extent::Away),
            answer => answer?,
        };
        station.known = news;
        let is_all = sent.len() < PAGE as usize;
        if let Some(last) = sent.last() {
            station.next = last.number.saturating_add(1);
        }
        let newest = news.sent.map_or(0, |last| last.attempt);
        if newest > self.attempt && !self.all_attempts {
            self.attempt = newest;
            let is_newest = |one: &Raw| match one {
                Raw::Sent(_, row) => row.attempt >= newest,
                Raw::Progress(_) => true,
            };
            self.found.retain(is_newest);
        }
        for row in sent {
            if self.all_attempts || row.attempt >= self.attempt {
                self.found.push_back(Raw::Sent(job, row));
            }
        }
        self.note_progress(progress.map(Progress::from));
        Ok(if is_all { Extent::All } else { Extent::Part })
    }

    /// The database that has what the job told. Of one that ended before anybody looked only that may be left.
    fn place_of_news(
        &self,
        limit: Duration,
        is_over: bool,
    ) -> Result<Option<Arc<Database>>, Error> {
        let place = self.job.place();
        if place.is_some() || !is_over {
            return Ok(place);
        }
        let job = self.job.id;
        let ask = move |driver: &dyn Driver| {
            let news = driver.news(&[job])?.into_iter().next();
            Ok(news.filter(|news| *news != News::nothing(job)))
        };
        let databases = &self.client.databases;
        let found = databases.best(ACTION, ask, |_| false, Some(limit.max(MIN_ANSWER)))?;
        found.map(|(name, _)| databases.found(&name)).transpose()
    }

    /// Notes how far the job is, in this process or as it is stored, if that is new.
    fn note_progress(&mut self, stored: Option<Progress>) {
        let Some(now) = self.client.progress.of(self.job.id).or(stored) else { return };
        let differs = |former: &Progress| {
            (former.attempt, former.done, former.total, &former.note)
                != (now.attempt, now.done, now.total, &now.note)
        };
        if self.progress.as_ref().is_none_or(differs) {
            // Only the last is of interest.
            self.found.retain(|one| !matches!(one, Raw::Progress(_)));
            self.progress = Some(now.clone());
            self.found.push_back(Raw::Progress(now));
        }
    }

    /// Whether something was found, or all is read.
    pub(super) fn has_something(&self) -> bool {
        self.ended || !self.found.is_empty()
    }

    pub(super) fn time_is_up(&self, limit: Duration) -> Error {
        self.job.time_is_up(limit, self.state)
    }

    /// The database where its news can be awaited.
    pub(super) fn awaited_in(&self) -> Option<Arc<Database>> {
        self.job.awaited_in(self.state.as_ref()).filter(|_| !self.is_away)
    }

    /// Until when nobody need look, if nothing is told.
    pub(super) fn rests_until(&self, until: Instant) -> Instant {
        let is_ours = self.client.progress.of(self.job.id).is_some();
        let pause = if is_ours { LOOK_AT_OURS } else { self.job.look_again_after() };
        until.min(Instant::now() + pause)
    }

    /// What is known of the job's news, for those who look for many.
    pub(super) fn known(&self) -> News {
        self.stations.last().map_or(News::nothing(self.job.id), |station| station.known)
    }

    /// The next of what was found.
    pub(super) fn take<T: DeserializeOwned>(&mut self) -> Option<Result<Update<T>, Error>> {
        let Some(found) = self.found.pop_front() else {
            return self.last_word.take().filter(|_| self.ended).map(Err);
        };
        let (job, row) = match found {
            Raw::Progress(progress) => return Some(Ok(Update::Progress(progress))),
            Raw::Sent(job, row) => (job, row),
        };
        let decoded = self.client.program.codecs.decode(&row.value.codec, &row.value.body);
        Some(match decoded {
            Ok(value) => Ok(Update::Sent(Sent {
                job,
                attempt: row.attempt.unsigned_abs(),
                number: row.number.unsigned_abs(),
                at: row.sent_at,
                value,
            })),
            Err(source) => {
                let what = format!("a value that job {job} sent is not of the type asked for");
                Err(Error::Codec { what, source })
            }
        })
    }
}

/// What a job tells while it runs, in order, until it ended: values that it [sends](crate::Job::send), and
/// [how far](crate::Job::progress) it is.
///
/// Made by [`Ticket::updates`](crate::Ticket::updates). As an iterator it blocks; tasks make it a [stream](Self::into_stream). It follows the job as
/// the ticket does: to another database, to the job that took its place, to the job that it was enqueued again as. After
/// its end [`Ticket::wait`](crate::Ticket::wait) answers at once.
///
/// Of a job that was run several times the values of the newest attempt are read that sent any; those of an earlier one that were read
/// before stay read. A run that snoozes, or is given back, spends no attempt: the next goes on under the same. Values that were sent before the first call are read too, as long as replies are kept.
///
/// A job of which nobody knows how it ended has [`Error::OutcomeUnknown`] for a last item, such as one of a transaction that is not committed.
/// Values that were sent in another database before a reader came are not found after a move.
///
/// Nothing is missed while a database is down: the wait goes on. With a limit for each call an item is
/// [`Error::WaitTimeout`] when nothing came, and the next call waits again. Other errors are items too: a database that refuses, a
/// value that is not of this type.
pub struct Updates<T> {
    reader: Reader,
    limit: Duration,
    value: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Updates<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").field("job", &self.reader.job.id).finish_non_exhaustive()
    }
}

impl<T> Updates<T> {
    pub(super) fn of(job: Arc<Tracked>) -> Self {
        Self { reader: Reader::new(job), limit: FOR_EVER, value: PhantomData }
    }

    /// Values of all attempts are read, not only of the newest.
    #[must_use]
    pub fn all_attempts(mut self) -> Self {
        self.reader.all_attempts = true;
        self
    }

    /// How long one call waits for something new; as long as it takes by default.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same for a task.
    pub fn into_stream(self) -> UpdateStream<T> {
        UpdateStream::of(self.reader, self.limit)
    }
}

impl<T: DeserializeOwned> Iterator for Updates<T> {
    type Item = Result<Update<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        warn_if_polled("an iterator of updates", "a stream of them");
        let begun = Instant::now();
        let until = begun.checked_add(self.limit).unwrap_or_else(|| begun + FOR_EVER);
        let (client, limit) = (Arc::clone(&self.reader.client), self.limit);
        let reader = &mut self.reader;
        loop {
            if let Some(found) = reader.take() {
                return Some(found);
            }
            if reader.is_over() {
                return None;
            }
            // Before the look, so that nothing is told in between that nobody hears.
            let mut watch = client.waiters.watch(reader.job.id);
            match reader.look(limit.saturating_sub(begun.elapsed())) {
                Err(error) => return Some(Err(error)),
                Ok(true) => continue,
                Ok(false) if reader.has_something() => continue,
                Ok(false) => {}
            }
            if limit.saturating_sub(begun.elapsed()).is_zero() {
                return Some(Err(reader.time_is_up(limit)));
            }
            match reader.awaited_in() {
                Some(database) => {
                    hear(&client, &database);
                    (watch.hears, watch.pause) = (Some(reader.known()), reader.pause);
                    let until = reader.rests_until(until);
                    client.lookouts.wait(&client.waiters, &database, &mut watch, until);
                    reader.pause = watch.pause;
                }
                None => drop(watch.wait_until(until.min(Instant::now() + LOST))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ability::Ability;
    use crate::driver::ErrorKind;
    use crate::fixture::memory;
    use crate::job::Job;
    use crate::job_error::JobResult;
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;

    /// Sends, and is replaced by itself as often.
    struct Chain;

    impl Ability for Chain {
        const NAME: &'static str = "chain";
        type Arg = u32;
        type Reply = ();

        fn work(job: &Job, links: u32) -> JobResult<()> {
            job.send(&links)?;
            if links > 0 {
                job.replace(Self::job(links - 1));
            }
            Ok(())
        }
    }

    #[test]
    fn nothing_is_passed_over_while_a_database_is_away_for_a_moment() {
        // The questions that go wrong, by their numbers from when it is said.
        for broken in 0..6 {
            let asked = Arc::new(AtomicU32::new(u32::MAX / 2));
            let count = Arc::clone(&asked);
            let driver = FaultyDriver::new(memory()).with_fault(move |call| {
                let is_it = matches!(call, "news" | "sent");
                if is_it && count.fetch_add(1, Ordering::SeqCst) == broken {
                    return Err(DriverError::new(ErrorKind::Down, "away"));
                }
                Ok(())
            });
            let manager = Manager::builder()
                .linked(false)
                .driver("one", Arc::new(driver))
                .retry_seconds(1)
                .ability::<Chain>()
                .build()
                .expect("valid");
            let sent = manager.enqueue(Chain::job(2)).expect("stored");
            while manager.work_once().expect("works").is_some() {}
            asked.store(0, Ordering::SeqCst);
            let updates = sent.ticket().expect("new").updates::<u32>();
            let values: Vec<_> = updates
                .within(Duration::from_secs(30))
                .filter_map(|update| match update.expect("waits on") {
                    Update::Sent(one) => Some(one.value),
                    Update::Progress(_) => None,
                })
                .collect();
            assert_eq!(values, [2, 1, 0], "with the question {broken} broken");
        }
    }
}
