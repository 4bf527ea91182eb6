use std::ops::Range;
use std::time::Duration;

use peers_common::{Any, Arguments, Metric, Peer};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls, Statement};

pub(crate) struct Bare {
    arguments: Arguments,
    client: Client,
    insert: Option<Statement>,
}

impl Peer for Bare {
    const NAME: &'static str = "bare";

    fn open(arguments: &Arguments) -> Any<Self> {
        let client = Client::connect(&arguments.database, NoTls)?;
        Ok(Self { arguments: arguments.clone(), client, insert: None })
    }

    fn migrate(&mut self) -> Any {
        self.client.batch_execute(
            "CREATE TABLE jobs (id BIGSERIAL PRIMARY KEY, queue TEXT NOT NULL, \
             priority SMALLINT NOT NULL DEFAULT 0, payload TEXT NOT NULL, \
             state TEXT NOT NULL DEFAULT 'ready', \
             created TIMESTAMPTZ NOT NULL DEFAULT now())",
        )?;
        if !self.arguments.best() {
            self.client.batch_execute(super::INDEX)?;
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let insert = match &self.insert {
            Some(insert) => insert,
            None => self.insert.insert(
                self.client.prepare("INSERT INTO jobs (queue, payload) VALUES ('bench', $1)")?,
            ),
        };
        self.client.execute(insert, &[&super::payload(n)])?;
        if self.arguments.metric == Metric::Latency {
            self.client.batch_execute("NOTIFY bare")?;
        }
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        let insert = self.client.prepare(
            "INSERT INTO jobs (queue, payload) SELECT 'bench', unnest FROM unnest($1::text[])",
        )?;
        for from in jobs.clone().step_by(5_000) {
            let payloads: Vec<_> = (from..jobs.end.min(from + 5_000)).map(super::payload).collect();
            self.client.execute(&insert, &[&payloads])?;
        }
        Ok(())
    }

    fn prepare(&mut self, jobs: Range<usize>) -> Any {
        self.enqueue_bulk(jobs)?;
        // Of a new table the server believes that few rows are ready, and reads and sorts them all
        // for each claim, until its autovacuum comes by.
        Ok(self.client.batch_execute("ANALYZE jobs")?)
    }

    fn start(&mut self) -> Any {
        if self.arguments.stamp {
            let mut client = Client::connect(&self.arguments.database, NoTls)?;
            client.batch_execute("LISTEN bare")?;
            super::thread(move || {
                let mut n = 0;
                while client.notifications().blocking_iter().next()?.is_some() {
                    peers_common::executed(&peers_common::text(n));
                    n += 1;
                }
                Ok(())
            });
            return Ok(());
        }
        for _ in 0..self.arguments.workers {
            let arguments = self.arguments.clone();
            super::thread(move || work(&arguments));
        }
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        Ok(self.client.query_one("SELECT NOT EXISTS (SELECT FROM jobs)", &[])?.get(0))
    }

    fn note(&self, arguments: &Arguments) -> String {
        let more = match arguments.metric {
            Metric::EnqueueOne => "prepared INSERT, autocommit",
            Metric::EnqueueBulk => "INSERT of unnest, 5,000 a statement",
            Metric::Work => {
                "analyzed, batch 500, UPDATE … SKIP LOCKED RETURNING, one DELETE a batch"
            }
            Metric::Latency => "INSERT, then NOTIFY, to a process that listens",
        };
        super::note(arguments, more)
    }
}

fn work(arguments: &Arguments) -> Any {
    let mut client = Client::connect(&arguments.database, NoTls)?;
    let claim = client.prepare(&format!(
        "UPDATE jobs SET state = 'running' WHERE id IN (SELECT id FROM jobs WHERE {} \
         LIMIT {} FOR UPDATE SKIP LOCKED) RETURNING id, payload",
        super::ready(arguments),
        super::BATCH
    ))?;
    let finish = client.prepare("DELETE FROM jobs WHERE id = ANY($1)")?;
    loop {
        let rows = client.query(&claim, &[])?;
        if rows.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut ids: Vec<i64> = Vec::with_capacity(rows.len());
        for row in &rows {
            super::execute(row.get(1))?;
            ids.push(row.get(0));
        }
        client.execute(&finish, &[&ids])?;
    }
}
