//! An operation from its begin to its end, in all databases at the same time.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::slice::{
    AGAIN, Found, Met, OwnStep, Slice, TRIES, Treated, Wanted, is_contended, leaves_out,
};
use super::{Operation, Verb, What};
use crate::admin::page::Position;
use crate::client::Client;
use crate::database::Database;
use crate::database::everywhere::PerDatabase;
use crate::driver::{Counts, Driver, OperationId, OperationRow};
use crate::error::Error;
use crate::program::Program;
use crate::tools::sync::mpsc;
use crate::tools::threads::{scope, sleep};

/// The jobs are gone through again until nothing new is found among them, and so often at most: a job that was claimed, given back
/// or became due while they were gone through was not met.
const PASSES: u32 = 10;

/// What became of an operation.
#[derive(Debug)]
#[non_exhaustive]
pub struct OperationReport {
    /// Its id.
    pub id: OperationId,
    /// The databases that the filter does not leave out.
    pub databases: Vec<PartReport>,
}

/// What became of an operation in one database.
#[derive(Debug)]
#[non_exhaustive]
pub struct PartReport {
    /// The short name of the database.
    pub database: String,
    /// How far it has come, as far as is known.
    pub row: Option<OperationRow>,
    /// How many rows were passed over by this process because they hang on an argument that it cannot read.
    pub unreadable: u64,
    /// Why it has not come to its end.
    pub error: Option<Error>,
}

impl OperationReport {
    /// What became of the jobs of all databases, as far as is known.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.databases.iter().filter_map(|on| on.row.as_ref()) {
            counts += row.counts;
        }
        counts
    }

    /// Whether each database came to its end.
    pub fn is_done(&self) -> bool {
        let ended = |row: &OperationRow| row.finished_at.is_some();
        self.databases.iter().all(|on| on.error.is_none() && on.row.as_ref().is_some_and(ended))
    }

    /// How many rows were passed over by this process because they hang on an argument that it cannot read.
    pub fn unreadable(&self) -> u64 {
        self.databases.iter().map(|on| on.unreadable).sum()
    }
}

/// Carries an operation out, or goes on with it.
pub(crate) fn operate(
    client: &Arc<Client>,
    operation: &Operation,
    mut tell: impl FnMut(Slice) -> ControlFlow<()>,
) -> Result<OperationReport, Error> {
    operation.check()?;
    let databases = &client.databases;
    if let What::Jobs(Verb::MoveToDatabase(to), _) = &operation.what {
        databases.find(to)?;
    }
    let meant: Vec<_> = databases
        .everywhere()
        .into_iter()
        .filter(|one| !leaves_out(operation, one, databases.is_spool(one)))
        .collect();
    let begun = begin(operation, &meant)?;
    let left = match operation.at_most {
        None => None,
        Some(most) => Some(most.saturating_sub(done_before(operation, &begun)?)),
    };
    let pace = Pace::new(operation.rate, left);
    let answers = scope(|scope| {
        let (sender, told) = mpsc::channel();
        let (mut parts, pace) = (Vec::new(), &pace);
        for (database, row) in meant.iter().zip(begun) {
            let part = Part::new(client, database, operation, pace, sender.clone());
            parts.push((database, scope.spawn(move || part.run(row))));
        }
        drop(sender);
        // Until the last part has ended.
        for slice in told {
            if tell(slice).is_break() {
                pace.stop();
            }
        }
        // A part that panicked has been told of by the panic itself.
        let stopped = |database: &Arc<Database>| PartReport {
            database: database.name.to_string(),
            row: None,
            unreadable: 0,
            error: Some(Error::OperationStopped { database: database.name.to_string() }),
        };
        let parts = parts.into_iter();
        parts.map(|(one, part)| part.join().unwrap_or_else(|_| stopped(one))).collect()
    });
    Ok(OperationReport { id: operation.id, databases: answers })
}

/// Stores the operation in each database that it is about, or finds out how far it has come there.
fn begin(
    operation: &Operation,
    meant: &[Arc<Database>],
) -> Result<Vec<Result<OperationRow, Error>>, Error> {
    let record = operation.record(&Program::process_name());
    let asked: Vec<_> = meant
        .iter()
        .map(|database| {
            let record = record.clone();
            database.begin("begin an operation", move |driver| driver.begin_operation(&record))
        })
        .collect();
    let rows: Vec<_> = asked.into_iter().map(crate::database::asked::Asked::wait).collect();
    for row in rows.iter().flatten() {
        let known = &row.record;
        if (&known.verb, &known.filter) != (&record.verb, &record.filter) {
            let reason = format!("it is \"{} {}\" there", known.verb, known.filter);
            return Err(Error::UnreadableOperation { operation: operation.id, reason });
        }
    }
    Ok(rows)
}

/// How many jobs were done before. What a database that does not answer has done is not known, so that a limit could not be
/// kept.
fn done_before(operation: &Operation, begun: &[Result<OperationRow, Error>]) -> Result<u64, Error> {
    let is_begun = |row: &OperationRow| !row.place.is_empty() || row.finished_at.is_some();
    let is_known = operation.is_known || begun.iter().flatten().any(is_begun);
    match begun.iter().find_map(|row| row.as_ref().err()) {
        Some(error) if is_known => {
            let reason = format!(
                "an operation with a limit is gone on with only when all its databases answer: {error}"
            );
            Err(Error::UnreadableOperation { operation: operation.id, reason })
        }
        _ => Ok(begun.iter().flatten().map(|row| row.counts.done).sum()),
    }
}

/// Where an operation stands in a database.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    /// How often the jobs were gone through.
    pass: u32,
    at: Position,
    /// How often a slice was cut short there.
    cut: u64,
}

/// The place of an operation that came to its end.
const END: &str = "end";

impl Place {
    fn of(row: &OperationRow) -> Result<Self, Error> {
        if row.place.is_empty() {
            return Ok(Self { pass: 1, at: Position::Start, cut: 0 });
        }
        serde_json::from_str(&row.place).map_err(|error| Error::UnreadableOperation {
            operation: row.record.id,
            reason: format!("its place cannot be read: {error}"),
        })
    }

    /// As it is stored.
    fn text(place: Option<&Self>) -> String {
        // Of names, numbers and ids a JSON text can always be made.
        let text = |place| serde_json::to_string(place).unwrap_or_default();
        place.map_or_else(|| END.to_owned(), text)
    }
}

/// What was taken of the limit for a slice. Whoever does not say what came of it, as in a panic, does not know.
struct Taken<'p> {
    pace: &'p Pace,
    jobs: u64,
}

impl Taken<'_> {
    /// So many were done.
    fn settle(mut self, done: u64) {
        self.pace.settle(std::mem::take(&mut self.jobs), done);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.jobs > 0 {
            self.pace.settle_unsure(self.jobs);
        }
    }
}

/// A slice that is not done yet.
struct Cut<'p> {
    wanted: Wanted,
    taken: Taken<'p>,
    step: OwnStep,
    pass: u32,
    /// How many rows were looked at for it, for the first time, that cannot be judged.
    unreadable: u64,
}

/// The part of one database.
struct Part<'p> {
    client: &'p Arc<Client>,
    database: &'p Arc<Database>,
    operation: &'p Operation,
    pace: &'p Pace,
    slices: mpsc::Sender<Slice>,
    /// What this process met. A job that is met again is left alone, unless what was in its way is over.
    met: HashMap<JobId, Met>,
    /// How many jobs of this pass there was something to do about. After a stop nobody knows, and the jobs are gone through once more.
    news: u64,
    /// The pass in which this process began.
    first_pass: Option<u32>,
    unreadable: u64,
}

impl<'p> Part<'p> {
    fn new(
        client: &'p Arc<Client>,
        database: &'p Arc<Database>,
        operation: &'p Operation,
        pace: &'p Pace,
        slices: mpsc::Sender<Slice>,
    ) -> Self {
        let (met, first_pass) = (HashMap::new(), None);
        let (news, unreadable) = (0, 0);
        Self { client, database, operation, pace, slices, met, news, first_pass, unreadable }
    }

    /// Slice after slice until the end.
    fn run(mut self, begun: Result<OperationRow, Error>) -> PartReport {
        let (row, error) = match begun {
            Err(error) => (None, Some(error)),
            Ok(mut row) => {
                self.news = u64::from(!row.place.is_empty());
                let error = self.finish(&mut row).err();
                (Some(row), error)
            }
        };
        let (database, unreadable) = (self.database.name.to_string(), self.unreadable);
        PartReport { database, row, unreadable, error }
    }

    fn finish(&mut self, row: &mut OperationRow) -> Result<(), Error> {
        while row.finished_at.is_none() {
            if self.pace.is_stopped() {
                return Err(self.stopped());
            }
            self.slice(row)?;
        }
        Ok(())
    }

    fn stopped(&self) -> Error {
        Error::OperationStopped { database: self.database.name.to_string() }
    }

    fn slice(&mut self, row: &mut OperationRow) -> Result<(), Error> {
        let Cut { wanted, taken, step, pass, unreadable } = self.cut(row)?;
        let treated = match self.treat(&wanted, &step) {
            Ok(Some(treated)) => treated,
            Ok(None) => return self.skip(row, taken),
            Err(error) => {
                if self.operation.is_undone_after(&error) {
                    taken.settle(0);
                }
                return Err(error);
            }
        };
        let counts = Counts::of(treated.iter().map(|one| &one.acted));
        taken.settle(counts.done);
        self.unreadable += unreadable;
        self.note(&treated, pass);
        row.counts += counts;
        row.place = step.to;
        if step.ends {
            // With its time, by the database's clock.
            *row = self.row_again()?;
        } else if Place::of(row)?.pass != pass {
            self.news = 0;
        }
        let met = treated.len() as u64;
        let database = self.database.name.to_string();
        // Who does not listen any more has stopped it.
        if self.slices.send(Slice { database, treated, counts: row.counts }).is_err() {
            self.pace.stop();
        }
        self.pace.wait(met);
        Ok(())
    }

    /// Looks for the jobs of the next slice, and takes of the limit what they need.
    fn cut(&mut self, row: &OperationRow) -> Result<Cut<'p>, Error> {
        let from = Place::of(row)?;
        let size = self.pace.slice(self.operation.largest_slice());
        let (client, database, at) = (self.client, self.database, from.at.clone());
        let found = self.operation.find(client, database, Some(row), at, size)?;
        let Found { mut wanted, next, unreadable, .. } = found;
        let pass = from.pass;
        wanted.leave_out(&self.met, self.operation.may_ask_again(), pass);
        let all = wanted.len() as u64;
        let jobs = self.pace.take(all).ok_or_else(|| self.stopped())?;
        let taken = Taken { pace: self.pace, jobs };
        wanted.truncate(jobs as usize);
        // A page whose rest comes again has its rows looked at again.
        let is_whole = jobs == all;
        let counts = is_whole && *self.first_pass.get_or_insert(pass) == pass;
        // Rows of the log stay where they are: what was cut off comes behind the last that is taken.
        let next = match wanted.behind_last_row() {
            Some(at) if !is_whole && jobs > 0 => Some(Place { at, ..from }),
            _ => self.behind(from, next, !is_whole, jobs),
        };
        let step = OwnStep {
            operation: self.operation.id,
            from: row.place.clone(),
            to: Place::text(next.as_ref()),
            ends: next.is_none(),
        };
        Ok(Cut { wanted, taken, step, pass, unreadable: if counts { unreadable } else { 0 } })
    }

    /// Goes on where the operation stands: another process did the slice, or we did and the answer was lost.
    fn skip(&mut self, row: &mut OperationRow, taken: Taken<'_>) -> Result<(), Error> {
        let before = row.counts;
        *row = self.row_again()?;
        taken.settle(row.counts.done.saturating_sub(before.done));
        // What was met in it is not known here.
        self.news += row.counts.sum().saturating_sub(before.sum());
        Ok(())
    }

    /// Remembers what was met, but for what is gone and is not met again.
    fn note(&mut self, treated: &[Treated], pass: u32) {
        let stays = |one: &&Treated| !(one.acted.is_done() && self.operation.removes_jobs());
        self.met.extend(treated.iter().filter(stays).map(|one| (one.job, Met(one.acted, pass))));
        self.news += treated.len() as u64;
    }

    /// Where the next slice begins; `None` at the end.
    fn behind(
        &self,
        from: Place,
        next: Option<Position>,
        is_cut: bool,
        taken: u64,
    ) -> Option<Place> {
        match next {
            // All that may be done is done.
            _ if is_cut && taken == 0 => None,
            // Those that were left out come next; some may be left for them.
            _ if is_cut => Some(Place { cut: from.cut + 1, ..from }),
            Some(at) => Some(Place { pass: from.pass, at, cut: 0 }),
            None => {
                let again = self.news + taken > 0
                    && from.pass < PASSES
                    && self.operation.is_over_live_jobs();
                again.then(|| Place { pass: from.pass + 1, at: Position::Start, cut: 0 })
            }
        }
    }

    /// Once more where somebody's locks are in the way.
    fn treat(&self, wanted: &Wanted, step: &OwnStep) -> Result<Option<Vec<Treated>>, Error> {
        let mut tries = 0;
        loop {
            let treated = self.operation.treat(self.client, self.database, wanted, step);
            let Err(error) = &treated else { return treated };
            tries += 1;
            // A move keeps what it moved.
            let is_final = self.operation.is_of_two() || !is_contended(error);
            if is_final || tries >= TRIES || self.pace.is_stopped() {
                return treated;
            }
            sleep(AGAIN);
        }
    }

    fn row_again(&self) -> Result<OperationRow, Error> {
        let id = self.operation.id;
        let row = self.database.call("read an operation", move |driver| driver.operation(id))?;
        row.ok_or_else(|| Error::UnreadableOperation {
            operation: id,
            reason: format!("database {:?} does not know it any more", &*self.database.name),
        })
    }
}

/// An operation that is stored, to be gone on with.
pub(crate) fn find(client: &Arc<Client>, id: OperationId) -> Result<Option<Operation>, Error> {
    let ask = move |driver: &dyn Driver| driver.operation(id);
    let found = client.databases.first("read an operation", ask)?;
    found.map(|(_, row)| Operation::from_record(row.record)).transpose()
}

/// Operations of each database, the last that was begun first.
pub(crate) fn list(
    client: &Arc<Client>,
    before: Option<OperationId>,
    limit: u32,
) -> Vec<PerDatabase<Vec<OperationRow>>> {
    client.databases.on_each("list operations", move |driver| driver.operations(before, limit))
}
