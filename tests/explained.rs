//! What the driver's own statements read, as they are sent: on SQLite and PostgreSQL their plans, on MySQL and
//! MariaDB what the server counted. No copy of a statement stands here.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, Once};
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection, RunQueryDsl as _, SqliteConnection};
use log::{LevelFilter, Log, Metadata, Record};
use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, DeadWorker, Deadline, Driver, DriverRegistration, Due,
    Keep, Settlement, Verdict, WorkerId, WorkerInfo,
};
use qudo::{Job, JobError, Manager, NewJob};
use qudo_test_servers::{FreshDatabase, Mariadb, Mysql, Options, Server, can_start, run_sql};

const HOUR: Duration = Duration::from_secs(3_600);

/// What the threads of the process sent since the list was made.
static HEARD: Mutex<Option<BTreeSet<String>>> = Mutex::new(None);

/// One test listens at a time, or it would hear the statements of another engine.
static ALONE: Mutex<()> = Mutex::new(());

struct Reader;

impl Log for Reader {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "qudo::sql"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata())
            && let Some(heard) = HEARD.lock().expect("no panic").as_mut()
            && let Some((_, sql)) = record.args().to_string().split_once(": ")
        {
            heard.insert(sql.to_owned());
        }
    }

    fn flush(&self) {}
}

#[qudo::ability(max_retries = 1, retry_delay = "1h", job_status = true)]
fn plan(job: &Job, number: u32) -> qudo::JobResult<u32> {
    match number % 5 {
        0 => Err(JobError::fail("as asked")),
        1 => Err(qudo::snooze(HOUR)),
        2 => {
            job.replace(NewJob::named("plan", 3.into()).delay(HOUR));
            Ok(number)
        }
        _ => Ok(number),
    }
}

fn manager(dsn: &str) -> Manager {
    let builder = Manager::builder().linked(false).ability::<plan>().find_job_limit_size(50);
    builder.database(dsn).build().expect("valid")
}

/// Large tables: jobs that are ready, later and leased.
fn fill(dsn: &str) {
    let manager = manager(dsn);
    manager.migrate().expect("migrates");
    manager.enqueue_many((0..12_000).map(|n| NewJob::named("plan", n.into()))).expect("stored");
    let later = (0..6_000).map(|n| NewJob::named("plan", n.into()).delay(HOUR));
    manager.enqueue_many(later).expect("stored");
    let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
    assert_eq!(claim(&*driver, working(&*driver), 1, 1_000).len(), 1_000);
}

/// A worker whose row is there.
fn working(driver: &dyn Driver) -> WorkerId {
    let worker = WorkerInfo::new("other", HOUR);
    driver.heartbeat(&worker).expect("beats");
    worker.id
}

fn claim(driver: &dyn Driver, worker: WorkerId, number: i64, limit: u32) -> Vec<ClaimedJob> {
    let request = ClaimRequest {
        worker,
        claim: number,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "plan".into(), grab_for: HOUR }],
        limit,
        deadline: Deadline::NONE,
        thorough: false,
    };
    driver.claim(&request).expect("claims")
}

/// What clients and workers ask all day.
fn a_day(dsn: &str) {
    let manager = manager(dsn);
    let keyed = || NewJob::named("plan", 4.into()).uniqkey("key");
    for job in [NewJob::named("plan", 3.into()), keyed(), keyed()] {
        drop(manager.enqueue(job).expect("stored"));
    }
    let later = || NewJob::named("plan", 4.into()).delay(HOUR);
    let sent = manager.enqueue(later()).expect("stored").id().expect("new");
    assert!(manager.dequeue(sent).expect("answers"));
    let sent = manager.enqueue(later()).expect("stored").id().expect("new");
    assert!(manager.reschedule(sent, Due::Now).expect("answers"));
    let many = (0..20).map(|n| NewJob::named("plan", n.into()));
    let sent = manager.enqueue_many(many).expect("stored");
    let ticket = sent.into_iter().next().expect("one").ticket().expect("new").clone();
    for _ in 0..4 {
        manager.work_once().expect("works");
    }
    // A group of ends with keys.
    let keyed = |n: u32| NewJob::named("plan", 3.into()).uniqkey(n.to_string()).priority(9);
    manager.enqueue_many((0..20).map(keyed)).expect("stored");
    let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
    let worker = working(&*driver);
    let ends: Vec<_> = claim(&*driver, worker, 1, 20)
        .into_iter()
        .map(|job| Settlement { job: Box::new(job), verdict: Verdict::Complete, extras: None })
        .collect();
    assert!(ends.iter().all(|end| end.job.facts.uniqkey.is_some()));
    driver.settle(worker, &ends).expect("settles");
    driver.remove_worker(worker).expect("removes");
    drop(ticket.check().expect("answers"));
    drop(manager.lookup(ticket.id()).expect("answers"));
    let leases = [AbilityLease { name: "plan".into(), grab_for: HOUR }];
    driver.changed(&["default"], &leases).expect("answers");
    driver.promote_due(1_000).expect("promotes");
    let dead = DeadWorker { id: WorkerId::new(), seen_at: chrono::Utc::now() };
    driver.rescue(&[dead], true, 100).expect("rescues");
    driver.release_claim(WorkerId::new(), 1).expect("gives back");
    driver.purge(&Keep::all(HOUR), 1_000).expect("purges");
}

/// The statements of a day.
fn heard(dsn: &str) -> BTreeSet<String> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Reader).expect("the first");
        log::set_max_level(LevelFilter::Trace);
    });
    *HEARD.lock().expect("no panic") = Some(BTreeSet::new());
    a_day(dsn);
    let heard = HEARD.lock().expect("no panic").take().expect("listened");
    assert!(heard.len() > 15, "too few to be all: {heard:#?}");
    heard
}

/// The leases have no second index, because every claim and every end of a run would pay for it. So the rescue's
/// look, once in a beat, reads them through, and so does whoever asks for those of one worker or claim: after a
/// lost answer, and at the end of a process.
fn reads_leases_by_worker(sql: &str) -> bool {
    let sql = sql.replace('`', "");
    sql.contains("FROM qudo_lease WHERE") && sql.contains("worker") && !sql.contains("id IN")
}

/// Statements whose plan is looked at.
fn is_held_to_it(sql: &str) -> bool {
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    let is_batch = sql.contains(';');
    !is_batch && !reads_leases_by_worker(sql) && verbs.iter().any(|verb| sql.starts_with(verb))
}

#[derive(diesel::QueryableByName)]
struct Line {
    #[diesel(sql_type = diesel::sql_types::Text)]
    #[diesel(column_name = detail)]
    sqlite: String,
}

#[test]
fn sqlite_reads_no_table_through() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = tempfile::tempdir().expect("makes");
    let file = place.path().join("jobs.db").display().to_string();
    let dsn = format!("sqlite:{file}");
    fill(&dsn);
    let mut conn = SqliteConnection::establish(&file).expect("opens");
    for sql in heard(&dsn).iter().filter(|sql| is_held_to_it(sql)) {
        let lines: Vec<Line> =
            diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load(&mut conn).expect(sql);
        for Line { sqlite: line } in lines {
            // A table, by its name or by a letter.
            let table = line.strip_prefix("SCAN ").filter(|rest| !rest.contains(' '));
            // Orders to cancel are kept until the run that they are for has ended.
            let small = ["qudo_control", "qudo_worker", "qudo_cancel"];
            let through = table.is_some_and(|name| {
                (name.len() == 1 || name.starts_with("qudo_"))
                    && !small.contains(&name)
                    && !small.iter().any(|small| sql.contains(&format!("{small} {name}")))
            });
            assert!(!through, "{line}: {sql}");
            let orders_jobs = sql.contains("qudo_ready") || sql.contains("qudo_scheduled");
            assert!(!(orders_jobs && line.contains("TEMP B-TREE")), "it sorts: {line}: {sql}");
        }
    }
}

#[derive(diesel::QueryableByName)]
struct PgLine {
    #[diesel(sql_type = diesel::sql_types::Text)]
    #[diesel(column_name = "QUERY PLAN")]
    line: String,
}

#[test]
fn postgres_reads_no_table_through() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(fresh) = FreshDatabase::on("postgres", "explained") else { return };
    fill(fresh.url());
    let mut conn = PgConnection::establish(fresh.url()).expect("connects");
    // Of the text alone, as a plan that is cached, and otherwise as the driver's connections are set.
    for set in
        ["plan_cache_mode = force_generic_plan", "enable_seqscan = off", "enable_bitmapscan = off"]
    {
        conn.batch_execute(&format!("SET {set}")).expect("set");
    }
    // An insert reads nothing but its lists, whose types its text does not tell.
    let is_insert = |sql: &str| sql.contains("INSERT INTO qudo_job (");
    let heard = heard(fresh.url());
    for sql in heard.iter().filter(|sql| is_held_to_it(sql) && !is_insert(sql)) {
        let parts: Vec<_> = sql.split('?').collect();
        let text: String = parts
            .iter()
            .enumerate()
            .map(|(at, part)| if at == 0 { (*part).to_owned() } else { format!("${at}{part}") })
            .collect();
        let nulls = vec!["NULL"; parts.len() - 1].join(", ");
        let call = if nulls.is_empty() { "p".to_owned() } else { format!("p({nulls})") };
        conn.batch_execute(&format!("PREPARE p AS {text}")).expect(sql);
        let lines: Vec<PgLine> =
            diesel::sql_query(format!("EXPLAIN EXECUTE {call}")).load(&mut conn).expect(sql);
        conn.batch_execute("DEALLOCATE p").expect("forgets");
        for PgLine { line } in &lines {
            let through = ["ready", "scheduled", "lease", "job", "unique"]
                .iter()
                .any(|table| line.contains(&format!("Seq Scan on qudo_{table} ")));
            let all: Vec<_> = lines.iter().map(|one| &*one.line).collect();
            assert!(!through, "{sql}\n{}", all.join("\n"));
        }
    }
}

/// How often each statement was executed in this database, how many rows it read, and how many it was about.
fn counted(url: &str, schema: &str) -> BTreeMap<String, [u64; 3]> {
    let sql = format!(
        "SELECT CONCAT_WS('|', COUNT_STAR, SUM_ROWS_EXAMINED, SUM_ROWS_SENT + SUM_ROWS_AFFECTED, \
         REPLACE(DIGEST_TEXT, '\\n', ' ')) FROM performance_schema.events_statements_summary_by_digest \
         WHERE SCHEMA_NAME = '{schema}' AND DIGEST_TEXT LIKE '%qudo%'"
    );
    let told = run_sql(url, &sql).expect("tells");
    let line = |line: &str| {
        let mut fields = line.splitn(4, '|');
        let mut number = || fields.next()?.parse().ok();
        let numbers = [number()?, number()?, number()?];
        Some((fields.next()?.to_owned(), numbers))
    };
    told.lines().filter_map(line).collect()
}

/// A counter of the whole server.
fn status(url: &str, counters: &str) -> u64 {
    let sql = format!(
        "SELECT CAST(SUM(VARIABLE_VALUE) AS UNSIGNED) FROM {}.global_status \
         WHERE VARIABLE_NAME IN ({counters})",
        // MySQL has it elsewhere.
        if run_sql(url, "SELECT VERSION()").expect("tells").contains("Maria") {
            "information_schema"
        } else {
            "performance_schema"
        }
    );
    run_sql(url, &sql).expect("tells").trim().parse().expect("a number")
}

/// A claim reads the index in its order and stops: on a server where nobody else is.
fn a_claim_sorts_nothing(url: &str) {
    let driver = DriverRegistration::open_linked(url).expect("valid").driver;
    let worker = working(&*driver);
    let claim = |number| assert_eq!(claim(&*driver, worker, number, 100).len(), 100);
    // The first finds its place, behind the rows of others.
    claim(1);
    let counts = || (status(url, "'SORT_ROWS'"), status(url, "'HANDLER_READ_NEXT'"));
    let before = counts();
    claim(2);
    let after = counts();
    assert_eq!(after.0, before.0, "nothing is sorted");
    let read = after.1 - before.1;
    println!("{read} rows read to claim 100");
    assert!((90..=200).contains(&read), "{read} rows read to claim 100");
}

fn no_row_is_read_in_vain(url: &str, schema: &str) {
    fill(url);
    a_claim_sorts_nothing(url);
    let before = counted(url, schema);
    a_day(url);
    let after = counted(url, schema);
    let of_a_day = |(text, [count, read, about]): (&String, &[u64; 3])| {
        let [old_count, old_read, old_about] = before.get(text).copied().unwrap_or_default();
        (text.clone(), count - old_count, read - old_read, about - old_about)
    };
    let day: Vec<_> = after.iter().map(of_a_day).filter(|(_, count, ..)| *count > 0).collect();
    assert!(day.len() > 15, "too few to be all: {day:#?}");
    for (text, count, read, about) in day {
        if reads_leases_by_worker(&text) {
            continue;
        }
        // What it is about may be found by two indexes, or be half of what it looks at.
        assert!(
            read <= 4 * about + 200 * count,
            "{count} times, {read} rows read for {about}: {text}"
        );
    }
}

/// A server of its own: one that many tests share keeps no more than so many different statements.
#[test]
fn mysql_reads_no_table_through() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if can_start("mysql") {
        let server = Server::<Mysql>::start(Options::default()).expect("starts");
        no_row_is_read_in_vain(&server.url(), &schema(&server.url()));
    }
}

fn schema(url: &str) -> String {
    url::Url::parse(url).expect("a URL").path().trim_start_matches('/').to_owned()
}

/// It does not count the statements that are prepared, so all are counted together, on a server where nobody
/// else is.
#[test]
fn mariadb_reads_no_table_through() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !can_start("mariadb") {
        return;
    }
    let server = Server::<Mariadb>::start(Options::default()).expect("starts");
    let url = server.url();
    let read = || {
        let counters = "'HANDLER_READ_NEXT', 'HANDLER_READ_PREV', 'HANDLER_READ_RND', \
                        'HANDLER_READ_RND_NEXT'";
        status(&url, counters)
    };
    fill(&url);
    a_claim_sorts_nothing(&url);
    let before = read();
    a_day(&url);
    let read = read() - before;
    println!("{read} rows read");
    // Those of the rescue, a thousand in each of five rounds, and what a few hundred jobs take. To read a table
    // through once would be 6,000 more at least.
    assert!((1_000..14_000).contains(&read), "{read} rows read");
}
