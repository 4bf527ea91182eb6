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
    /// It said how far it is: the last that it said; what it said in between may be left out.
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
    /// Where it was read last, by its short name: numbers are of one database.
    place: Option<Arc<str>>,
    /// What is known of the job's news there.
    known: News,
    /// The number of the value that is read next.
    next: i32,
    /// Values of earlier attempts are passed over.
    attempt: i32,
    all_attempts: bool,
    progress: Option<Progress>,
    found: VecDeque<Raw>,
    state: Option<JobState>,
    /// All is read.
    ended: bool,
}

/// What a database was asked.
struct Told {
    news: News,
    sent: Vec<SentRow>,
    progress: Option<ProgressRow>,
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
        let (client, known) = (Arc::clone(&job.client), News::nothing(job.id));
        let (found, attempt) = (VecDeque::new(), 0);
        let (all_attempts, ended) = (false, false);
        let (place, progress, state, next) = (None, None, None, 0);
        Self {
            client,
            job,
            place,
            known,
            next,
            attempt,
            all_attempts,
            progress,
            found,
            state,
            ended,
        }
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.found.is_empty()
    }

    /// Looks what is new; whether to look again at once. The end of the job is looked at first: all that it told is there
    /// by then.
    pub(super) fn look(&mut self, limit: Duration) -> Result<bool, Error> {
        let followed = match self.job.next() {
            Some(_) => Followed::GoesOn,
            None => self.job.follow_on(limit)?,
        };
        let is_read = self.read(limit, matches!(followed, Followed::Ended))?;
        match followed {
            Followed::Lives(state) => self.state = state,
            _ if !is_read => {}
            Followed::Ended => self.ended = true,
            Followed::GoesOn => {
                if let Some(next) = self.job.next() {
                    self.known = News::nothing(next.id);
                    (self.job, self.place, self.next, self.attempt) = (next, None, 0, 0);
                }
                return Ok(true);
            }
        }
        Ok(!is_read)
    }

    /// Reads what the job's database has of it; whether that is all.
    fn read(&mut self, limit: Duration, is_over: bool) -> Result<bool, Error> {
        let Some(database) = self.place_of_news(limit, is_over)? else { return Ok(true) };
        if self.place.as_ref() != Some(&database.name) {
            // It was moved, and is counted anew.
            (self.place, self.next) = (Some(Arc::clone(&database.name)), 0);
            self.known = News::nothing(self.job.id);
        }
        let (job, next, known) = (self.job.id, self.next, self.known);
        let ask = move |driver: &dyn Driver| told(driver, job, next, known);
        let asked = database.begin_ticket(ACTION, ask);
        let asked = asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER));
        let Told { news, sent, progress } = match asked {
            // A dead database may come back with it; the limit bounds the wait.
            Err(error) if error.is_down() && !is_over => return Ok(true),
            answer => answer?,
        };
        self.known = news;
        let newest = news.sent.map_or(0, |last| last.attempt);
        if newest > self.attempt && !self.all_attempts {
            self.attempt = newest;
            let is_newest = |one: &Raw| match one {
                Raw::Sent(_, row) => row.attempt >= newest,
                Raw::Progress(_) => true,
            };
            self.found.retain(is_newest);
        }
        let is_all = sent.len() < PAGE as usize;
        for row in sent {
            self.next = row.number.saturating_add(1);
            if self.all_attempts || row.attempt >= self.attempt {
                self.found.push_back(Raw::Sent(job, row));
            }
        }
        self.note_progress(progress.map(Progress::from));
        Ok(is_all)
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
        self.job.awaited_in(self.state.as_ref())
    }

    /// Until when nobody need look, if nothing is told.
    pub(super) fn rests_until(&self, until: Instant) -> Instant {
        let is_ours = self.client.progress.of(self.job.id).is_some();
        let pause = if is_ours { LOOK_AT_OURS } else { self.job.look_again_after() };
        until.min(Instant::now() + pause)
    }

    /// What is known of the job's news, for those who look for many.
    pub(super) fn known(&self) -> News {
        self.known
    }

    /// The next of what was found.
    pub(super) fn take<T: DeserializeOwned>(&mut self) -> Option<Result<Update<T>, Error>> {
        let (job, row) = match self.found.pop_front()? {
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
/// before stay read. Values that were sent before the first call are read too, as long as replies are kept.
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
            if reader.ended {
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
                    watch.hears = Some(reader.known);
                    let until = reader.rests_until(until);
                    client.lookouts.wait(&client.waiters, &database, &mut watch, until);
                }
                None => drop(watch.wait_until(until.min(Instant::now() + LOST))),
            }
        }
    }
}
