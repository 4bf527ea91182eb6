//! What is kept for a while goes when its time is over, however much of it there is.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};
use qudo::admin::StatScan;
use qudo::{Job, Manager};
use qudo_test_servers::{FreshDatabase, run_sql};

/// A worker process removes 43,000 rows within this.
const SOON: Duration = Duration::from_secs(120);

const DAY: Duration = Duration::from_secs(86_400);

/// How one engine writes what is filled in.
struct Words {
    /// An id of its own for each row; those of the exception log lie in the order of time.
    id: &'static str,
    zero: &'static str,
    nothing: &'static str,
    ago: &'static str,
}

const SQLITE: Words = Words {
    id: "unhex(printf('%032x', 1000 * a.i + b.i))",
    zero: "zeroblob(16)",
    nothing: "x''",
    ago: "(unixepoch() - {s}) * 1000000",
};

const POSTGRES: Words = Words {
    id: "CAST(lpad(to_hex(1000 * a.i + b.i), 32, '0') AS uuid)",
    zero: "CAST('00000000-0000-0000-0000-000000000000' AS uuid)",
    nothing: "''",
    ago: "CAST(EXTRACT(EPOCH FROM clock_timestamp()) - {s} AS bigint) * 1000000",
};

const MYSQL: Words = Words {
    id: "UNHEX(LPAD(HEX(1000 * a.i + b.i), 32, '0'))",
    zero: "UNHEX(REPEAT('0', 32))",
    nothing: "''",
    ago: "(UNIX_TIMESTAMP() - {s}) * 1000000",
};

impl Words {
    /// 20,000 replies of two days ago, and as many exceptions of a hundred days ago of which every thousandth
    /// is of a discarded job that nobody looked after yet, and the numbers of 3,000 minutes of 15 days ago, with their sum.
    fn fill(&self) -> [String; 3] {
        let numbers =
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)";
        let all = "FROM n a, n b WHERE a.i < 20";
        let ago = |days: u64| self.ago.replace("{s}", &(days * 86_400).to_string());
        let Self { id, zero, nothing, .. } = self;
        let replies = format!(
            "INSERT INTO qudo_reply (job_id, seq, codec, body, created_at) \
             {numbers} SELECT {id}, 0, 'json', {nothing}, {} {all}",
            ago(2)
        );
        let exceptions = format!(
            "INSERT INTO qudo_exception_log (id, job_id, ability, queue, worker, attempt, kind, message, \
             failed_at, discarded, priority) {numbers} SELECT {id}, {zero}, 'a', 'default', {zero}, 1, \
             'failed', '', {}, CASE b.i WHEN 0 THEN 1 ELSE 0 END, 0 {all}",
            ago(100)
        );
        let numbers = format!(
            "INSERT INTO qudo_stat (minute, queue, ability, completed, replaced, retried, failed, cancelled, snoozed, \
             wait_sum, run_sum) {numbers} SELECT CASE WHEN a.i + b.i = 0 THEN 0 ELSE {} END, \
             'default', 'a', 10000, 0, 0, 0, 0, 0, 0, 0 FROM n a, n b WHERE a.i < 1000 AND b.i < 3",
            self.ago.replace("{s}", "(1296000 + (10 * a.i + b.i) * 60)")
        );
        [replies, exceptions, numbers]
    }
}

#[qudo::ability]
fn nothing(_: &Job, _nothing: ()) -> qudo::JobResult {
    Ok(())
}

fn goes(dsn: &str, words: &Words, run: impl Fn(&str) -> i64) {
    let manager = Manager::builder()
        .linked(false)
        .ability::<nothing>()
        .keep_replies(DAY)
        .database(dsn)
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    for fill in words.fill() {
        run(&fill);
    }
    let count = |table: &str| run(&format!("SELECT COUNT(*) FROM {table}"));
    let all = || (count("qudo_reply"), count("qudo_exception_log"), count("qudo_stat"));
    assert_eq!(all(), (20_000, 20_000, 3_000));
    let working = manager.start().expect("starts");
    let begun = Instant::now();
    while all() != (0, 20, 1) {
        assert!(begun.elapsed() < SOON, "{:?} are left", all());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("gone after {:?}", begun.elapsed());
    working.stop();
    let kept = "SELECT COUNT(*) FROM qudo_exception_log WHERE discarded = 1";
    assert_eq!(run(kept), 20, "what nobody looked after is kept");
    let sums = manager.stats(&StatScan::ever()).remove(0).answer.expect("answers");
    assert_eq!(sums[0].stats.completed, 10_000, "the sum stays when its minutes go");
}

fn on(engine: &str, words: &Words) {
    let Some(fresh) = FreshDatabase::on(engine, "retention") else { return };
    goes(fresh.url(), words, |sql| {
        let told = run_sql(fresh.url(), sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        told.trim().parse().unwrap_or(0)
    });
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

#[test]
fn old_rows_go_however_many_they_are_on_sqlite() {
    let place = tempfile::tempdir().expect("makes");
    let file = place.path().join("jobs.db").display().to_string();
    goes(&format!("sqlite:{file}"), &SQLITE, |sql| {
        let mut conn = SqliteConnection::establish(&file).expect("opens");
        conn.batch_execute("PRAGMA busy_timeout = 30000").expect("set");
        if sql.starts_with("INSERT") {
            conn.batch_execute(sql).expect("fills");
            return 0;
        }
        let sql = sql.replace("COUNT(*)", "COUNT(*) AS count");
        diesel::sql_query(sql).get_result::<Count>(&mut conn).expect("counts").count
    });
}

#[test]
fn old_rows_go_however_many_they_are_on_postgres() {
    on("postgres", &POSTGRES);
}

#[test]
fn old_rows_go_however_many_they_are_on_mariadb() {
    on("mariadb", &MYSQL);
}

#[test]
fn old_rows_go_however_many_they_are_on_mysql() {
    on("mysql", &MYSQL);
}
