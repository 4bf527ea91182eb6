use std::sync::Arc;

use super::slice::{Found, Wanted, leaves_out};
use super::{Operation, What};
use crate::admin::page::Position;
use crate::client::Client;
use crate::database::Database;
use crate::database::asked::LISTING;
use crate::database::everywhere::PerDatabase;
use crate::driver::{Exception, JobInfo, JobState};
use crate::error::Error;
use crate::tools::threads::scope;
use crate::tools::time::Instant;

/// So many jobs are counted in one look.
const PIECE: u32 = 5_000;

/// A count goes up to this: a preview is for people.
const BOUND: u64 = 100_000;

/// What an operation would be about in one database, as far as can be told before.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Preview {
    /// How many jobs, counted up to 100,000, or within the time that a listing has.
    pub count: u64,
    /// Whether there are, or may be, more.
    pub more: bool,
    /// How many of them run: only a cancel does anything about these.
    pub running: u64,
    /// Some of the jobs.
    pub jobs: Vec<JobInfo>,
    /// Some of the failures, for a redrive.
    pub failures: Vec<Exception>,
    /// How many rows were looked at.
    pub searched: u64,
    /// How many rows were passed over because they hang on an argument that cannot be read.
    pub unreadable: u64,
}

/// Asks all databases at the same time that the filter does not leave out. Nothing changes.
pub(crate) fn preview(
    client: &Arc<Client>,
    operation: &Operation,
    sample: u32,
) -> Result<Vec<PerDatabase<Preview>>, Error> {
    operation.check()?;
    if let What::Jobs(super::Verb::MoveToDatabase(to), _) = &operation.what {
        client.databases.find(to)?;
    }
    let meant: Vec<_> = client
        .databases
        .everywhere()
        .into_iter()
        .filter(|one| !leaves_out(operation, one, client.databases.is_spool(one)))
        .collect();
    let answer = |database: &Arc<Database>| PerDatabase {
        database: database.name.to_string(),
        answer: of_one(client, database, operation, sample as usize),
    };
    Ok(scope(|scope| {
        let asked: Vec<_> = meant.iter().map(|one| scope.spawn(|| answer(one))).collect();
        asked.into_iter().filter_map(|one| one.join().ok()).collect()
    }))
}

fn of_one(
    client: &Arc<Client>,
    database: &Arc<Database>,
    operation: &Operation,
    sample: usize,
) -> Result<Preview, Error> {
    let (mut preview, mut from) = (Preview::default(), Position::Start);
    let (begun, time) = (Instant::now(), database.limit().saturating_mul(LISTING));
    loop {
        let Found { wanted, next, searched, unreadable } =
            operation.find(client, database, None, from, PIECE)?;
        preview.count += wanted.len() as u64;
        preview.searched += searched;
        preview.unreadable += unreadable;
        match wanted {
            Wanted::Jobs(jobs) => {
                let runs = |job: &&JobInfo| matches!(job.state, JobState::Running { .. });
                preview.running += jobs.iter().filter(runs).count() as u64;
                let room = sample - preview.jobs.len();
                preview.jobs.extend(jobs.into_iter().take(room));
            }
            Wanted::Failures(rows) => {
                let room = sample - preview.failures.len();
                preview.failures.extend(rows.into_iter().take(room));
            }
        }
        match next {
            None => return Ok(preview),
            Some(_) if preview.count >= BOUND || begun.elapsed() > time => {
                preview.more = true;
                return Ok(preview);
            }
            Some(next) => from = next,
        }
    }
}
