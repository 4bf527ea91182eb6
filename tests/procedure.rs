//! On MySQL a lone job is stored by a procedure in one round trip, and without it all the same.

#![cfg(feature = "mysql")]
#![allow(missing_docs, reason = "a test is read, not called")]

use diesel::connection::SimpleConnection;
use diesel::{Connection, MysqlConnection};
use qudo::admin::{JobFilter, Paging};
use qudo::{Manager, NewJob};
use qudo_test_servers::FreshDatabase;

struct Fresh {
    manager: Manager,
    conn: MysqlConnection,
    database: FreshDatabase,
}

impl Fresh {
    fn on(engine: &str) -> Option<Self> {
        let database = FreshDatabase::on(engine, "procedure")?;
        let dsn = database.url();
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
        let conn = MysqlConnection::establish(dsn).expect("connects");
        Some(Self { manager, conn, database })
    }

    fn enqueue(&self) {
        let job = NewJob::named("anything", serde_json::json!(1));
        assert!(self.manager.enqueue(job).expect("stored").is_new());
    }

    fn priorities(&self) -> Vec<i32> {
        let listing = self.manager.jobs(&JobFilter::all(), &Paging::default());
        assert_eq!(listing.errors().count(), 0);
        let mut jobs: Vec<_> =
            listing.rows().map(|(_, job)| (job.id, job.facts.priority)).collect();
        jobs.sort_unstable();
        jobs.into_iter().map(|(_, priority)| priority).collect()
    }
}

fn a_lone_job_goes_through_the_procedure_and_without_it_by_plain_statements(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    fresh.enqueue();
    assert_eq!(fresh.priorities(), [0]);
    // One that leaves its mark shows that it is called.
    fresh
        .conn
        .batch_execute(
            "DROP PROCEDURE qudo_enqueue_1; \
             CREATE PROCEDURE qudo_enqueue_1(IN i BINARY(16), IN q VARCHAR(100), \
             IN a VARCHAR(100), IN c VARCHAR(100), IN r LONGBLOB, IN p INT, IN f BIGINT, IN u BIGINT) \
             UPDATE qudo_job SET priority = 77",
        )
        .expect("replaced");
    fresh.enqueue();
    assert_eq!(fresh.priorities(), [77], "it only marked the first job");
    fresh.conn.batch_execute("DROP PROCEDURE qudo_enqueue_1").expect("dropped");
    fresh.enqueue();
    fresh.enqueue();
    let mut priorities = fresh.priorities();
    priorities.sort_unstable();
    assert_eq!(priorities, [0, 0, 77]);
}

fn an_account_that_may_make_no_procedures_migrates_and_enqueues_all_the_same(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let server = qudo_test_servers::given(engine).expect("it is there");
    // As the database, its own in every run; an account's name has room for 32 letters.
    let limited = fresh.database.name().replace("qudo_procedure", "limited");
    let grant = format!(
        "DROP DATABASE {name}; CREATE DATABASE {name}; \
         CREATE USER {limited}@'%' IDENTIFIED BY 'tiger'; GRANT SELECT, INSERT, UPDATE, DELETE, \
         CREATE, ALTER, DROP, INDEX, CREATE VIEW, SHOW VIEW ON {name}.* TO {limited}@'%'",
        name = fresh.database.name()
    );
    qudo_test_servers::run_sql(&server, &grant).expect("an account");
    let mut dsn = url::Url::parse(fresh.database.url()).expect("a URL");
    dsn.set_username(&limited).expect("has a host");
    dsn.set_password(Some("tiger")).expect("has a host");
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    manager.migrate().expect("migrates").remove(0).answer.expect("is up to date");
    let job = || NewJob::named("anything", serde_json::json!(1));
    assert!(manager.enqueue(job()).expect("stored").is_new());
    assert!(manager.enqueue(job()).expect("stored").is_new());
    let counted = manager.job_count().remove(0).answer.expect("counts");
    assert_eq!(counted.iter().map(|row| row.count).sum::<u64>(), 2);
    let drop_user = format!("DROP USER {limited}@'%'");
    qudo_test_servers::run_sql(&server, &drop_user).expect("dropped");
}

mod mariadb {
    #[test]
    fn a_lone_job_goes_through_the_procedure_and_without_it_by_plain_statements() {
        super::a_lone_job_goes_through_the_procedure_and_without_it_by_plain_statements("mariadb");
    }

    #[test]
    fn an_account_that_may_make_no_procedures_migrates_and_enqueues_all_the_same() {
        super::an_account_that_may_make_no_procedures_migrates_and_enqueues_all_the_same("mariadb");
    }
}

mod mysql {
    #[test]
    fn a_lone_job_goes_through_the_procedure_and_without_it_by_plain_statements() {
        super::a_lone_job_goes_through_the_procedure_and_without_it_by_plain_statements("mysql");
    }

    #[test]
    fn an_account_that_may_make_no_procedures_migrates_and_enqueues_all_the_same() {
        super::an_account_that_may_make_no_procedures_migrates_and_enqueues_all_the_same("mysql");
    }
}
