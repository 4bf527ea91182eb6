//! The crate `graphile_worker`, on PostgreSQL.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
    WorkerUtils,
};
use peers_common::{Any, Arguments, Engine, Metric, Peer};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::runtime::Runtime;

#[derive(Clone, Serialize, Deserialize)]
struct Nothing(String);

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, _context: WorkerContext) -> impl IntoTaskHandlerResult {
        peers_common::executed(&self.0);
        Ok::<(), String>(())
    }
}

struct Graphile {
    arguments: Arguments,
    runtime: Runtime,
    pool: PgPool,
    utils: WorkerUtils,
}

impl Peer for Graphile {
    const NAME: &'static str = "graphile_worker 0.14.1";

    fn open(arguments: &Arguments) -> Any<Self> {
        if arguments.engine() != Engine::Postgres {
            return peers_common::lacks("graphile_worker works on PostgreSQL only");
        }
        let runtime = Runtime::new()?;
        let pool = runtime.block_on(PgPool::connect(&arguments.database))?;
        let utils = WorkerUtils::new(pool.clone(), "graphile_worker");
        Ok(Self { arguments: arguments.clone(), runtime, pool, utils })
    }

    fn migrate(&mut self) -> Any {
        Ok(self.runtime.block_on(self.utils.migrate())?)
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let job = Nothing(peers_common::text(n));
        self.runtime.block_on(self.utils.add_job(job, JobSpec::default()))?;
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        let spec = JobSpec::default();
        let jobs: Vec<_> = jobs.map(|n| (Nothing(peers_common::text(n)), &spec)).collect();
        self.runtime.block_on(self.utils.add_jobs(&jobs))?;
        Ok(())
    }

    fn start(&mut self) -> Any {
        let mut options = WorkerOptions::default()
            .database_url(&self.arguments.database)
            .schema("graphile_worker")
            .define_job::<Nothing>();
        options = if !self.arguments.best() {
            options.concurrency(self.arguments.workers)
        } else if self.arguments.metric == Metric::Latency {
            // A local queue trades latency for throughput.
            options.concurrency(2)
        } else {
            options
                .concurrency(16)
                .complete_job_batch_delay(Duration::from_millis(5))
                .local_queue(LocalQueueConfig::default().with_size(500).with_queue_count(2))
        };
        let worker = self.runtime.block_on(options.init())?;
        self.runtime.spawn(async move {
            if let Err(error) = worker.run().await {
                eprintln!("graphile_worker: {error}");
                std::process::exit(1);
            }
        });
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        let sql = "SELECT NOT EXISTS (SELECT FROM graphile_worker._private_jobs)";
        Ok(self.runtime.block_on(sqlx::query_scalar(sql).fetch_one(&self.pool))?)
    }

    fn note(&self, arguments: &Arguments) -> String {
        match (arguments.metric, arguments.best()) {
            (Metric::EnqueueOne, _) => "add_job".into(),
            (Metric::EnqueueBulk, _) => "add_jobs of 10,000".into(),
            (Metric::Work, true) => {
                "concurrency 16, 2 local queues of 500, completions batched for 5 ms".into()
            }
            (Metric::Work, false) => format!("concurrency {}", arguments.workers),
            (Metric::Latency, _) => "LISTEN/NOTIFY, no local queue".into(),
        }
    }
}

fn main() -> ExitCode {
    peers_common::main::<Graphile>()
}
