//! The crate `fang`, its asynchronous half, on PostgreSQL, MySQL and SQLite.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use fang::asynk::async_queue::{AsyncQueue, AsyncQueueError, AsyncQueueable};
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::serde::{Deserialize, Serialize};
use fang::{AsyncRunnable, FangError, SleepParams, async_trait};
use peers_common::{Any, Arguments, Engine, Metric, Peer};
use sqlx::mysql::MySqlPool;
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool};
use sqlx::{Executor, QueryBuilder};
use tokio::runtime::Runtime;

#[derive(Serialize, Deserialize)]
#[serde(crate = "fang::serde")]
struct Nothing {
    text: String,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Nothing {
    async fn run(&self, _queue: &dyn AsyncQueueable) -> Result<(), FangError> {
        peers_common::executed(&self.text);
        Ok(())
    }
}

enum Pool {
    Postgres(PgPool),
    Mysql(MySqlPool),
    Sqlite(SqlitePool),
}

struct Fang {
    arguments: Arguments,
    runtime: Runtime,
    /// For what the library has no words for.
    pool: Pool,
    queue: AsyncQueue,
}

impl Fang {
    fn workers(&self) -> usize {
        match (self.arguments.best(), self.arguments.engine()) {
            (false, _) => self.arguments.workers,
            (true, Engine::Sqlite) => 1,
            (true, _) => 8,
        }
    }
}

impl Peer for Fang {
    const NAME: &'static str = "fang 0.11.0";

    fn open(arguments: &Arguments) -> Any<Self> {
        let runtime = Runtime::new()?;
        let url = &arguments.database;
        let pool = match arguments.engine() {
            Engine::Postgres => Pool::Postgres(runtime.block_on(PgPool::connect(url))?),
            Engine::Mysql => Pool::Mysql(runtime.block_on(MySqlPool::connect(url))?),
            Engine::Sqlite => {
                // The mode of the journal stays with the file. The library's own connections
                // keep SQLite's default of a full flush.
                let options = SqliteConnectOptions::new()
                    .filename(arguments.file())
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal);
                Pool::Sqlite(runtime.block_on(SqlitePool::connect_with(options))?)
            }
        };
        let mut queue = AsyncQueue::builder().uri(url.as_str()).max_pool_size(10_u32).build();
        runtime.block_on(queue.connect())?;
        Ok(Self { arguments: arguments.clone(), runtime, pool, queue })
    }

    fn migrate(&mut self) -> Any {
        // Those of the library need diesel and the client libraries; the tables are the same.
        match &self.pool {
            Pool::Postgres(pool) => {
                self.runtime.block_on(pool.execute(include_str!("postgres.sql")))?;
            }
            Pool::Mysql(pool) => {
                self.runtime.block_on(pool.execute(include_str!("mysql.sql")))?;
            }
            Pool::Sqlite(pool) => {
                self.runtime.block_on(pool.execute(include_str!("sqlite.sql")))?;
            }
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let job = Nothing { text: peers_common::text(n) };
        match self.runtime.block_on(self.queue.insert_task(&job)) {
            // On MySQL it inserts, then reads the row, which a worker may have removed meanwhile.
            Err(AsyncQueueError::SqlXError(sqlx::Error::RowNotFound))
                if self.arguments.engine() == Engine::Mysql => {}
            inserted => {
                inserted?;
            }
        }
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        for n in jobs {
            self.enqueue_one(n)?;
        }
        Ok(())
    }

    /// Inserts the rows that the library would, many at once.
    fn prepare(&mut self, jobs: Range<usize>) -> Any {
        for from in jobs.clone().step_by(500) {
            let rows = (from..jobs.end.min(from + 500)).map(|n| {
                let job = Nothing { text: peers_common::text(n) };
                serde_json::to_string(&job as &dyn AsyncRunnable).expect("a string in a map")
            });
            let id = || uuid::Uuid::new_v4().as_bytes().to_vec();
            match &self.pool {
                Pool::Postgres(pool) => {
                    let mut sql = QueryBuilder::new("INSERT INTO fang_tasks (metadata) ");
                    sql.push_values(rows, |mut row, job| {
                        row.push_bind(job).push_unseparated("::jsonb");
                    });
                    self.runtime.block_on(sql.build().execute(pool))?;
                }
                Pool::Mysql(pool) => {
                    let mut sql =
                        QueryBuilder::new("INSERT INTO fang_tasks (id, metadata, scheduled_at) ");
                    sql.push_values(rows, |mut row, job| {
                        row.push_bind(id()).push_bind(job).push("utc_timestamp(6)");
                    });
                    self.runtime.block_on(sql.build().execute(pool))?;
                }
                Pool::Sqlite(pool) => {
                    let mut sql = QueryBuilder::new("INSERT INTO fang_tasks (id, metadata) ");
                    sql.push_values(rows, |mut row, job| {
                        row.push_bind(id()).push_bind(job);
                    });
                    self.runtime.block_on(sql.build().execute(pool))?;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Any {
        let mut sleep = SleepParams::default();
        if self.arguments.best() {
            let poll = Duration::from_millis(1);
            sleep = SleepParams {
                sleep_period: poll,
                max_sleep_period: poll,
                min_sleep_period: poll,
                sleep_step: Duration::ZERO,
            };
        }
        let mut workers: AsyncWorkerPool<AsyncQueue> = AsyncWorkerPool::builder()
            .number_of_workers(self.workers() as u32)
            .sleep_params(sleep)
            .queue(self.queue.clone())
            .build();
        self.runtime.block_on(workers.start());
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        let sql = "SELECT count(*) FROM fang_tasks";
        let left: i64 = match &self.pool {
            Pool::Postgres(pool) => {
                self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?
            }
            Pool::Mysql(pool) => self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?,
            Pool::Sqlite(pool) => self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(pool))?,
        };
        Ok(left == 0)
    }

    fn note(&self, arguments: &Arguments) -> String {
        let mut note = match (arguments.metric, arguments.best()) {
            (Metric::EnqueueOne, _) => "insert_task".into(),
            (Metric::EnqueueBulk, _) => "insert_task one by one, no bulk insert".into(),
            (_, true) => format!("asynk, {} workers, sleep 1 ms", self.workers()),
            (_, false) => format!("asynk, {} workers, sleep 5 to 15 s", self.workers()),
        };
        if arguments.engine() == Engine::Sqlite {
            note += ", WAL, synchronous FULL";
        }
        note
    }
}

fn main() -> ExitCode {
    peers_common::main::<Fang>()
}
