//! An operation from its begin to its end, in all databases at the same time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::pace::Pace;
use super::slice::{Found, OwnStep, Slice, Wanted, leaves_out};
use super::{Operation, Verb, What};
use crate::admin::page::Position;
use crate::client::Client;
use crate::database::Database;
use crate::database::everywhere::PerDatabase;
use crate::driver::{Counts, Driver, ErrorKind, OperationId, OperationRow};
use crate::error::Error;
use crate::program::Program;
use crate::tools::sync::mpsc;
use crate::tools::threads::{scope, sleep};

/// A slice that meets somebody else's locks is tried again so often.
const TRIES: u32 = 5;

/// With this pause.
const AGAIN: Duration = Duration::from_millis(200);

/// What became of an operation.
#[derive(Debug)]
#[non_exhaustive]
pub struct OperationReport {
    /// Its id.
    pub id: OperationId,
    /// How far each database has come, or why it has not come to its end. The databases that the filter leaves out are not
    /// among them.
    pub databases: Vec<PerDatabase<OperationRow>>,
}

impl OperationReport {
    /// What became of the jobs of the databases that came to their end.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in self.databases.iter().filter_map(|on| on.answer.as_ref().ok()) {
            counts += row.counts;
        }
        counts
    }

    /// Whether each database came to its end.
    pub fn is_done(&self) -> bool {
        let ended = |row: &OperationRow| row.finished_at.is_some();
        self.databases.iter().all(|on| on.answer.as_ref().is_ok_and(ended))
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
            let part = Part { client, database, operation, pace, slices: sender.clone() };
            parts.push((database, scope.spawn(move || row.and_then(|row| part.run(row)))));
        }
        drop(sender);
        // Until the last part has ended.
        for slice in told {
            if tell(slice).is_break() {
                pace.stop();
            }
        }
        let answer = |database: &Arc<Database>, answer| PerDatabase {
            database: database.name.to_string(),
            answer,
        };
        let stopped = |database: &Arc<Database>| {
            Err(Error::OperationStopped { database: database.name.to_string() })
        };
        let parts = parts.into_iter();
        // A part that panicked has been told of by the panic itself.
        let ended =
            parts.map(|(one, part)| answer(one, part.join().unwrap_or_else(|_| stopped(one))));
        ended.collect()
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
    let mut done = 0;
    for row in begun {
        match row {
            Ok(row) => done += row.counts.done,
            Err(error) if operation.is_known => {
                let reason = format!(
                    "an operation with a limit is gone on with only when all its databases answer: {error}"
                );
                return Err(Error::UnreadableOperation { operation: operation.id, reason });
            }
            Err(_) => {}
        }
    }
    Ok(done)
}

/// The part of one database.
struct Part<'p> {
    client: &'p Arc<Client>,
    database: &'p Arc<Database>,
    operation: &'p Operation,
    pace: &'p Pace,
    slices: mpsc::Sender<Slice>,
}

impl Part<'_> {
    /// Slice after slice until the end.
    fn run(&self, mut row: OperationRow) -> Result<OperationRow, Error> {
        while row.finished_at.is_none() {
            if self.pace.is_stopped() {
                let database = self.database.name.to_string();
                return Err(Error::OperationStopped { database });
            }
            row = self.slice(row)?;
        }
        Ok(row)
    }

    fn slice(&self, row: OperationRow) -> Result<OperationRow, Error> {
        let (operation, database) = (self.operation, self.database);
        let from = position(&row)?;
        let size = self.pace.slice(operation.largest_slice());
        let Found { mut wanted, next, .. } =
            operation.find(self.client, database, Some(&row), from, size)?;
        let taken = self.pace.take(wanted.len() as u64);
        let is_cut = taken < wanted.len() as u64;
        wanted.truncate(taken as usize);
        // At the limit it ends, in each database that meets it.
        let next = next.filter(|_| !is_cut);
        let step = OwnStep {
            operation: operation.id,
            from: row.place.clone(),
            to: next.as_ref().map_or_else(|| END.to_owned(), place),
            ends: next.is_none(),
        };
        let Some(treated) = self.treat(&wanted, &step)? else {
            // Another process did it, or we did and the answer was lost.
            self.pace.give_back(taken);
            return self.row_again();
        };
        let counts = Counts::of(treated.iter().map(|one| &one.acted));
        self.pace.give_back(taken - counts.done.min(taken));
        let mut row = row;
        row.counts += counts;
        row.place = step.to;
        let slice = Slice { database: database.name.to_string(), treated, counts: row.counts };
        // Who does not listen any more has stopped it.
        let _gone = self.slices.send(slice);
        self.pace.wait(wanted.len() as u64);
        if step.ends { self.row_again() } else { Ok(row) }
    }

    /// Once more where somebody's locks are in the way.
    fn treat(
        &self,
        wanted: &Wanted,
        step: &OwnStep,
    ) -> Result<Option<Vec<super::slice::Treated>>, Error> {
        let mut tries = 0;
        loop {
            let treated = self.operation.treat(self.client, self.database, wanted, step);
            let Err(error) = &treated else { return treated };
            tries += 1;
            let kind = match error {
                Error::Database { source, .. } => Some(source.kind()),
                _ => None,
            };
            let is_contended = kind == Some(ErrorKind::Contention);
            if !is_contended || tries >= TRIES || self.pace.is_stopped() {
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

/// The place of an operation that came to its end.
const END: &str = "end";

fn place(position: &Position) -> String {
    // Of names, numbers and ids a JSON text can always be made.
    serde_json::to_string(position).unwrap_or_default()
}

fn position(row: &OperationRow) -> Result<Position, Error> {
    if row.place.is_empty() {
        return Ok(Position::Start);
    }
    serde_json::from_str(&row.place).map_err(|error| Error::UnreadableOperation {
        operation: row.record.id,
        reason: format!("its place cannot be read: {error}"),
    })
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
