//! The claim's plan, on a fresh table without statistics: it reads the key in order and sorts
//! nothing. A plan that is right once may go wrong unseen, so it is looked at here.

#![allow(missing_docs, reason = "a test is read, not called")]

use diesel::{Connection, QueryableByName, RunQueryDsl};
use qudo::{Manager, NewJob};

#[derive(QueryableByName)]
struct SqlitePlan {
    #[diesel(sql_type = diesel::sql_types::Text)]
    detail: String,
}

fn filled(dsn: &str) {
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let jobs = (0..2_000).map(|n| NewJob::named("plan", n.into()).priority(n % 7));
    manager.enqueue_many(jobs).expect("stored");
}

#[test]
fn sqlite_claims_in_key_order_without_a_sort() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("jobs.db").display().to_string();
    filled(&format!("sqlite:{file}"));
    let mut conn = diesel::SqliteConnection::establish(&file).expect("connects");
    let plan: Vec<SqlitePlan> = diesel::sql_query(
        "EXPLAIN QUERY PLAN SELECT r.id, r.claim_rank, r.ability, r.attempt, r.crashes, j.codec, \
         j.arg, j.uniqkey, j.enqueued_at FROM qudo_ready r CROSS JOIN qudo_job j ON j.id = r.id \
         WHERE r.queue = 'default' AND r.ability IN ('plan') \
         ORDER BY r.queue, r.claim_rank, r.id LIMIT 100",
    )
    .load(&mut conn)
    .expect("explains");
    let lines: Vec<_> = plan.into_iter().map(|row| row.detail).collect();
    assert_eq!(
        lines,
        [
            "SEARCH r USING PRIMARY KEY (queue=?)".to_owned(),
            "SEARCH j USING PRIMARY KEY (id=?)".to_owned(),
        ]
    );
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_claims_touch_the_rows_they_take_and_no_others() {
    #[derive(QueryableByName)]
    struct Reads {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        sequential: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        fetched: i64,
    }
    let server = std::env::var("QUDO_TEST_POSTGRES_URL")
        .expect("QUDO_TEST_POSTGRES_URL is not set; run `cargo xtask test`");
    let name = format!("qudo_plan_{}", uuid::Uuid::now_v7().simple());
    let dsn = qudo_test_servers::create_database(&server, &name).expect("a fresh database");
    filled(&dsn);
    {
        let mut conn = diesel::PgConnection::establish(&dsn).expect("connects");
        // Inside one transaction the counters of this transaction are exact and at hand.
        conn.transaction(|conn| {
            let claim = "SELECT count(*) FROM qudo_claim('default', -2147483648, \
                 '00000000-0000-0000-0000-000000000000', ARRAY['plan'], ARRAY[1000::bigint], 100, \
                 '00000000-0000-0000-0000-000000000001', 1)";
            diesel::sql_query(claim).execute(conn)?;
            let reads: Reads = diesel::sql_query(
                "SELECT sum(seq_tup_read)::bigint AS sequential, \
                 sum(idx_tup_fetch)::bigint AS fetched FROM pg_stat_xact_user_tables \
                 WHERE relname IN ('qudo_ready', 'qudo_job')",
            )
            .get_result(conn)?;
            assert_eq!(reads.sequential, 0, "no table of 2000 rows is read through");
            assert!(reads.fetched <= 350, "{} rows fetched to claim 100", reads.fetched);
            diesel::QueryResult::Ok(())
        })
        .expect("claims");
    }
    qudo_test_servers::drop_database(&server, &name).expect("drops");
}

#[cfg(feature = "mysql")]
#[test]
fn mysql_claims_in_key_order_without_a_sort() {
    #[derive(QueryableByName)]
    struct Status {
        #[diesel(sql_type = diesel::sql_types::Text)]
        #[diesel(column_name = Value)]
        value: String,
    }
    let server = std::env::var("QUDO_TEST_MYSQL_URL")
        .expect("QUDO_TEST_MYSQL_URL is not set; run `cargo xtask test`");
    let name = format!("qudo_plan_{}", uuid::Uuid::now_v7().simple());
    let dsn = qudo_test_servers::create_database(&server, &name).expect("a fresh database");
    filled(&dsn);
    {
        let mut conn = diesel::MysqlConnection::establish(&dsn).expect("connects");
        let mut count = |what: &str| -> u64 {
            let sql = format!("SHOW SESSION STATUS LIKE '{what}'");
            let rows: Vec<Status> = diesel::sql_query(sql).load(&mut conn).expect("shows");
            rows[0].value.parse().expect("a number")
        };
        let before = (count("Handler_read_next"), count("Sort_rows"));
        diesel::sql_query(
            "SELECT r.id FROM qudo_ready r FORCE INDEX (PRIMARY) \
             WHERE r.queue = 'default' AND r.ability IN ('plan') ORDER BY r.claim_rank, r.id LIMIT 100 FOR UPDATE SKIP LOCKED",
        )
        .execute(&mut conn)
        .expect("selects");
        let mut count = |what: &str| -> u64 {
            let sql = format!("SHOW SESSION STATUS LIKE '{what}'");
            let rows: Vec<Status> = diesel::sql_query(sql).load(&mut conn).expect("shows");
            rows[0].value.parse().expect("a number")
        };
        assert_eq!(count("Sort_rows"), before.1, "nothing is sorted");
        let read = count("Handler_read_next") - before.0;
        assert!(read <= 110, "{read} rows read to claim 100");
    }
    qudo_test_servers::drop_database(&server, &name).expect("drops");
}
