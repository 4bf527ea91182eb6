//! Verbs over a filter: what they would do is shown, asked for, and then done in slices.

mod bar;
mod told;

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::ops::ControlFlow;
use std::process::ExitCode;

use qudo::admin::{ExceptionFilter, JobFilter, Operation, PerDatabase, Preview, Verb, read_due};
use qudo::{Due, Manager};

use crate::Failure;
use crate::list::parse;
use crate::sources::Databases;

use told::say_preview;
pub(crate) use told::{row_as_cells, row_as_json};

/// Which jobs, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Terms that all hold, such as `ability:mail queue:gl.* age>10m NOT tag:eu`. `--help` has the language.
    #[arg(required_unless_present = "all")]
    filter: Vec<String>,
    /// All of them; instead of a filter.
    #[arg(long, conflicts_with = "filter")]
    all: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Show what would be done, and do nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// End after this number of jobs was done, in all databases together.
    #[arg(long, value_name = "JOBS")]
    limit: Option<u64>,
    /// At most this number of jobs each second; 0 sets no limit.
    #[arg(long, value_name = "JOBS", default_value_t = 1_000)]
    rate: u32,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    databases: Databases,
}

/// How it is told.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// Tell what became of each job: a line for each.
    #[arg(long)]
    each: bool,
    /// JSON instead of text: an object at the end, and with --each one for each job before.
    #[arg(long)]
    json: bool,
}

/// Retry now.
#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Enqueue discarded jobs again.
#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Cancel jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Cancel {
    /// Do not wait for the workers of jobs that run: take the jobs away from them. What such a run does, it does to its end.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Delete jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Let jobs run at another time.
#[derive(Debug, clap::Args)]
pub(crate) struct Reschedule {
    /// When: `now`, a span such as `10m` or `1h30m`, or a time such as `2026-12-01T10:00`, in UTC.
    #[arg(long, value_name = "WHEN", value_parser = due)]
    to: Due,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Change the priority of jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Prioritize {
    /// The priority; higher runs first.
    #[arg(long, value_name = "PRIORITY", allow_hyphen_values = true)]
    to: i32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Move jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    /// To this queue.
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "to_database",
        conflicts_with = "to_database"
    )]
    to_queue: Option<String>,
    /// To the database of this short name. A job with a unique key goes to the key's home only.
    #[arg(long, value_name = "NAME")]
    to_database: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

fn due(text: &str) -> Result<Due, String> {
    read_due(text).ok_or_else(|| {
        "it is not `now`, a span such as 10m, nor a time such as 2026-12-01T10:00".to_owned()
    })
}

impl Common {
    /// An unset variable is no filter: all jobs are meant only where that is said.
    fn check(&self) -> Result<(), Failure> {
        if !self.all && self.filter.iter().all(|word| word.trim().is_empty()) {
            let reason = "the filter is empty; --all means all of them";
            return Err(Failure::Usage(reason.to_owned()));
        }
        Ok(())
    }

    fn jobs(&self, manager: &Manager, verb: Verb) -> Result<Operation, Failure> {
        self.check()?;
        let filter: JobFilter = parse(&self.filter, manager)?;
        Ok(self.with(Operation::on(filter, verb)))
    }

    fn with(&self, operation: Operation) -> Operation {
        let operation = operation
            .reason(&self.reason)
            .operator(&operator())
            .rate((self.rate > 0).then_some(self.rate));
        self.limit.into_iter().fold(operation, Operation::limit)
    }

    /// Shows, asks and does; 0 when all is done, 1 when the answer was no, 2 when a database did not do its part.
    fn run(&self, manager: &Manager, operation: &Operation) -> Result<ExitCode, Failure> {
        let asks = !self.yes && !self.dry_run;
        if asks && !stdin().is_terminal() {
            let reason = "nobody can be asked: --yes does it, --dry-run shows what would be done";
            return Err(Failure::Usage(reason.to_owned()));
        }
        if !self.yes {
            let preview = manager.preview(operation, SAMPLE)?;
            let as_json = self.how.json && self.dry_run;
            let (count, complete) = say_preview(operation, &preview, as_json);
            if self.dry_run {
                return Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(2) });
            }
            let may_be_more = preview.iter().any(|on| on.answer.as_ref().is_ok_and(|one| one.more));
            if count == 0 && complete && !may_be_more {
                eprintln!("there is nothing to do");
                let unreadable = |on: &PerDatabase<Preview>| {
                    on.answer.as_ref().is_ok_and(|one| one.unreadable > 0)
                };
                let judged = !preview.iter().any(unreadable);
                return Ok(if judged { ExitCode::SUCCESS } else { ExitCode::from(2) });
            }
            if !is_wanted(operation) {
                eprintln!("nothing was done");
                return Ok(ExitCode::FAILURE);
            }
        }
        carry_out(manager, operation, &self.how)
    }
}

/// So many jobs of each database are shown.
const SAMPLE: u32 = 5;

/// Asks on the terminal.
fn is_wanted(operation: &Operation) -> bool {
    eprint!("{operation}: do it? [y/N] ");
    // What cannot be shown is answered with no.
    if stderr().flush().is_err() {
        return false;
    }
    let mut answer = String::new();
    let read = stdin().lock().read_line(&mut answer).is_ok();
    read && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Who runs the command, for the record.
fn operator() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let host = gethostname::gethostname();
    format!("{}@{}", user.as_deref().unwrap_or("?"), host.to_string_lossy())
}

/// Does it; 0 when all is done, 2 when a database did not do its part.
pub(crate) fn carry_out(
    manager: &Manager,
    operation: &Operation,
    how: &How,
) -> Result<ExitCode, Failure> {
    // Whatever becomes of this process, who has the id can go on.
    eprintln!("operation {}", operation.id());
    let mut bar = bar::Bar::new();
    let report = manager.operate(operation, |slice| {
        bar.note(slice);
        if how.each {
            bar.aside(|| told::say_each(slice, how.json));
        }
        ControlFlow::Continue(())
    })?;
    bar.end();
    Ok(told::report(&report, how.json))
}

/// The verbs of the command line.
pub(crate) trait OnFilter {
    fn common(&self) -> &Common;
    fn operation(&self, manager: &Manager) -> Result<Operation, Failure>;

    fn run(&self, own: Option<&Manager>) -> Result<ExitCode, Failure> {
        let manager = self.common().databases.manager(own)?;
        let operation = self.operation(&manager)?;
        self.common().run(&manager, &operation)
    }
}

macro_rules! on_jobs {
    ($($arguments:ident: |$self:ident| $verb:expr;)*) => {
        $(impl OnFilter for $arguments {
            fn common(&self) -> &Common {
                &self.common
            }

            fn operation(&self, manager: &Manager) -> Result<Operation, Failure> {
                let $self = self;
                self.common.jobs(manager, $verb)
            }
        })*
    };
}

on_jobs! {
    Retry: |_it| Verb::Retry;
    Cancel: |it| if it.force { Verb::CancelByForce } else { Verb::Cancel };
    Delete: |_it| Verb::Delete;
    Reschedule: |it| Verb::Reschedule(it.to);
    Prioritize: |it| Verb::Prioritize(it.to);
    Move: |it| match (&it.to_queue, &it.to_database) {
        (Some(queue), _) => Verb::MoveToQueue(queue.clone()),
        (None, database) => Verb::MoveToDatabase(database.clone().unwrap_or_default()),
    };
}

impl OnFilter for Redrive {
    fn common(&self) -> &Common {
        &self.common
    }

    fn operation(&self, manager: &Manager) -> Result<Operation, Failure> {
        self.common.check()?;
        let filter: ExceptionFilter = parse(&self.common.filter, manager)?;
        Ok(self.common.with(Operation::redrive(filter)))
    }
}
