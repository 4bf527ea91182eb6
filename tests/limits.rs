//! What limits on statements and locks end, and what they leave alone.

#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::{Duration, Instant};

#[cfg(feature = "mysql")]
use diesel::{Connection, MysqlConnection, connection::SimpleConnection};
use qudo::admin::DatabaseState;
use qudo::admin::{ExceptionFilter, Paging};
use qudo::{Job, Manager, Outcome};
use qudo_test_servers::{FreshDatabase, run_sql};

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

#[qudo::ability(max_retries = 0)]
fn fails(_: &Job, (): ()) -> qudo::JobResult<()> {
    Err(qudo::JobError::fail("on purpose"))
}

fn manager(dsn: &str) -> Manager {
    let builder = Manager::builder().linked(false).database_as("it", dsn);
    builder.ability::<fails>().build().expect("valid")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

/// Puts a view in the place of the exceptions that sleeps over each, and ends whoever reads it.
fn a_listing_that_is_ended_leaves_its_database_up(engine: &str, sleeps: &str, end: fn(&str)) {
    let Some(fresh) = FreshDatabase::on(engine, "limits") else { return };
    let manager = manager(fresh.url());
    manager.migrate().expect("migrates");
    manager.enqueue(fails::job(())).expect("stored");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Discarded(_)))));
    let sql = |text: &str| run_sql(fresh.url(), text).expect("runs");
    sql("ALTER TABLE qudo_exception_log RENAME TO hidden");
    sql(&format!("CREATE VIEW qudo_exception_log AS SELECT * FROM hidden WHERE {sleeps}"));
    std::thread::scope(|scope| {
        let listing =
            scope.spawn(|| manager.exceptions(&ExceptionFilter::all(), &Paging::default()));
        wait_until("the listing is found and ended", || {
            end(fresh.url());
            listing.is_finished()
        });
        let listed = listing.join().expect("no panic");
        let error = listed.pages[0].answer.as_ref().expect_err("was ended").to_string();
        assert!(["interrupted", "canceling"].iter().any(|word| error.contains(word)), "{error}");
    });
    assert_eq!(manager.database_reports()[0].state, DatabaseState::Up, "it was the listing's time");
    manager.enqueue(fails::job(())).expect("stored");
}

#[cfg(feature = "postgres")]
#[test]
fn a_listing_that_is_ended_leaves_its_database_up_on_postgres() {
    let end = |url: &str| {
        let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE state = 'active' \
                   AND datname = current_database() AND pid <> pg_backend_pid() \
                   AND query LIKE '%FROM qudo_exception_log%'";
        run_sql(url, sql).expect("ends");
    };
    let sleeps = "pg_sleep(60) IS NOT NULL";
    a_listing_that_is_ended_leaves_its_database_up("postgres", sleeps, end);
}

#[cfg(feature = "mysql")]
mod mysql {
    use super::*;

    const SLEEPS: &str = "SLEEP(60) = 0";

    /// Runs a statement with each number that a query answers.
    fn with_each(url: &str, query: &str, statement: &str) {
        let numbers = run_sql(url, query).expect("lists");
        for number in numbers.split_whitespace().filter(|one| one.parse::<u64>().is_ok()) {
            // It may have ended by itself.
            let _ = run_sql(url, &format!("{statement} {number}"));
        }
    }

    fn end(url: &str) {
        let query = "SELECT id FROM information_schema.processlist WHERE db = DATABASE() \
                     AND id <> CONNECTION_ID() AND info LIKE '%FROM qudo_exception_log%'";
        with_each(url, query, "KILL QUERY");
    }

    #[test]
    fn a_listing_that_is_ended_leaves_its_database_up_on_mariadb() {
        a_listing_that_is_ended_leaves_its_database_up("mariadb", SLEEPS, end);
    }

    #[test]
    fn a_listing_that_is_ended_leaves_its_database_up_on_mysql() {
        a_listing_that_is_ended_leaves_its_database_up("mysql", SLEEPS, end);
    }

    /// Everything else gives up after 5 s, and at the latest after 8 s of trying again.
    const LONGER_THAN_OTHERS: Duration = Duration::from_secs(14);

    fn a_migration_waits_for_a_table_in_use(engine: &str) {
        let Some(fresh) = FreshDatabase::on(engine, "limits") else { return };
        let manager = manager(fresh.url());
        manager.migrate().expect("migrates");
        // It replaces the view, when it is run again.
        let broken_off = "UPDATE qudo_schema_migrations SET applied_at = 0";
        run_sql(fresh.url(), broken_off).expect("as if it was broken off");
        let mut reader = MysqlConnection::establish(fresh.url()).expect("connects");
        reader.batch_execute("LOCK TABLES qudo_jobs READ").expect("locks");
        std::thread::scope(|scope| {
            let migration = scope.spawn(|| manager.migrate());
            let waits = "SELECT count(*) FROM information_schema.processlist \
                         WHERE db = DATABASE() AND state LIKE 'Waiting for table%'";
            wait_until("it waits", || {
                assert!(!migration.is_finished(), "{engine}: it did not wait");
                run_sql(fresh.url(), waits).expect("reads") == "1"
            });
            let begun = Instant::now();
            while begun.elapsed() < LONGER_THAN_OTHERS {
                assert!(!migration.is_finished(), "{engine}: it gave up");
                std::thread::park_timeout(Duration::from_millis(100));
            }
            reader.batch_execute("UNLOCK TABLES").expect("unlocks");
            migration.join().expect("no panic").expect("migrates");
        });
        let missing = manager.missing_migrations().remove(0).answer.expect("answers");
        assert!(missing.is_empty(), "{engine}: {missing:?}");
    }

    #[test]
    fn a_migration_waits_for_a_table_in_use_on_mariadb() {
        a_migration_waits_for_a_table_in_use("mariadb");
    }

    #[test]
    fn a_migration_waits_for_a_table_in_use_on_mysql() {
        a_migration_waits_for_a_table_in_use("mysql");
    }
}

/// A trigger notes the limit under which tables and functions are made.
#[cfg(feature = "postgres")]
#[test]
fn a_migration_has_no_limit_on_postgres() {
    let Some(fresh) = FreshDatabase::on("postgres", "limits") else { return };
    let sql = |text: &str| run_sql(fresh.url(), text).expect("runs");
    sql("CREATE TABLE seen (tag TEXT, what TEXT)");
    sql("CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO seen VALUES (tg_tag, current_setting('statement_timeout')); END $$");
    sql("CREATE EVENT TRIGGER noted ON ddl_command_start EXECUTE FUNCTION note()");
    manager(fresh.url()).migrate().expect("migrates");
    assert_eq!(sql("SELECT DISTINCT what FROM seen"), "0");
    assert_ne!(sql("SELECT count(*) FROM seen WHERE tag = 'CREATE TABLE'"), "0");
}
