use postgres::types::{FromSqlOwned, ToSql};
use postgres::{Client, NoTls, Statement};

use crate::{Any, Arguments, Connection, Ids, Layout};

/// The type of an id.
pub(crate) trait Id: FromSqlOwned + ToSql + Sync + Send + Copy + Ord + 'static {
    /// Before all others.
    const FIRST: Self;
}

impl Id for i64 {
    const FIRST: Self = 0;
}

impl Id for uuid::Uuid {
    const FIRST: Self = Self::nil();
}

pub(crate) struct Conn<I> {
    arguments: Arguments,
    client: Client,
    statements: Option<(Statement, Statement)>,
    /// The last id claimed.
    last: I,
}

impl<I: Id> Conn<I> {
    fn statements(&mut self) -> Any<(Statement, Statement)> {
        if let Some(known) = &self.statements {
            return Ok(known.clone());
        }
        let batch = self.arguments.batch;
        let layout = self.arguments.layout;
        let after = if layout == Layout::NarrowAfter { "AND (priority, id) > (0, $1)" } else { "" };
        // A parameter that is of no use must still have a type.
        let unused = if after.is_empty() { "AND $1::ID IS NOT NULL" } else { "" };
        let claim = match layout {
            Layout::One => format!(
                "UPDATE job SET state = 'running', attempt = attempt + 1, worker = 1, \
                 leased_until = 1 WHERE ctid = ANY(ARRAY(SELECT ctid FROM job \
                 WHERE queue = 'bench' AND state = 'ready' {unused} \
                 ORDER BY queue, state, priority, id LIMIT {batch} FOR UPDATE SKIP LOCKED)) \
                 RETURNING id, payload"
            ),
            _ => format!(
                "WITH gone AS (DELETE FROM ready WHERE ctid = ANY(ARRAY(SELECT ctid FROM ready \
                 WHERE queue = 'bench' {after} {unused} ORDER BY queue, priority, id \
                 LIMIT {batch} FOR UPDATE SKIP LOCKED)) RETURNING id, attempt), \
                 taken AS (INSERT INTO lease SELECT id, 1, 1, attempt + 1 FROM gone) \
                 SELECT job.id, payload FROM gone JOIN job ON job.id = gone.id"
            ),
        };
        let finish = if self.arguments.layout.is_narrow() {
            "WITH ended AS (DELETE FROM lease WHERE id = ANY($1)) \
             DELETE FROM job WHERE id = ANY($1)"
        } else {
            "DELETE FROM job WHERE id = ANY($1)"
        };
        let claim = claim.replace("ID", id_type(&self.arguments));
        let both = (self.client.prepare(&claim)?, self.client.prepare(finish)?);
        Ok(self.statements.insert(both).clone())
    }
}

fn id_type(arguments: &Arguments) -> &'static str {
    if arguments.ids == Ids::Uuid { "UUID" } else { "BIGINT" }
}

impl<I: Id> Connection for Conn<I> {
    fn open(arguments: &Arguments) -> Any<Self> {
        let mut client = Client::connect(&arguments.database, NoTls)?;
        if arguments.layout == Layout::NarrowHeld {
            client.batch_execute(
                "SET enable_sort = off; SET enable_bitmapscan = off; SET enable_seqscan = off; \
                 SET enable_hashjoin = off; SET enable_mergejoin = off",
            )?;
        }
        let arguments = arguments.clone();
        Ok(Self { arguments, client, statements: None, last: I::FIRST })
    }

    fn fill(&mut self) -> Any {
        let arguments = &self.arguments;
        let text = "TEXT COLLATE \"C\"";
        let tables = crate::tables(arguments, id_type(arguments), text, "BYTEA", "");
        self.client.batch_execute(&tables)?;
        let id = match arguments.ids {
            Ids::Uuid => "('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
            Ids::Big => "n",
        };
        let numbers = format!("generate_series(1, {}) AS n", arguments.jobs);
        for fill in crate::fills(arguments, &numbers, id, "lpad(n::text, 50, '0')::bytea") {
            self.client.batch_execute(&fill)?;
        }
        if !matches!(arguments.layout, Layout::NarrowNew | Layout::NarrowHeld) {
            let ready = if arguments.layout.is_narrow() { ", ready" } else { "" };
            self.client.batch_execute(&format!("ANALYZE job{ready}"))?;
        }
        Ok(self.client.batch_execute("CHECKPOINT")?)
    }

    fn turn(&mut self) -> Any<usize> {
        let (claim, finish) = self.statements()?;
        let rows = self.client.query(&claim, &[&self.last])?;
        let ids: Vec<I> = rows.iter().map(|row| row.get(0)).collect();
        if self.arguments.layout == Layout::NarrowAfter {
            // At the end it begins anew, for what others left.
            self.last = ids.iter().max().copied().unwrap_or(I::FIRST);
        }
        self.client.execute(&finish, &[&ids])?;
        Ok(ids.len())
    }
}
