//! How far a reader of what a job tells has come: one look after the other, whoever waits in between.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::Client;
use super::lookout::MIN_ANSWER;
use super::tracked::{Followed, LOST, Tracked};
use super::updates::{Sent, Update};
use crate::database::Database;
use crate::driver::{Driver, DriverError, JobState, News, ProgressRow, SentRow};
use crate::error::Error;
use crate::progress::Progress;
use crate::tools::time::Instant;

/// This many values are read at once: each may be large.
const PAGE: u32 = 100;

const ACTION: &str = "say what a job told";

/// How far a job of this process is, is looked at this often: it tells nobody.
const LOOK_AT_OURS: Duration = Duration::from_millis(100);

/// After an error that may stay, the next look comes this much later at most.
const MAX_REST: Duration = Duration::from_secs(5);

/// What one look found.
enum Raw {
    Sent(JobId, SentRow),
    Progress(Progress),
}

/// How far a reader is.
pub(super) struct Reader {
    pub(super) client: Arc<Client>,
    /// Its own: the ticket's forgets what lies between its job and the last of a chain.
    pub(super) job: Arc<Tracked>,
    /// The jobs before it in the chain: ids that are given again may lead in a circle.
    passed: HashSet<JobId>,
    /// Where the job was, and last where it is. Numbers are of one database.
    stations: Vec<Station>,
    /// Values of earlier attempts are passed over.
    attempt: i32,
    pub(super) all_attempts: bool,
    progress: Option<Progress>,
    found: VecDeque<Raw>,
    state: Option<JobState>,
    /// The database that has its values did not answer.
    is_away: bool,
    /// Since when all is read but what lies in databases where it was before.
    owed_since: Option<Instant>,
    /// After an error that may stay: how long to rest, and until when.
    rest: Option<(Duration, Instant)>,
    /// All is read.
    ended: bool,
    /// Said at the end: how the job ended is not known, or what it told cannot be read.
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
    /// The job was moved from here, and not all that it told here is read.
    is_owed: bool,
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
    pub(super) fn new(job: &Tracked) -> Self {
        Self {
            client: Arc::clone(&job.client),
            job: Arc::new(job.alone()),
            passed: HashSet::new(),
            stations: Vec::new(),
            attempt: 0,
            all_attempts: false,
            progress: None,
            found: VecDeque::new(),
            state: None,
            is_away: false,
            owed_since: None,
            rest: None,
            ended: false,
            last_word: None,
            pause: None,
        }
    }

    /// Whether nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.found.is_empty() && self.last_word.is_none()
    }

    /// Looks what is new; whether to look again at once.
    pub(super) fn look(&mut self, limit: Duration) -> Result<bool, Error> {
        let looked = self.look_now(limit);
        if !self.found.is_empty() {
            self.pause = None;
        }
        // Whoever goes on after an error that stays must not go on at once.
        let former = self.rest.take().filter(|_| looked.is_err());
        if looked.is_err() {
            let rest = former.map_or(LOST, |(rest, _)| (rest * 2).min(MAX_REST));
            self.rest = Some((rest, Instant::now() + rest));
        }
        looked
    }

    /// The end of the job is looked at first: all that it told is there by then.
    fn look_now(&mut self, limit: Duration) -> Result<bool, Error> {
        let followed = match self.job.next() {
            Some(_) => Followed::GoesOn,
            None => self.job.follow_on(limit)?,
        };
        let is_over = !matches!(followed, Followed::GoesOn | Followed::Lives(_));
        let extent = match self.read(limit, is_over) {
            // The job will not change, and nor will this.
            Err(error) if is_over => return Ok(self.end(Some(error))),
            extent => extent?,
        };
        self.is_away = extent == Extent::Away;
        match followed {
            Followed::Lives(state) => self.state = state,
            _ if extent != Extent::All => {}
            Followed::GoesOn => return Ok(self.go_on()),
            _ if self.waits_for_owed() => self.is_away = true,
            Followed::Completed | Followed::Ended => {
                let owed = self.stations.iter().find(|one| one.is_owed);
                let unread = owed.map(|one| Error::DatabaseDown {
                    database: one.database.name.to_string(),
                    reason: "what the job told there before it was moved was not read".to_owned(),
                });
                return Ok(self.end(unread));
            }
            Followed::Unknown => {
                let unknown = Error::OutcomeUnknown { job: self.job.id };
                return Ok(self.end(Some(unknown)));
            }
        }
        Ok(extent == Extent::Part)
    }

    fn end(&mut self, last_word: Option<Error>) -> bool {
        (self.ended, self.last_word) = (true, last_word);
        false
    }

    /// Another job goes on in the place of this one. Answers as [`look`](Self::look).
    fn go_on(&mut self) -> bool {
        let Some(next) = self.job.next() else { return true };
        self.passed.insert(self.job.id);
        if self.passed.contains(&next.id) {
            let unknown = Error::OutcomeUnknown { job: self.job.id };
            return self.end(Some(unknown));
        }
        // Of its own, so that the one behind is let go.
        (self.job, self.attempt, self.owed_since) = (Arc::new(next.alone()), 0, None);
        self.stations.clear();
        true
    }

    /// Whether what lies in former databases may still come: for as long as a call to them may take.
    fn waits_for_owed(&mut self) -> bool {
        let owed = self.stations.iter().filter(|one| one.is_owed);
        let Some(longest) = owed.map(|one| one.database.limit()).max() else { return false };
        self.owed_since.get_or_insert_with(Instant::now).elapsed() < longest
    }

    /// Reads what the job's database has of it, and those where it was before.
    fn read(&mut self, limit: Duration, is_over: bool) -> Result<Extent, Error> {
        let database = match self.place_of_news(limit, is_over) {
            Err(error) if error.is_down() => return Ok(Extent::Away),
            found => found?,
        };
        let Some(database) = database else { return Ok(Extent::All) };
        self.arrive(database);
        let here = self.stations.len() - 1;
        let mut is_part = false;
        for at in 0..here {
            if !self.stations[at].is_owed {
                continue;
            }
            match self.read_at(at, limit)? {
                Extent::All => self.stations[at].is_owed = false,
                Extent::Part => is_part = true,
                // It does not come back.
                Extent::Away if self.stations[at].database.is_removed() => {
                    self.stations[at].is_owed = false;
                }
                Extent::Away => {}
            }
        }
        let extent = self.read_at(here, limit)?;
        Ok(if is_part { Extent::Part } else { extent })
    }

    /// The job is here now; the station comes last. Where it was before may have more than was read.
    fn arrive(&mut self, database: Arc<Database>) {
        let at = self.stations.iter().position(|one| Arc::ptr_eq(&one.database, &database));
        if at.is_some_and(|at| at + 1 == self.stations.len()) {
            return;
        }
        if let Some(former) = self.stations.last_mut() {
            former.is_owed = true;
        }
        // It may have come back.
        let station = match at {
            Some(at) => Station { is_owed: false, ..self.stations.remove(at) },
            None => {
                Station { database, known: News::nothing(self.job.id), next: 0, is_owed: false }
            }
        };
        self.stations.push(station);
    }

    fn read_at(&mut self, at: usize, limit: Duration) -> Result<Extent, Error> {
        let station = &mut self.stations[at];
        let (job, next, known) = (self.job.id, station.next, station.known);
        let ask = move |driver: &dyn Driver| told(driver, job, next, known);
        let asked = station.database.begin_ticket(ACTION, ask);
        let asked = asked.wait_at_most(limit.min(station.database.limit()).max(MIN_ANSWER));
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

    /// Looks in memory how far a job of this process is; whether that is new. No database is asked.
    pub(super) fn note_ours(&mut self) -> bool {
        self.note_progress(None);
        !self.found.is_empty()
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

    /// After an error: until when no look comes.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rest.map(|(_, until)| until).filter(|until| *until > Instant::now())
    }

    /// When it is to look again, if nothing is told.
    pub(super) fn looks_again_at(&self) -> Instant {
        Instant::now() + self.job.look_again_after()
    }

    /// Until when nothing need be done, if nothing is told: neither look at a database before that, nor in memory.
    pub(super) fn idles_until(&self, again: Instant) -> Instant {
        let is_ours = self.client.progress.of(self.job.id).is_some();
        if is_ours { again.min(Instant::now() + LOOK_AT_OURS) } else { again }
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
