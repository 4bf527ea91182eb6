//! One slice of an operation in one database: what it is about, and what became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{FailureKind, JobId};

use super::{Operation, Verb, What};
use crate::admin::jobs::Question;
use crate::admin::page::{Budget, Paging, Position};
use crate::admin::past::{self, Extent};
use crate::client::{Client, cancelled};
use crate::database::Database;
use crate::database::asked::LISTING;
use crate::database::set::Databases;
use crate::database::transfer::Move;
use crate::driver::{
    Act, Acted, Counts, Driver, DriverError, ErrorKind, Exception, ExceptionId, JobInfo, JobState,
    OperationRow, Redrive, Step,
};
use crate::error::Error;
use crate::filter::{ExceptionFilter, JobFilter};
use crate::observe::Event;
use crate::tools::threads::sleep;
use crate::tools::time::Instant;

/// A slice of an operation that is done, as [`Manager::operate`](crate::Manager::operate) tells it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Slice {
    /// The short name of the database.
    pub database: String,
    /// What became of each of its jobs.
    pub treated: Vec<Treated>,
    /// What became of the jobs of this database so far.
    pub counts: Counts,
}

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Treated {
    /// The job.
    pub job: JobId,
    /// What became of it.
    pub acted: Acted,
    /// Under which id it was enqueued again, by a redrive.
    pub redriven_as: Option<JobId>,
}

impl Treated {
    const fn new(job: JobId, acted: Acted) -> Self {
        Self { job, acted, redriven_as: None }
    }
}

/// What became of a job that was met, and in which pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met(pub(super) Acted, pub(super) u32);

/// Jobs and rows that a slice is about.
pub(super) enum Wanted {
    Jobs(Vec<JobInfo>),
    Failures(Vec<Exception>),
}

impl Wanted {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Jobs(jobs) => jobs.len(),
            Self::Failures(rows) => rows.len(),
        }
    }

    /// Leaves out jobs that were met, unless they run no more, or move no more, where that was in the way: once in each pass.
    pub(super) fn leave_out(&mut self, met: &HashMap<JobId, Met>, asks_again: bool, pass: u32) {
        let is_new = |job: &JobInfo| match (met.get(&job.id), &job.state) {
            (None, _) => true,
            (Some(Met(_, before)), _) if *before == pass => false,
            (Some(Met(Acted::Running, _)), state) => {
                asks_again || !matches!(state, JobState::Running { .. })
            }
            (Some(Met(Acted::Moving, _)), state) => *state != JobState::Moving,
            (Some(_), _) => false,
        };
        if let Self::Jobs(jobs) = self {
            jobs.retain(is_new);
        }
    }

    /// Where rows of the log go on behind the last of these.
    pub(super) fn behind_last_row(&self) -> Option<Position> {
        match self {
            Self::Failures(rows) => rows.last().map(|row| Position::Exception(row.id)),
            Self::Jobs(_) => None,
        }
    }

    pub(super) fn truncate(&mut self, most: usize) {
        match self {
            Self::Jobs(jobs) => jobs.truncate(most),
            Self::Failures(rows) => rows.truncate(most),
        }
    }
}

/// What was found for the next slice.
pub(super) struct Found {
    pub(super) wanted: Wanted,
    pub(super) searched: u64,
    pub(super) unreadable: u64,
    /// Where the next slice begins; `None` at the end.
    pub(super) next: Option<Position>,
}

/// Of a verb that moves arguments about, one slice has at most so many jobs; of others, so many.
const WITH_ARGUMENTS: u32 = 100;
const WITHOUT: u32 = 500;

impl Operation {
    /// Whether its jobs move on while they are gone through.
    pub(super) const fn is_over_live_jobs(&self) -> bool {
        matches!(self.what, What::Jobs(..))
    }

    /// Whether a job that was found running may be told after all: it was between two tables.
    pub(super) const fn may_ask_again(&self) -> bool {
        matches!(self.what, What::Jobs(Verb::Cancel | Verb::CancelByForce, _))
    }

    /// Whether jobs that are done are not there any more.
    pub(super) const fn removes_jobs(&self) -> bool {
        match &self.what {
            What::Jobs(verb, _) => {
                matches!(verb, Verb::Delete | Verb::CancelByForce | Verb::MoveToDatabase(_))
            }
            What::Redrive(_) => true,
        }
    }

    /// Whether two databases have a part in each slice.
    pub(super) const fn is_of_two(&self) -> bool {
        matches!(self.what, What::Jobs(Verb::MoveToDatabase(_), _))
    }

    /// Whether after this error of a slice nothing of it is done, for certain.
    pub(super) fn is_undone_after(&self, error: &Error) -> bool {
        !self.is_of_two()
            && matches!(error, Error::Database { source, .. } if !source.is_ambiguous())
    }

    /// How many jobs one slice has at most.
    pub(super) const fn largest_slice(&self) -> u32 {
        match &self.what {
            What::Jobs(Verb::Cancel | Verb::CancelByForce | Verb::MoveToDatabase(_), _)
            | What::Redrive(_) => WITH_ARGUMENTS,
            What::Jobs(..) => WITHOUT,
        }
    }

    /// Looks for the next jobs in one database, those that were stored before the operation was: it is not to run after
    /// what comes meanwhile, nor after what it made itself.
    pub(super) fn find(
        &self,
        client: &Arc<Client>,
        database: &Arc<Database>,
        started: Option<&OperationRow>,
        from: Position,
        limit: u32,
    ) -> Result<Found, Error> {
        let (client, name) = (Arc::clone(client), Arc::clone(&database.name));
        let time = database.limit().saturating_mul(LISTING) / 2;
        let (what, now) = (self.what.clone(), self.asked_at);
        let before = started.map(|row| row.started_at);
        let begun = Instant::now();
        database.call("look for what a verb is about", move |driver| {
            let what = &what;
            let look = Look { client: &client, database: &name, what, now, before, limit };
            let (mut from, mut searched, mut unreadable) = (from, 0, 0);
            loop {
                let left = time.saturating_sub(begun.elapsed());
                let found = of_page(driver, &look, &from, left)?;
                searched += found.searched;
                unreadable += found.unreadable;
                match found.next {
                    // Whole pages of which none is to be changed make no slice.
                    Some(next) if found.wanted.len() == 0 && begun.elapsed() < time => from = next,
                    _ => return Ok(Found { searched, unreadable, ..found }),
                }
            }
        })
    }

    /// Does a slice; `None` where the operation does not stand where the step begins.
    pub(super) fn treat(
        &self,
        client: &Arc<Client>,
        database: &Arc<Database>,
        wanted: &Wanted,
        step: &OwnStep,
    ) -> Result<Option<Vec<Treated>>, Error> {
        match (wanted, &self.what) {
            (Wanted::Failures(rows), _) => redrive(client, database, rows, step),
            (Wanted::Jobs(jobs), What::Jobs(Verb::MoveToDatabase(to), _)) => {
                move_to(&client.databases, database, to, jobs, step)
            }
            (Wanted::Jobs(jobs), What::Jobs(verb, _)) => {
                let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
                let Some(act) = verb.act(&self.reason) else { return Ok(None) };
                treat(client, database, act, &ids, step)
            }
            (Wanted::Jobs(_), What::Redrive(_)) => Ok(None),
        }
    }
}

/// What the pages of one look have in common.
struct Look<'l> {
    client: &'l Client,
    database: &'l str,
    what: &'l What,
    /// What spans of time count from.
    now: DateTime<Utc>,
    /// Only what was stored before that.
    before: Option<DateTime<Utc>>,
    limit: u32,
}

/// The next page in one database, within this time.
fn of_page(
    driver: &dyn Driver,
    look: &Look<'_>,
    from: &Position,
    time: Duration,
) -> Result<Found, DriverError> {
    let Look { client, database, what, now, before, limit } = *look;
    let mut paging = Paging::default().limit(limit).without_arguments().without_estimate();
    paging.now = Some(now);
    let budget = Budget::new(paging.search, time);
    let codecs = &client.program.codecs;
    match what {
        What::Jobs(verb, filter) => {
            let paging = &paging;
            let question = Question { driver, database, codecs, filter, paging, budget };
            let (page, next) = question.page(Some(from))?;
            let (searched, unreadable) = (page.searched, page.unreadable);
            let is_wanted = |job: &JobInfo| {
                before.is_none_or(|before| job.enqueued_at <= before) && verb.concerns(job)
            };
            let jobs = page.rows.into_iter().filter(is_wanted).collect();
            Ok(Found { wanted: Wanted::Jobs(jobs), searched, unreadable, next })
        }
        What::Redrive(filter) => {
            let with_cancelled = filter.means_cancelled();
            let filter = ExceptionFilter::discarded().and(filter.clone());
            let extent = Extent { paging: &paging, budget: &budget, from: Some(from) };
            let (page, next) = past::exceptions(driver, database, codecs, &filter, &extent)?;
            let (searched, unreadable) = (page.searched, page.unreadable);
            let is_wanted = |row: &Exception| {
                row.redriven_as.is_none()
                    && before.is_none_or(|before| row.failed_at <= before)
                    && (with_cancelled || row.kind != FailureKind::Cancelled)
            };
            let rows = page.rows.into_iter().filter(is_wanted).collect();
            Ok(Found { wanted: Wanted::Failures(rows), searched, unreadable, next })
        }
    }
}

/// A step that can be handed to another thread.
#[derive(Clone)]
pub(super) struct OwnStep {
    pub(super) operation: crate::driver::OperationId,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) ends: bool,
}

impl OwnStep {
    fn with<T>(&self, act: impl FnOnce(&Step<'_>) -> T) -> T {
        act(&Step { operation: self.operation, from: &self.from, to: &self.to, ends: self.ends })
    }
}

const ACTION: &str = "carry out a verb";

/// What one database does by itself.
fn treat(
    client: &Arc<Client>,
    database: &Arc<Database>,
    act: Act,
    jobs: &[JobId],
    step: &OwnStep,
) -> Result<Option<Vec<Treated>>, Error> {
    let (ids, own) = (jobs.to_vec(), step.clone());
    let done = |answers: &[Acted]| {
        jobs.iter().zip(answers).map(|(job, acted)| Treated::new(*job, *acted)).collect()
    };
    if let Act::Cancel { reason, by_force } = act {
        let (why, has_hooks) = (reason.clone(), !client.program.hooks().is_empty());
        let ended = database.call(ACTION, move |driver| {
            let act = |act: &Act| own.with(|step| driver.act(act, &ids, Some(step)));
            cancelled::ask(driver, &ids, &why, by_force, has_hooks, act)
        })?;
        return Ok(ended.map(|ended| {
            cancelled::tell(client, database, jobs, &ended, &reason);
            done(&ended.answers)
        }));
    }
    let removes = matches!(act, Act::Remove(_));
    let answers =
        database.call(ACTION, move |driver| own.with(|step| driver.act(&act, &ids, Some(step))))?;
    Ok(answers.map(|answers| {
        if removes {
            let gone = jobs.iter().zip(&answers).filter(|(_, acted)| **acted == Acted::Done);
            for (job, _) in gone {
                client.program.tell(|| Event::Dropped { job: *job });
            }
            client.waiters.note(jobs.iter().copied());
        } else {
            database.bell.ring();
        }
        done(&answers)
    }))
}

/// Enqueues discarded jobs again.
fn redrive(
    client: &Arc<Client>,
    database: &Arc<Database>,
    rows: &[Exception],
    step: &OwnStep,
) -> Result<Option<Vec<Treated>>, Error> {
    let wanted: Vec<(ExceptionId, JobId)> = rows.iter().map(|row| (row.id, JobId::new())).collect();
    let own = step.clone();
    let answers = database
        .call(ACTION, move |driver| own.with(|step| driver.redrive_each(&wanted, Some(step))))?;
    let Some(answers) = answers else { return Ok(None) };
    database.bell.ring();
    // Their tickets follow them.
    client.waiters.note(rows.iter().map(|row| row.job));
    let treated = |(row, answer): (&Exception, &Redrive)| match answer {
        Redrive::Enqueued(new) => {
            Treated { redriven_as: Some(*new), ..Treated::new(row.job, Acted::Done) }
        }
        Redrive::Conflict(_) => Treated::new(row.job, Acted::KeyHeld),
        Redrive::Already(_) | Redrive::NotDiscarded | Redrive::NotFound => {
            Treated::new(row.job, Acted::Gone)
        }
    };
    Ok(Some(rows.iter().zip(&answers).map(treated).collect()))
}

/// Moves jobs to another database, and notes it. Two databases have no transaction in common: what a crash kept from being
/// noted is not met again, since it is not there any more, and is not counted.
fn move_to(
    databases: &Databases,
    from: &Arc<Database>,
    to: &str,
    jobs: &[JobInfo],
    step: &OwnStep,
) -> Result<Option<Vec<Treated>>, Error> {
    let to = databases.find(to)?;
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let mut treated = Vec::new();
    if !Arc::ptr_eq(from, &to) && !ids.is_empty() {
        // One after the other would be a move for each; together nobody tells which of them went.
        let done = Move::new(databases, from, &to)?.run_these(&ids)?;
        let asked = ids.clone();
        let states = from.call(ACTION, move |driver| states(driver, &asked))?;
        let acted = |job: &JobId, stays: Option<Acted>| {
            if done.moved.contains(job) { Acted::Done } else { stays.unwrap_or(Acted::Gone) }
        };
        let each = ids.iter().zip(states);
        treated = each.map(|(job, stays)| Treated::new(*job, acted(job, stays))).collect();
        to.bell.ring();
    }
    let counts = Counts::of(treated.iter().map(|one| &one.acted));
    let own = step.clone();
    // Only this is tried again: the jobs have moved.
    let mut tries = 0;
    loop {
        let own = own.clone();
        let noted =
            from.call(ACTION, move |driver| own.with(|step| driver.note_step(step, counts)));
        tries += 1;
        match noted {
            Err(error) if is_contended(&error) && tries < TRIES => sleep(AGAIN),
            noted => return Ok(noted?.then_some(treated)),
        }
    }
}

/// A slice that meets somebody else's locks is tried again so often.
pub(super) const TRIES: u32 = 5;

/// With this pause.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// Whether somebody's locks were in the way.
pub(super) fn is_contended(error: &Error) -> bool {
    matches!(error, Error::Database { source, .. } if source.kind() == ErrorKind::Contention)
}

/// Why jobs are still there; `None` of those that are not. One that waits may not go there: it is not the home of its key.
fn states(driver: &dyn Driver, jobs: &[JobId]) -> Result<Vec<Option<Acted>>, DriverError> {
    let live = driver.live(jobs)?;
    let state = |job: &JobId| {
        if !live.contains(job) {
            return Ok(None);
        }
        Ok(driver.state(*job)?.map(|state| match state {
            JobState::Moving => Acted::Moving,
            JobState::Running { .. } => Acted::Running,
            JobState::Ready | JobState::Scheduled { .. } => Acted::KeyHeld,
        }))
    };
    jobs.iter().map(state).collect()
}

/// Whether no job of a database can be meant.
pub(super) fn leaves_out(operation: &Operation, database: &Arc<Database>, is_spool: bool) -> bool {
    use crate::admin::listing::is_left_out;
    match &operation.what {
        // The spool empties itself, and no job goes to where it is.
        What::Jobs(Verb::MoveToDatabase(to), filter) => {
            is_spool || *database.name == **to || is_left_out(filter, database)
        }
        What::Jobs(_, filter) => is_left_out::<JobInfo>(filter as &JobFilter, database),
        What::Redrive(filter) => is_left_out::<Exception>(filter, database),
    }
}
