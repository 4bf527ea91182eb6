//! What claims and settles read and wait for, on fresh tables without statistics. A plan that is right once may go
//! wrong unseen, so it is looked at here; tests/explained.rs has the plans of all statements as they are sent.

#![allow(missing_docs, reason = "a test is read, not called")]

use diesel::{Connection, QueryableByName, RunQueryDsl};
use qudo::{Manager, NewJob};
use qudo_test_servers::FreshDatabase;

fn filled(dsn: &str) {
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let jobs = (0..2_000).map(|n| NewJob::named("plan", n.into()).priority(n % 7));
    manager.enqueue_many(jobs).expect("stored");
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
    let Some(fresh) = FreshDatabase::on("postgres", "plan") else { return };
    let dsn = fresh.url();
    filled(dsn);
    {
        let mut conn = diesel::PgConnection::establish(dsn).expect("connects");
        // Inside one transaction the counters of this transaction are exact and at hand.
        conn.transaction(|conn| {
            let claim = "SELECT count(*) FROM qudo_claim_2('default', -2147483648, \
                 '00000000-0000-0000-0000-000000000000', ARRAY['plan'], ARRAY[1000::bigint], 100, \
                 '00000000-0000-0000-0000-000000000001', 1, 0, 9223372036854775807, ARRAY[]::uuid[], 2147483647, 'ffffffff-ffff-ffff-ffff-ffffffffffff')";
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
}

/// The clock is not constant within a statement for PostgreSQL, so a bound by it is no bound unless it is
/// read once: 5,000 rows would be read for five that are due.
#[cfg(feature = "postgres")]
#[test]
fn postgres_looks_at_due_rows_alone() {
    #[derive(QueryableByName)]
    struct Reads {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        others: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        entries: i64,
    }
    let Some(fresh) = FreshDatabase::on("postgres", "plan") else { return };
    let dsn = fresh.url();
    let hour = std::time::Duration::from_secs(3600);
    {
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().expect("migrates");
        let later = (0..5_000).map(|n| NewJob::named("plan", n.into()).delay(hour));
        manager.enqueue_many(later).expect("stored");
        let due = (0..5).map(|n| NewJob::named("plan", n.into()).delay(hour / 3_600_000));
        manager.enqueue_many(due).expect("stored");
        let driver = qudo::driver::DriverRegistration::open_linked(dsn).expect("valid").driver;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut moved = 0;
        while moved < 5 && std::time::Instant::now() < deadline {
            moved += driver.promote_due(1_000).expect("promotes").moved;
        }
        assert_eq!(moved, 5);
        assert!(driver.changed(&["nobody"], &[]).is_ok());
    }
    {
        // A connection leaves its counts when it ends, which the pools' do a moment later.
        let mut conn = diesel::PgConnection::establish(dsn).expect("connects");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let reads = loop {
            let reads: Reads = diesel::sql_query(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND pid <> pg_backend_pid()) AS others, sum(idx_tup_read)::bigint AS entries \
                 FROM pg_stat_user_indexes WHERE relname = 'qudo_scheduled'",
            )
            .get_result(&mut conn)
            .expect("counts");
            if reads.others == 0 || std::time::Instant::now() > deadline {
                break reads;
            }
        };
        assert_eq!(reads.others, 0, "connections stay open");
        assert!((1..=500).contains(&reads.entries), "{} entries read", reads.entries);
    }
}

/// An ANALYZE may come at a moment when a table is empty, and then the planner takes it for a table
/// of one row. Read through for each row of a list, it made a settle of 1,000 runs take seconds.
#[cfg(feature = "postgres")]
#[test]
fn postgres_claims_and_settles_touch_their_rows_alone_after_statistics_of_empty_tables() {
    #[derive(QueryableByName)]
    struct Reads {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        read: i64,
    }
    let Some(fresh) = FreshDatabase::on("postgres", "plan") else { return };
    let dsn = fresh.url();
    let claim = |at_most: u32| {
        format!(
            "SELECT count(*) FROM qudo_claim_2('default', -2147483648, \
             '00000000-0000-0000-0000-000000000000', ARRAY['plan'], ARRAY[60000000::bigint], \
             {at_most}, '00000000-0000-0000-0000-000000000001', 1, 0, 9223372036854775807, ARRAY[]::uuid[], 2147483647, 'ffffffff-ffff-ffff-ffff-ffffffffffff')"
        )
    };
    let held = |at_most: u32| {
        format!(
            "(SELECT array_agg(id) AS ids, array_agg(claim) AS claims FROM (SELECT id, claim FROM qudo_lease \
             ORDER BY id LIMIT {at_most}) few) held"
        )
    };
    let settle = |at_most: u32| {
        format!(
            "SELECT done FROM {}, qudo_complete('00000000-0000-0000-0000-000000000001', held.ids, \
             held.claims, '{{}}', '{{}}', '{{}}') AS done",
            held(at_most)
        )
    };
    let settle_run = |at_most: u32| {
        format!(
            "SELECT done FROM {}, qudo_complete('00000000-0000-0000-0000-000000000001', '{{}}', '{{}}', \
             held.ids, ARRAY[{at_most}], ARRAY[1::bigint]) AS done",
            held(at_most)
        )
    };
    filled(dsn);
    {
        let mut conn = diesel::PgConnection::establish(dsn).expect("connects");
        let analyze = "ANALYZE qudo_ready, qudo_lease, qudo_job".to_owned();
        for sql in [claim(2_000), settle(2_000), analyze] {
            diesel::sql_query(sql).execute(&mut conn).expect("runs");
        }
        filled(dsn);
        diesel::sql_query(claim(1_500)).execute(&mut conn).expect("claims");
        conn.transaction(|conn| {
            let mut reads = |sql: String, table: &str| {
                let count = format!(
                    "SELECT (seq_tup_read + idx_tup_fetch)::bigint AS read \
                     FROM pg_stat_xact_user_tables WHERE relname = '{table}'"
                );
                let before: Reads = diesel::sql_query(&count).get_result(conn)?;
                diesel::sql_query(sql).execute(conn)?;
                let after: Reads = diesel::sql_query(&count).get_result(conn)?;
                diesel::QueryResult::Ok(after.read - before.read)
            };
            let claimed = reads(claim(100), "qudo_job")?;
            assert_eq!(claimed, 100, "rows of facts read to claim 100");
            let settled = reads(settle(100), "qudo_job")?;
            assert_eq!(settled, 100, "rows of facts read to settle 100");
            // Those that the test itself looks up, and those of the settle.
            let leases = reads(settle(100), "qudo_lease")?;
            assert!(leases <= 250, "{leases} leases read to settle 100");
            // A run is looked at before it is removed.
            let settled = reads(settle_run(100), "qudo_job")?;
            assert!(settled <= 201, "{settled} rows of facts read to settle a run of 100");
            let leases = reads(settle_run(100), "qudo_lease")?;
            assert!(leases <= 350, "{leases} leases read to settle a run of 100");
            diesel::QueryResult::Ok(())
        })
        .expect("claims and settles");
    }
}

/// A list of keys is looked up key by key, also where the table was empty at its last ANALYZE: read through for each
/// row of the list, 1,000 keys among 20,000 took six seconds, and the plan stays with the connection.
#[cfg(feature = "postgres")]
#[test]
fn postgres_lets_go_of_a_group_of_keys_by_looking_each_up() {
    use qudo::driver::{
        AbilityLease, ClaimRequest, Deadline, DriverRegistration, Settled, Settlement, Verdict,
        WorkerInfo,
    };
    #[derive(QueryableByName)]
    struct Reads {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        others: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        entries: i64,
    }
    const GROUP: u32 = 1_000;
    let Some(fresh) = FreshDatabase::on("postgres", "plan") else { return };
    let dsn = fresh.url();
    // A connection leaves its counts when it ends, which the pools' do a moment later.
    // Before 15 they also go through a process that tells them half a second later.
    let entries = || {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let mut last = None;
        loop {
            let mut conn = diesel::PgConnection::establish(dsn).expect("connects");
            let reads: Reads = diesel::sql_query(
                "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND pid <> pg_backend_pid() AND backend_type = 'client backend') AS others, \
                 sum(idx_tup_read)::bigint AS entries \
                 FROM pg_stat_user_indexes WHERE relname = 'qudo_unique'",
            )
            .get_result(&mut conn)
            .expect("counts");
            if reads.others == 0 && last == Some(reads.entries) {
                break reads.entries;
            }
            last = (reads.others == 0).then_some(reads.entries);
            drop(conn);
            assert!(std::time::Instant::now() < deadline, "connections stay open");
            std::thread::sleep(std::time::Duration::from_millis(700));
        }
    };
    let insert = |count: u32| {
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().expect("migrates");
        let job = |n: u32| NewJob::named("plan", n.into()).uniqkey(format!("key {n}"));
        assert_eq!(
            manager.enqueue_many((0..count).map(job)).expect("stored").len(),
            count as usize
        );
    };
    let settle = |groups: i64| {
        let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
        let grab_for = std::time::Duration::from_secs(600);
        let worker = WorkerInfo::new("it", grab_for);
        driver.heartbeat(&worker).expect("beats");
        for claim in 0..groups {
            let request = ClaimRequest {
                worker: worker.id,
                claim,
                queue: &"default".into(),
                abilities: &[AbilityLease { name: "plan".into(), grab_for }],
                limit: GROUP,
                deadline: Deadline::NONE,
                thorough: false,
            };
            let jobs = driver.claim(&request).expect("claims").into_iter().map(Box::new);
            let verdict = Verdict::Complete;
            let ends: Vec<_> = jobs.map(|job| Settlement { job, verdict, extras: None }).collect();
            let settled = driver.settle(worker.id, &ends).expect("settles");
            assert_eq!(settled, vec![Settled::Done; GROUP as usize]);
        }
        driver.remove_worker(worker.id).expect("removes");
    };
    insert(5_000);
    settle(5);
    let mut conn = diesel::PgConnection::establish(dsn).expect("connects");
    diesel::sql_query("VACUUM ANALYZE qudo_unique").execute(&mut conn).expect("looks at none");
    drop(conn);
    insert(20_000);
    let before = entries();
    // More than five times, after which a plan is kept.
    settle(8);
    let read = entries() - before;
    println!("{read} entries read for 8 groups of {GROUP} keys");
    assert!((8_000..40_000).contains(&read), "{read} entries read");
}

/// A statement that reads more rows than it is about would wait here for the rows that the other
/// connection locks, and at last fail.
#[cfg(feature = "mysql")]
fn claims_and_settles_wait_for_no_row_but_their_own(engine: &str) {
    use qudo::driver::{
        AbilityLease, ClaimRequest, Deadline, DriverRegistration, Settled, WorkerId,
    };
    use qudo::driver::{Settlement, Verdict};
    let Some(fresh) = FreshDatabase::on(engine, "plan") else { return };
    let dsn = fresh.url();
    filled(dsn);
    {
        let mut other = diesel::MysqlConnection::establish(dsn).expect("connects");
        other.begin_test_transaction().expect("begins");
        let lock = "SELECT id FROM qudo_ready WHERE queue = 'default' AND claim_rank = -6 \
                    ORDER BY id DESC LIMIT 1 FOR UPDATE";
        diesel::sql_query(lock).execute(&mut other).expect("locks");
        let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
        let (worker, queue) = (WorkerId::new(), "default".into());
        let grab_for = std::time::Duration::from_secs(600);
        let abilities = [AbilityLease { name: "plan".into(), grab_for }];
        let claim = |claim, limit| {
            let (queue, abilities, deadline) = (&queue, &abilities[..], Deadline::NONE);
            driver
                .claim(&ClaimRequest {
                    worker,
                    claim,
                    queue,
                    abilities,
                    limit,
                    deadline,
                    thorough: false,
                })
                .expect("claims")
        };
        // Across several priorities and behind the cursor too.
        let first = claim(1, 900);
        let second = claim(2, 100);
        assert_eq!((first.len(), second.len()), (900, 100));
        let last = second.last().expect("claimed").id.as_uuid().simple();
        let lock = format!("SELECT id FROM qudo_lease WHERE id = x'{last}' FOR UPDATE");
        diesel::sql_query(lock).execute(&mut other).expect("locks");
        let done: Vec<_> = first
            .into_iter()
            .map(|job| Settlement { job: Box::new(job), verdict: Verdict::Complete, extras: None })
            .collect();
        let answers = driver.settle(worker, &done).expect("settles");
        assert!(answers.iter().all(|answer| *answer == Settled::Done));
        let again = driver.settle(worker, &done[..10]).expect("settles");
        assert!(again.iter().all(|answer| *answer == Settled::LeaseLost));
    }
}

/// Where few jobs run, the optimizer would rather read the whole table than look a row up.
#[cfg(feature = "mysql")]
fn settles_of_few_runs_wait_for_no_row_but_their_own(engine: &str) {
    use qudo::driver::{
        AbilityLease, ClaimRequest, Deadline, DriverRegistration, Settled, WorkerId,
    };
    use qudo::driver::{Settlement, Verdict};
    let Some(fresh) = FreshDatabase::on(engine, "plan") else { return };
    let dsn = fresh.url();
    {
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().expect("migrates");
        let jobs = (0..4).map(|n| NewJob::named("plan", n.into()));
        manager.enqueue_many(jobs).expect("stored");
        let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
        let (worker, queue) = (WorkerId::new(), "default".into());
        let grab_for = std::time::Duration::from_secs(600);
        let abilities = [AbilityLease { name: "plan".into(), grab_for }];
        let request = ClaimRequest {
            worker,
            claim: 1,
            queue: &queue,
            abilities: &abilities,
            limit: 3,
            deadline: Deadline::NONE,
            thorough: false,
        };
        let mut claimed = driver.claim(&request).expect("claims");
        let mut other = diesel::MysqlConnection::establish(dsn).expect("connects");
        other.begin_test_transaction().expect("begins");
        let last = claimed.pop().expect("three").id.as_uuid().simple();
        for table in ["qudo_lease", "qudo_job"] {
            let lock = format!("SELECT id FROM {table} WHERE id = x'{last}' FOR UPDATE");
            diesel::sql_query(lock).execute(&mut other).expect("locks");
        }
        let settle = |job, verdict| {
            let settlement = Settlement { job: Box::new(job), verdict, extras: None };
            driver.settle(worker, &[settlement]).expect("settles")
        };
        // The short way and the long one.
        let verdicts = [Verdict::Complete, Verdict::Discard];
        for (job, verdict) in claimed.into_iter().zip(verdicts) {
            assert_eq!(settle(job, verdict), [Settled::Done]);
        }
        assert_eq!(driver.claim(&ClaimRequest { claim: 2, ..request }).expect("claims").len(), 1);
    }
}

#[cfg(feature = "mysql")]
mod mariadb {
    #[test]
    fn claims_and_settles_wait_for_no_row_but_their_own() {
        super::claims_and_settles_wait_for_no_row_but_their_own("mariadb");
    }

    #[test]
    fn settles_of_few_runs_wait_for_no_row_but_their_own() {
        super::settles_of_few_runs_wait_for_no_row_but_their_own("mariadb");
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    #[test]
    fn claims_and_settles_wait_for_no_row_but_their_own() {
        super::claims_and_settles_wait_for_no_row_but_their_own("mysql");
    }

    #[test]
    fn settles_of_few_runs_wait_for_no_row_but_their_own() {
        super::settles_of_few_runs_wait_for_no_row_but_their_own("mysql");
    }
}
