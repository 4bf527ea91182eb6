//! The crate `riverqueue`, on PostgreSQL and SQLite.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use peers_common::{Any, Arguments, Engine, Metric, Peer};
use riverqueue::migrate::{PostgresMigrator, SqliteMigrator};
use riverqueue::sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use riverqueue::sqlx::{self, PgPool, SqlitePool};
use riverqueue::{BoxError, Client, Job, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

#[derive(Clone, Debug, Deserialize, JobArgs, Serialize)]
#[river(kind = "nothing")]
struct Nothing {
    text: String,
}

async fn nothing(_context: WorkContext, job: Job<Nothing>) -> Result<WorkOutcome, BoxError> {
    peers_common::executed(&job.args.text);
    Ok(WorkOutcome::Complete)
}

#[derive(Clone)]
enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

struct River {
    arguments: Arguments,
    runtime: Runtime,
    pool: Pool,
    client: Option<Client>,
}

impl River {
    /// The client, built at first use, since the tables must be there.
    fn client(&mut self) -> Any<&Client> {
        if self.client.is_none() {
            let builder = match &self.pool {
                Pool::Postgres(pool) => Client::builder(pool.clone()),
                Pool::Sqlite(pool) => Client::builder(pool.clone()),
            };
            let mut workers = Workers::new();
            workers.add_fn(nothing)?;
            let mut builder = builder.workers(workers);
            let mut queue = QueueConfig::new(self.arguments.workers);
            if self.arguments.best() {
                let (cooldown, poll) = (Duration::from_millis(1), Duration::from_millis(10));
                builder = builder.fetch_cooldown(cooldown);
                queue = QueueConfig::new(500).with_fetch_poll_interval(poll);
            }
            let _guard = self.runtime.enter();
            self.client = Some(builder.queue("default", queue).build()?);
        }
        Ok(self.client.as_ref().expect("it was made above"))
    }
}

impl Peer for River {
    const NAME: &'static str = "riverqueue 0.5.0";

    fn open(arguments: &Arguments) -> Any<Self> {
        let runtime = Runtime::new()?;
        let pool = match arguments.engine() {
            Engine::Mysql => return peers_common::lacks("riverqueue has no MySQL"),
            Engine::Postgres => {
                Pool::Postgres(runtime.block_on(PgPool::connect(&arguments.database))?)
            }
            Engine::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(arguments.file())
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(Duration::from_secs(5));
                Pool::Sqlite(runtime.block_on(SqlitePoolOptions::new().connect_with(options))?)
            }
        };
        Ok(Self { arguments: arguments.clone(), runtime, pool, client: None })
    }

    fn migrate(&mut self) -> Any {
        match &self.pool {
            Pool::Postgres(pool) => {
                self.runtime.block_on(PostgresMigrator::new(pool.clone()).migrate_up())?;
            }
            Pool::Sqlite(pool) => {
                self.runtime.block_on(SqliteMigrator::new(pool.clone()).migrate_up())?;
            }
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let client = self.client()?.clone();
        let job = Nothing { text: peers_common::text(n) };
        self.runtime.block_on(async { client.insert(job).await })?;
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        let client = self.client()?.clone();
        let jobs: Vec<_> = jobs.map(|n| Nothing { text: peers_common::text(n) }).collect();
        self.runtime.block_on(async { client.insert_many(jobs).await })?;
        Ok(())
    }

    fn start(&mut self) -> Any {
        let client = self.client()?.clone();
        let _guard = self.runtime.enter();
        client.start()?.detach();
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM river_job WHERE state <> 'completed')";
        Ok(match &self.pool {
            Pool::Postgres(pool) => {
                self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?
            }
            Pool::Sqlite(pool) => self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?,
        })
    }

    fn note(&self, arguments: &Arguments) -> String {
        let mut note = match (arguments.metric, arguments.best()) {
            (Metric::EnqueueOne, _) => "insert".into(),
            (Metric::EnqueueBulk, _) => "insert_many of 10,000".into(),
            (_, true) => "500 workers, cooldown 1 ms, poll 10 ms".into(),
            (_, false) => format!("{} workers, cooldown 100 ms, poll 1 s", arguments.workers),
        };
        if arguments.engine() == Engine::Sqlite {
            note += ", WAL, synchronous FULL";
        }
        note
    }
}

fn main() -> ExitCode {
    peers_common::main::<River>()
}
