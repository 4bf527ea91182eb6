use std::sync::Arc;

use diesel::PgConnection;
use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::{Error, QueryResult};
use qudo_core::driver::DriverError;

use super::connect::{Source, held_plans};
use super::rights;
use crate::clock::{LATE, TooLate, Window};
use crate::pool::{IDLE_LIMIT, Pool};
use crate::sql::Sql;
use crate::tables::Tables;

/// Begins a transaction with the limits and the isolation that a connection without a pooler sets once.
/// At the higher levels, which may be the default of an account, half of the claims that meet fail.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '5s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Runs `act` in a transaction that commits within this window or not at all: the commit is sent
/// together with a look at the server's clock, whose error keeps it from being carried out.
///
/// diesel's own commit follows, so that its count of open transactions is right; it ends an empty one,
/// because a commit outside of any would be a warning in the server's log. Inside a transaction, as
/// behind a pooler, only our own clock is looked at.
pub(super) fn transaction_within<T>(
    conn: &mut Sql<'_, PgConnection>,
    window: &Window,
    act: impl FnOnce(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    let status = AnsiTransactionManager::transaction_manager_status_mut(conn.raw);
    if window.is_open() || status.transaction_depth()?.is_some() {
        return conn.transaction(|conn| {
            let value = act(conn)?;
            window.check()?;
            Ok(value)
        });
    }
    let commit = format!(
        "SELECT CASE WHEN qudo_now() BETWEEN {} AND {} THEN '' ELSE qudo_refuse('too late') END; \
         COMMIT AND CHAIN",
        window.from, window.until
    );
    let mut refused = None;
    let done = conn.nestable(|conn| {
        let value = act(conn)?;
        conn.batch(&commit).map(|()| value).map_err(|error| {
            refused = Some(error);
            Error::RollbackTransaction
        })
    });
    match refused {
        Some(error) if error.to_string().contains(LATE) => Err(TooLate::error()),
        // One that lost to another at its commit, as under SERIALIZABLE, has ended its transaction, and
        // diesel's rollback fails for want of one. What counts is why it lost.
        Some(error) => Err(error),
        None => done,
    }
}

/// The way to the server's sessions.
///
/// Behind a transaction pooler each transaction may meet another session, in which neither what was
/// set nor what was prepared before is there. So there every call is a transaction that sets its own
/// limits, and nothing stays prepared.
pub(super) struct Sessions {
    pool: Pool<PgConnection>,
    pooler: bool,
    tables: Tables,
}

impl Sessions {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        let (source, pooler) = (Arc::clone(source), source.options.pooler);
        let tables = source.options.tables.clone();
        let connect = move || super::connect::connect(&source.url_now()?, pooler);
        Self { pool: Pool::new(IDLE_LIMIT, connect), pooler, tables }
    }

    /// Runs `act` on a session; see [`Pool::with`].
    pub(super) fn with<T>(
        &self,
        writes: bool,
        mut act: impl FnMut(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.pool.with(writes, |raw| {
            let conn = &mut Sql::new(raw, &self.tables);
            self.framed(conn, &mut act).map_err(|error| {
                match rights::denied(&error, &self.tables) {
                    Some(table) => {
                        let asked = self.framed(conn, |conn| Ok(rights::named(conn, &table)));
                        rights::with_what_lacks(error, asked.unwrap_or_default())
                    }
                    None => error,
                }
            })
        })
    }

    /// Runs `act` on a session of its own, outside the pool.
    pub(super) fn alone<T>(
        &self,
        act: impl FnOnce(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<QueryResult<T>, DriverError> {
        let mut conn = self.pool.connect_alone()?;
        Ok(self.framed(&mut Sql::new(&mut conn, &self.tables), act))
    }

    fn framed<T>(
        &self,
        conn: &mut Sql<'_, PgConnection>,
        act: impl FnOnce(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        if !self.pooler {
            return act(conn);
        }
        let begin = format!("{BEGIN}; {}", held_plans("SET LOCAL"));
        AnsiTransactionManager::begin_transaction_sql(conn.raw, &begin)?;
        match act(conn) {
            Ok(value) => AnsiTransactionManager::commit_transaction(conn.raw).map(|()| value),
            Err(error) => match AnsiTransactionManager::rollback_transaction(conn.raw) {
                Ok(()) | Err(Error::BrokenTransactionManager) => Err(error),
                Err(rollback) => Err(rollback),
            },
        }
    }

    /// Runs what may fail and leave the transaction, if there is one, as it was.
    pub(super) fn attempt<T>(
        &self,
        conn: &mut Sql<'_, PgConnection>,
        act: impl FnOnce(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        if self.pooler { conn.transaction(act) } else { act(conn) }
    }

    pub(super) fn reset(&self) {
        self.pool.reset();
    }
}
