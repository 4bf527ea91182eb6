//! The crate `apalis`, on PostgreSQL and SQLite.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use peers_common::{Any, Arguments, Engine, Metric, Peer};
use sqlx::postgres::PgPool;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::runtime::Runtime;

/// Jobs that the best settings fetch at once.
const BATCH: usize = 1_000;

async fn nothing(text: String) -> Result<(), BoxDynError> {
    peers_common::executed(&text);
    Ok(())
}

enum Storage {
    Postgres(PgPool, PostgresStorage<String>),
    Sqlite(SqlitePool, SqliteStorage<String>),
}

struct Apalis {
    arguments: Arguments,
    runtime: Runtime,
    storage: Storage,
}

/// Runs a worker over a backend. The types of the backends have no name in common.
macro_rules! work {
    ($peer:expr, $backend:expr) => {{
        let (backend, arguments) = ($backend, $peer.arguments.clone());
        let handle = $peer.runtime.handle().clone();
        // On a thread of its own, because its future is not `Send` for every backend.
        std::thread::spawn(move || {
            let _guard = handle.enter();
            let worker = WorkerBuilder::new("bench").backend(backend);
            if arguments.best() {
                let worker = worker.parallelize(tokio::spawn).build(nothing);
                ended(handle.block_on(worker.run()));
            } else {
                let worker = worker.concurrency(arguments.workers).build(nothing);
                ended(handle.block_on(worker.run()));
            }
        });
    }};
}

/// A worker that ends by itself has failed.
fn ended<E: std::fmt::Debug>(how: Result<(), E>) {
    eprintln!("apalis: the worker ended: {how:?}");
    std::process::exit(1);
}

impl Peer for Apalis {
    const NAME: &'static str = "apalis 1.0.0";

    fn open(arguments: &Arguments) -> Any<Self> {
        let runtime = Runtime::new()?;
        let storage = match arguments.engine() {
            Engine::Mysql => {
                let why =
                    "apalis-mysql is at 1.0.0-rc.8, and its migrations don't run on MariaDB 10.11";
                return peers_common::lacks(why);
            }
            Engine::Postgres => {
                let pool = runtime.block_on(PgPool::connect(&arguments.database))?;
                let mut storage = PostgresStorage::new(&pool);
                if arguments.best() {
                    let config = apalis_postgres::Config::default().queue("bench");
                    storage = storage.with_config(config.batch_size(BATCH).lock_tasks(false));
                }
                Storage::Postgres(pool, storage)
            }
            Engine::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(arguments.file())
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(Duration::from_secs(5));
                let pool = runtime.block_on(SqlitePoolOptions::new().connect_with(options))?;
                let mut storage = SqliteStorage::new(&pool);
                if arguments.best() {
                    let config = apalis_sqlite::Config::default().queue("bench");
                    storage = storage.with_config(config.batch_size(BATCH).lock_tasks(false));
                }
                Storage::Sqlite(pool, storage)
            }
        };
        Ok(Self { arguments: arguments.clone(), runtime, storage })
    }

    fn migrate(&mut self) -> Any {
        match &self.storage {
            Storage::Postgres(pool, _) => self.runtime.block_on(PostgresStorage::setup(pool))?,
            // Its `setup` would also set `synchronous = OFF`, on one connection of the pool.
            Storage::Sqlite(pool, _) => {
                self.runtime.block_on(SqliteStorage::migrations().run(pool))?;
            }
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let text = peers_common::text(n);
        match &mut self.storage {
            Storage::Postgres(_, storage) => self.runtime.block_on(storage.push(text))?,
            Storage::Sqlite(_, storage) => self.runtime.block_on(storage.push(text))?,
        }
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        let texts = jobs.map(peers_common::text).collect();
        match &mut self.storage {
            Storage::Postgres(_, storage) => self.runtime.block_on(storage.push_bulk(texts))?,
            Storage::Sqlite(_, storage) => self.runtime.block_on(storage.push_bulk(texts))?,
        }
        Ok(())
    }

    fn start(&mut self) -> Any {
        let best = self.arguments.best();
        let _guard = self.runtime.enter();
        match &self.storage {
            Storage::Postgres(_, storage) if best => {
                let polled = storage.clone().poll_with_interval(Duration::from_millis(10));
                if self.arguments.metric == Metric::Latency {
                    work!(self, storage.clone().with_pubsub());
                } else {
                    work!(self, polled);
                }
            }
            Storage::Postgres(_, storage) => work!(self, storage.clone()),
            Storage::Sqlite(_, storage) if best => {
                work!(self, storage.clone().poll_with_interval(Duration::from_millis(10)));
            }
            Storage::Sqlite(_, storage) => work!(self, storage.clone()),
        }
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        Ok(match &self.storage {
            Storage::Postgres(pool, _) => {
                let sql = "SELECT NOT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')";
                self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?
            }
            Storage::Sqlite(pool, _) => {
                let sql = "SELECT NOT EXISTS (SELECT 1 FROM Jobs WHERE status <> 'Done')";
                self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?
            }
        })
    }

    fn note(&self, arguments: &Arguments) -> String {
        let postgres = arguments.engine() == Engine::Postgres;
        let note = match (arguments.metric, arguments.best()) {
            (Metric::EnqueueOne, _) => "push".into(),
            (Metric::EnqueueBulk, _) => "push_bulk of 10,000".into(),
            (Metric::Latency, true) if postgres => "with_pubsub, parallelize".into(),
            (_, true) => format!("batch {BATCH}, no lock_tasks, poll 10 ms, parallelize"),
            (_, false) => format!("batch 10, no poll strategy, concurrency {}", arguments.workers),
        };
        if postgres {
            format!("{note}, apalis-postgres 1.0.0")
        } else {
            format!("{note}, apalis-sqlite 1.0.0, WAL, synchronous FULL")
        }
    }
}

fn main() -> ExitCode {
    peers_common::main::<Apalis>()
}
