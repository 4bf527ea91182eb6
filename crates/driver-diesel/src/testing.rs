//! Tests of code that enqueues in transactions of its own, on the test's connection.

use qudo_core::driver::{Deadline, Due, Inserted, JobInfo, JobRecord, JobState};
use qudo_core::testing::TestQueue;
use qudo_core::{Ability, Error, ManagerInside};
use qudo_hooks::{CodecSet, JobId};
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::classify::to_driver_error;
use crate::engine::Engine;
use crate::sql::Sql;
use crate::statements::lookup;
use crate::transactional::Transactional;

/// A diesel connection of a test: in memory, or in a transaction that is never committed.
pub trait TestConnection: Transactional {
    #[doc(hidden)]
    fn make_tables(&mut self) -> diesel::QueryResult<Vec<String>>;

    #[doc(hidden)]
    fn live_jobs(&mut self) -> diesel::QueryResult<Vec<JobInfo>>;

    #[doc(hidden)]
    fn remove_jobs(&mut self, ids: &[JobId]) -> diesel::QueryResult<()>;
}

fn live_jobs<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> diesel::QueryResult<Vec<JobInfo>> {
    let ids: Vec<Uuid> = conn.rows("SELECT id FROM qudo_job ORDER BY id", &[])?;
    let mut jobs = lookup::jobs::<E>(conn, &ids, true)?;
    jobs.sort_unstable_by_key(|job| job.id);
    Ok(jobs)
}

/// Jobs that wait, with all that lies beside them.
fn remove_jobs<E: Engine>(conn: &mut Sql<'_, E::Conn>, ids: &[JobId]) -> diesel::QueryResult<()> {
    let mut ids: Vec<_> = ids.iter().map(|id| *id.as_uuid()).collect();
    ids.sort_unstable();
    for table in ["qudo_ready", "qudo_scheduled", "qudo_unique", "qudo_job"] {
        E::delete_by_id(conn, &Keyed::table(table), &ids)?;
    }
    Ok(())
}

macro_rules! test_connection {
    ($conn:ty, $engine:ty) => {
        impl TestConnection for $conn {
            fn make_tables(&mut self) -> diesel::QueryResult<Vec<String>> {
                crate::migrate::apply_on::<$engine>(&mut Sql::new(
                    self,
                    crate::tables::Tables::DEFAULT,
                ))
            }

            fn live_jobs(&mut self) -> diesel::QueryResult<Vec<JobInfo>> {
                live_jobs::<$engine>(&mut Sql::new(self, crate::tables::Tables::DEFAULT))
            }

            fn remove_jobs(&mut self, ids: &[JobId]) -> diesel::QueryResult<()> {
                remove_jobs::<$engine>(&mut Sql::new(self, crate::tables::Tables::DEFAULT), ids)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
test_connection!(diesel::SqliteConnection, crate::sqlite::Sqlite);
#[cfg(feature = "postgres")]
test_connection!(diesel::PgConnection, crate::postgres::Postgres);
#[cfg(feature = "mysql")]
test_connection!(diesel::MysqlConnection, crate::mysql::Mysql);

fn failed(action: &'static str) -> impl FnOnce(diesel::result::Error) -> Error {
    move |error| Error::Database {
        database: "of the test's connection".to_owned(),
        action,
        source: to_driver_error(error, false),
    }
}

/// Makes qudo's tables, under their default names, on a connection that no manager has: `:memory:`, or a test's own database. Returns the
/// migrations that were applied; none if all are.
///
/// # Errors
///
/// Whatever the connection answers.
pub fn migrate_in<C: TestConnection>(conn: &mut C) -> Result<Vec<String>, Error> {
    conn.make_tables().map_err(failed("make the tables"))
}

/// The live jobs on the connection, in the order of their enqueue: also those of a transaction that is open on it.
///
/// # Errors
///
/// Whatever the connection answers.
pub fn jobs_in<C: TestConnection>(conn: &mut C) -> Result<Vec<JobInfo>, Error> {
    conn.live_jobs().map_err(failed("list the jobs"))
}

/// The live jobs of an ability on the connection, with their arguments. Those whose argument does not decode are left out.
///
/// # Errors
///
/// Whatever the connection answers.
pub fn jobs_of_in<A: Ability>(
    conn: &mut impl TestConnection,
) -> Result<Vec<(JobInfo, A::Arg)>, Error> {
    let codecs = CodecSet::default();
    let jobs = jobs_in(conn)?.into_iter().filter(|job| job.facts.ability == A::NAME);
    let decoded = jobs.filter_map(|job| {
        let codec = job.facts.codec.as_str();
        // The version of the argument stands behind the name.
        let codec = codec.rsplit_once('@').map_or(codec, |(codec, _)| codec);
        let arg = codecs.decode(codec, &job.facts.arg).ok()?;
        Some((job, arg))
    });
    Ok(decoded.collect())
}

/// A [`TestQueue`] that runs what was enqueued on a connection.
pub trait TakeIn {
    /// Takes the jobs that wait on the connection out of it and into the queue, where
    /// [`run_all`](TestQueue::run_all) runs them; returns how many. Take them after the commit, if the test is to see that a rollback leaves
    /// nothing; before it, they are taken out of the open transaction. A job whose unique key one of the queue's jobs holds stays on the
    /// connection.
    ///
    /// # Errors
    ///
    /// Whatever the connection answers.
    fn take_in<C: TestConnection>(&self, conn: &mut C) -> Result<usize, Error>;
}

impl TakeIn for TestQueue {
    fn take_in<C: TestConnection>(&self, conn: &mut C) -> Result<usize, Error> {
        let due = |job: &JobInfo| match job.state {
            JobState::Ready => Some(Due::Now),
            JobState::Scheduled { run_after } => Some(Due::At(run_after)),
            _ => None,
        };
        let waiting = jobs_in(conn)?.into_iter().filter_map(|job| Some((due(&job)?, job)));
        let records: Vec<_> =
            waiting.map(|(due, job)| JobRecord { id: job.id, facts: job.facts, due }).collect();
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        let drivers = self.manager().drivers(None)?;
        let Some(driver) = drivers.first() else { return Ok(0) };
        let inserted = driver.insert(&records, Deadline::NONE).map_err(|source| {
            Error::Database { database: "test".to_owned(), action: "take jobs in", source }
        })?;
        // One whose key a job of the queue holds stays where it is.
        let taken = ids.into_iter().zip(inserted).filter(|(_, one)| *one == Inserted::New);
        let taken: Vec<_> = taken.map(|(id, _)| id).collect();
        conn.remove_jobs(&taken).map_err(failed("take jobs out"))?;
        Ok(taken.len())
    }
}

/// Asserts that a live job of an ability is on a test's connection, or one for which a condition on the job and its
/// argument holds. The message of a failure lists the jobs there are.
///
/// `assert_enqueued_in!(conn, Ability)`, `assert_enqueued_in!(conn, Ability, |job, arg| ..)`; the connection is a `&mut`.
#[macro_export]
macro_rules! assert_enqueued_in {
    ($conn:expr, $ability:ty) => {
        $crate::assert_enqueued_in!($conn, $ability, |_job, _arg| true)
    };
    ($conn:expr, $ability:ty, $condition:expr) => {{
        let conn = $conn;
        let found = $crate::testing::any_job_in::<$ability>(&mut *conn, $condition);
        assert!(
            found,
            "no such job of {} is enqueued; there are: {:?}",
            $crate::testing::name_of::<$ability>(),
            $crate::testing::jobs_in(&mut *conn)
        );
    }};
}

/// Asserts that no live job of an ability is on a test's connection.
#[macro_export]
macro_rules! refute_enqueued_in {
    ($conn:expr, $ability:ty) => {{
        let found = $crate::testing::is_in(&mut *$conn, $crate::testing::name_of::<$ability>());
        assert!(!found, "a job of {} is enqueued", $crate::testing::name_of::<$ability>());
    }};
}

/// For the macros.
///
/// # Panics
///
/// When the connection does not answer.
#[doc(hidden)]
pub fn any_job_in<A: Ability>(
    conn: &mut impl TestConnection,
    condition: impl Fn(&JobInfo, &A::Arg) -> bool,
) -> bool {
    let jobs = jobs_of_in::<A>(conn).unwrap_or_else(|error| panic!("{error}"));
    jobs.iter().any(|(job, arg)| condition(job, arg))
}

/// For the macros: whether a job of this ability is there, whatever its argument.
///
/// # Panics
///
/// When the connection does not answer.
#[doc(hidden)]
pub fn is_in(conn: &mut impl TestConnection, ability: &str) -> bool {
    let jobs = jobs_in(conn).unwrap_or_else(|error| panic!("{error}"));
    jobs.iter().any(|job| job.facts.ability == *ability)
}

/// For the macros.
#[doc(hidden)]
pub fn name_of<A: Ability>() -> &'static str {
    A::NAME
}
