//! What becomes of a job.

use std::sync::mpsc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use qudo::admin::{JobFilter, Paging};
use qudo::driver::JobInfo;
use qudo::{Enqueued, Job, JobId, JobResult, Manager, NewJob};
use qudo_test_servers::eventually;

use crate::on_every_engine;
use crate::place::{Asked, Place};

on_every_engine!(
    a_job_is_stored_as_the_library_stores_it_and_is_run,
    what_is_left_open_has_the_defaults_of_the_library,
    a_job_that_is_put_off_waits_for_its_time,
    a_key_is_one_key_for_the_library_and_for_sql,
    of_two_transactions_with_one_key_the_second_waits_and_finds_the_job_of_the_first,
    a_job_whose_id_is_given_is_stored_once,
    what_is_rolled_back_leaves_nothing,
    a_trigger_enqueues_with_the_row_or_not_at_all,
    jobs_of_one_session_run_in_the_order_of_their_enqueues,
    enqueues_of_transactions_that_are_open_do_not_wait_for_each_other,
    a_session_that_reads_from_a_snapshot_finds_keys_and_ids_that_came_later,
);

pub(crate) fn all(manager: &Manager) -> Vec<JobInfo> {
    let listing = manager.jobs(&JobFilter::all(), &Paging::default().limit(10_000));
    assert_eq!(listing.errors().count(), 0);
    let mut jobs: Vec<_> = listing.rows().map(|(_, job)| job.clone()).collect();
    jobs.sort_by_key(|job| job.id);
    jobs
}

pub(crate) fn find(manager: &Manager, id: JobId) -> JobInfo {
    manager.lookup(id).expect("asks").expect("it lives").1
}

/// MariaDB from 11.6.2 on refuses to read what is newer than a transaction at REPEATABLE READ, which has to be repeated.
fn is_newer(error: &str) -> bool {
    error.contains("Record has changed since last read")
}

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(30);

/// What an ability was told.
#[derive(Debug, PartialEq)]
struct Told {
    id: JobId,
    arg: serde_json::Value,
    queue: String,
    key: Option<String>,
    meta: Option<serde_json::Value>,
}

#[derive(Debug)]
struct Tell(mpsc::SyncSender<Told>);

#[qudo::ability(name = "sql_told", queue = "told")]
fn told(job: &Job, arg: serde_json::Value) -> JobResult {
    let told = Told {
        id: job.id(),
        arg,
        queue: job.queue().to_owned(),
        key: job.uniqkey().map(str::to_owned),
        meta: job.meta().get("tenant").cloned(),
    };
    job.plugin::<Tell>()?.0.send(told).expect("somebody hears");
    Ok(())
}

/// A manager that runs what is told, and hears of it.
fn worker(place: &Place) -> (Manager, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::sync_channel(1_000);
    let manager = Manager::builder()
        .linked(false)
        .ability::<told>()
        .queues(["told", "default"])
        .plugin(Tell(tell))
        .workers(1)
        .database(place.fresh.url())
        .build()
        .expect("valid");
    (manager, told)
}

fn a_job_is_stored_as_the_library_stores_it_and_is_run(place: &mut Place) {
    let meta = serde_json::json!({"tenant": 7, "tags": ["eu"]});
    let arg = serde_json::json!({"to": "eve", "lines": [1, 2.5, null, "ü\n\"'\\"]});
    let asked = Asked {
        arg: Some(arg.to_string()),
        queue: Some("told".to_owned()),
        priority: Some(5),
        meta: Some(meta.to_string()),
        ..Asked::of("sql_told").key("k")
    };
    let (by_sql, is_new) = place.client.enqueue(&asked).expect("stored");
    assert!(is_new);
    let same = NewJob::named("sql_told", arg.clone()).queue("told").priority(5).uniqkey("l");
    let by_library = place.manager.enqueue(same.meta("tenant", 7).tag("eu")).expect("stored");
    let by_library = by_library.ticket().expect("new").id();
    let jobs = all(&place.manager);
    let facts = |id| &jobs.iter().find(|job| job.id == id).expect("stored").facts;
    let (one, other) = (facts(by_sql), facts(by_library));
    assert_eq!(
        (&one.ability, &one.queue, &one.codec),
        (&other.ability, &other.queue, &other.codec)
    );
    assert_eq!((one.priority, one.flags()), (other.priority, other.flags()));
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    assert_eq!(json(&one.arg), json(&other.arg));
    let meta =
        |facts: &qudo::driver::JobFacts| json(facts.meta.as_deref().expect("has").as_bytes());
    assert_eq!(meta(one), meta(other));

    let (worker, told) = worker(place);
    assert!(worker.work_once().expect("works").is_some());
    let told = told.try_recv().expect("it was the older one");
    let key = Some("k".to_owned());
    let wanted = Told { id: by_sql, arg, queue: "told".to_owned(), key, meta: Some(7.into()) };
    assert_eq!(told, wanted);
    assert!(place.client.enqueue(&asked).expect("stored").1, "the key is free");
    place.assert_sound();
}

fn what_is_left_open_has_the_defaults_of_the_library(place: &mut Place) {
    let (id, _) = place.client.enqueue(&Asked::of("a")).expect("stored");
    let job = all(&place.manager).remove(0);
    assert_eq!((job.id, &*job.facts.queue, job.facts.priority), (id, "default", 0));
    assert_eq!((&*job.facts.arg, &*job.facts.codec), (&b"null"[..], "json"));
    assert_eq!((&job.facts.uniqkey, &job.facts.meta), (&None, &None));
    assert_eq!(id.as_uuid().get_version_num(), 7, "{id}");
    let age = Utc::now() - job.enqueued_at;
    assert!(age.abs() < TimeDelta::minutes(1), "{age}");
    let (sec, _) = id.as_uuid().get_timestamp().expect("version 7").to_unix();
    assert!(job.enqueued_at.timestamp().abs_diff(sec as i64) <= 1);
}

fn a_job_that_is_put_off_waits_for_its_time(place: &mut Place) {
    let at = Utc::now() + TimeDelta::hours(3);
    let late = Asked { run_after: Some(at), ..Asked::of("late") };
    let past = Asked { run_after: Some(Utc::now() - TimeDelta::hours(3)), ..Asked::of("past") };
    place.client.enqueue(&late).expect("stored");
    place.client.enqueue(&past).expect("stored");
    for job in all(&place.manager) {
        match (&*job.facts.ability, job.state) {
            ("late", qudo::driver::JobState::Scheduled { run_after }) => {
                assert!((run_after - at).abs() < TimeDelta::milliseconds(2), "{run_after} {at}");
            }
            ("past", qudo::driver::JobState::Ready) => {}
            other => panic!("{other:?}"),
        }
    }
    place.assert_sound();
}

fn a_key_is_one_key_for_the_library_and_for_sql(place: &mut Place) {
    let asked = Asked::of("a").key("k 'ü' ");
    let job = || NewJob::named("a", 1.into()).uniqkey("k 'ü' ");
    let (first, is_new) = place.client.enqueue(&asked).expect("stored");
    assert!(is_new);
    assert_eq!(place.client.enqueue(&asked), Ok((first, false)));
    let Enqueued::Existing(ticket) = place.manager.enqueue(job()).expect("answers") else {
        panic!("the key is held");
    };
    assert_eq!(ticket.id(), first);
    assert!(place.client.enqueue(&Asked::of("a").key("k 'ü'")).expect("stored").1, "another key");
    assert!(
        place.client.enqueue(&Asked::of("b").key("k 'ü' ")).expect("stored").1,
        "of another ability"
    );
    assert!(place.manager.dequeue(first).expect("removed"));
    let held = place.manager.enqueue(job()).expect("stored");
    let held = held.ticket().expect("new").id();
    assert_ne!(held, first);
    assert_eq!(place.client.enqueue(&asked), Ok((held, false)));
    assert_eq!(all(&place.manager).len(), 3);
    place.assert_sound();
}

fn of_two_transactions_with_one_key_the_second_waits_and_finds_the_job_of_the_first(
    place: &mut Place,
) {
    let asked = Asked::of("a").key("k");
    for commit in [true, false] {
        place.client.begin();
        let (first, _) = place.client.enqueue_within(&asked).expect("stored");
        let mut second = place.another();
        let theirs = asked.clone();
        let waits = std::thread::spawn(move || match second.enqueue(&theirs) {
            Err(error) if is_newer(&error) => second.enqueue(&theirs),
            answer => answer,
        });
        eventually(LONG, "the second waits for the first", || match place.engine {
            // It waits before it does anything.
            "sqlite" => true,
            "postgres" => {
                let sql = "SELECT CAST(count(*) AS TEXT) AS one FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                           AND datname = current_database()";
                place.client.ask(sql).as_deref() == Some("1")
            }
            _ => {
                let sql = "SELECT CAST(COUNT(*) AS CHAR) AS one FROM information_schema.processlist \
                           WHERE db = DATABASE() AND info LIKE '%INSERT INTO%unique%' AND id <> CONNECTION_ID()";
                place.client.ask(sql).as_deref() == Some("1")
            }
        });
        place.client.run(if commit { "COMMIT" } else { "ROLLBACK" }).expect("ends");
        let answer = waits.join().expect("no panic").expect("stored");
        if commit {
            assert_eq!(answer, (first, false));
            assert!(place.manager.dequeue(first).expect("removed"));
        } else {
            assert!(answer.1 && answer.0 != first, "{answer:?}");
        }
    }
    assert_eq!(all(&place.manager).len(), 1);
    place.assert_sound();
}

fn a_job_whose_id_is_given_is_stored_once(place: &mut Place) {
    let id = JobId::new();
    let given = Asked { id: Some(id.to_string()), ..Asked::of("a").key("k") };
    assert_eq!(place.client.enqueue(&given), Ok((id, true)));
    // Repeated, as after an answer that was lost, and with another key too.
    assert_eq!(place.client.enqueue(&given), Ok((id, false)));
    let other = Asked { uniqkey: Some("other".to_owned()), ..given.clone() };
    assert_eq!(place.client.enqueue(&other), Ok((id, false)));
    let (held, _) = place.client.enqueue(&Asked::of("a").key("held")).expect("stored");
    let both = Asked { uniqkey: Some("held".to_owned()), ..given.clone() };
    assert_eq!(place.client.enqueue(&both), Ok((id, false)), "the id counts first");
    assert!(place.manager.dequeue(held).expect("removed"));
    let without = Asked { uniqkey: None, ..given.clone() };
    assert_eq!(place.client.enqueue(&without), Ok((id, false)));
    assert!(
        place.client.enqueue(&Asked::of("a").key("other")).expect("stored").1,
        "nobody holds it"
    );
    let plain = JobId::new();
    let text = plain.to_string().replace('-', "").to_uppercase();
    let asked = Asked { id: Some(text), ..Asked::of("a") };
    assert_eq!(place.client.enqueue(&asked), Ok((plain, true)));
    assert_eq!(all(&place.manager).len(), 3);
    // A holder that is no job of the tables any more, but has this id, is this job.
    place.client.run("DELETE FROM qudo_ready").expect("removed");
    place.client.run("DELETE FROM qudo_job").expect("removed");
    assert_eq!(place.client.enqueue(&given), Ok((id, true)));
    place.client.run("DELETE FROM qudo_unique WHERE uniqkey = 'other'").expect("removed");
    place.assert_sound();
}

fn what_is_rolled_back_leaves_nothing(place: &mut Place) {
    place.client.begin();
    for number in 0..3 {
        let key = format!("k{number}");
        assert!(place.client.enqueue_within(&Asked::of("a").key(&key)).expect("stored").1);
    }
    place.client.run("ROLLBACK").expect("rolls back");
    assert!(all(&place.manager).is_empty());
    // An enqueue that is refused takes nothing of its transaction along, but on PostgreSQL, where the transaction is broken.
    place.client.begin();
    assert!(place.client.enqueue_within(&Asked::of("a").key("k")).expect("stored").1);
    place.client.enqueue_within(&Asked::of(" a").key("l")).expect_err("refused");
    let ended = place.client.run("COMMIT");
    assert_eq!(ended, Ok(()));
    let stored = usize::from(place.engine != "postgres");
    assert_eq!(all(&place.manager).len(), stored);
    place.assert_sound();
}

fn a_trigger_enqueues_with_the_row_or_not_at_all(place: &mut Place) {
    let made = match place.engine {
        "sqlite" => {
            "CREATE TABLE orders (item TEXT);
             CREATE TRIGGER pack AFTER INSERT ON orders BEGIN
                 INSERT INTO qudo_enqueue (ability, arg, uniqkey) VALUES ('pack', json_quote(NEW.item), NEW.item);
             END"
        }
        "postgres" => {
            "CREATE TABLE orders (item TEXT);
             CREATE FUNCTION pack() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM qudo_enqueue('pack', to_jsonb(NEW.item), uniqkey => NEW.item);
                 RETURN NULL;
             END $$;
             CREATE TRIGGER pack AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION pack()"
        }
        _ => {
            "CREATE TABLE orders (item VARCHAR(1000) CHARACTER SET latin1) ENGINE = InnoDB;
             CREATE TRIGGER pack AFTER INSERT ON orders FOR EACH ROW
                 CALL qudo_enqueue('pack', JSON_QUOTE(NEW.item), NULL, NULL, NULL, NEW.item, NULL, NULL, @id, @is_new)"
        }
    };
    place.client.run(made).expect("made");
    place
        .client
        .run("INSERT INTO orders VALUES ('tea'), ('café'), ('tea')")
        .expect("a statement of its own");
    let args = |place: &Place| {
        let args = all(&place.manager).into_iter().map(|job| job.facts.arg);
        args.map(|arg| String::from_utf8(arg).expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(args(place), ["\"tea\"", "\"café\""], "one for each key, in the order of the rows");
    let too_long = format!("INSERT INTO orders VALUES ('milk'), ('{}')", "x".repeat(501));
    let refused = place.client.run(&too_long).expect_err("the key is too long");
    assert!(refused.contains("qudo: the unique key"), "{refused}");
    assert_eq!(args(place).len(), 2, "nor is the milk packed");
    assert_eq!(
        place.client.ask("SELECT CAST(COUNT(*) AS CHAR(9)) AS one FROM orders").as_deref(),
        Some("3")
    );
    place.client.begin();
    place.client.run("INSERT INTO orders VALUES ('milk')").expect("in a transaction");
    place.client.run("ROLLBACK").expect("rolls back");
    assert_eq!(args(place).len(), 2);
    place.assert_sound();
}

fn jobs_of_one_session_run_in_the_order_of_their_enqueues(place: &mut Place) {
    let ids: Vec<_> = {
        place.client.begin();
        let ids = (0..200)
            .map(|_| place.client.enqueue_within(&Asked::of("a")).expect("stored").0)
            .collect();
        place.client.run("COMMIT").expect("commits");
        ids
    };
    assert!(ids.is_sorted() && ids.len() == 200, "{ids:?}");
    assert_eq!(all(&place.manager).into_iter().map(|job| job.id).collect::<Vec<_>>(), ids);
}

fn enqueues_of_transactions_that_are_open_do_not_wait_for_each_other(place: &mut Place) {
    let level = match place.engine {
        // One transaction at a time writes.
        "sqlite" => return,
        "postgres" => "SET lock_timeout = 1000",
        _ => {
            "SET SESSION innodb_lock_wait_timeout = 1; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        }
    };
    let asked = |number: usize| {
        let given = Asked { id: Some(JobId::new().to_string()), ..Asked::of("a") };
        let late = Asked { run_after: Some(Utc::now() + TimeDelta::hours(1)), ..Asked::of("a") };
        let meta = Asked { meta: Some("{\"a\":1,\"tags\":[\"x\"]}".to_owned()), ..Asked::of("a") };
        [Asked::of("a"), given, late, meta, Asked::of("a").key(&format!("k{number}"))]
    };
    let mut others: Vec<_> = (0..3).map(|_| place.another()).collect();
    for (number, other) in others.iter_mut().enumerate() {
        other.run(level).expect("set");
        other.begin();
        for one in asked(number) {
            assert!(other.enqueue_within(&one).expect("it does not wait").1);
        }
    }
    // Nor does an operator.
    let name = place.manager.database_names().remove(0);
    place.manager.drain(&name).expect("ordered");
    place.manager.undrain(&name).expect("ordered");
    for other in &mut others {
        other.run("COMMIT").expect("commits");
    }
    assert_eq!(all(&place.manager).len(), 15);
    place.assert_sound();
}

fn a_session_that_reads_from_a_snapshot_finds_keys_and_ids_that_came_later(place: &mut Place) {
    let begun = match place.engine {
        // There a transaction that has read and is overtaken cannot write at all.
        "sqlite" => return,
        "postgres" => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        _ => "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION",
    };
    place.client.run(begun).expect("begins");
    place.client.ask("SELECT CAST(COUNT(*) AS CHAR(9)) AS one FROM qudo_job");
    let mut other = place.another();
    let given = Asked { id: Some(JobId::new().to_string()), ..Asked::of("given") };
    let (held, _) = other.enqueue(&Asked::of("a").key("k")).expect("stored");
    let (id, _) = other.enqueue(&given).expect("stored");
    let answer = place.client.enqueue_within(&Asked::of("a").key("k"));
    if place.engine == "postgres" {
        let refused = answer.expect_err("it cannot see the holder");
        assert!(refused.contains("could not serialize"), "{refused}");
        place.client.run("ROLLBACK").expect("ends");
    } else if answer.as_ref().is_err_and(|error| is_newer(error)) {
        place.client.run("ROLLBACK").expect("ends");
        let again = place.client.enqueue(&Asked::of("a").key("k"));
        assert_eq!(again, Ok((held, false)));
    } else {
        assert_eq!(answer, Ok((held, false)));
        assert_eq!(place.client.enqueue_within(&given), Ok((id, false)));
        place.client.run("COMMIT").expect("ends");
    }
    assert_eq!(all(&place.manager).len(), 2);
    place.assert_sound();
}

#[test]
#[cfg(feature = "postgres")]
fn a_job_from_psql_starts_at_once_in_a_service_that_sleeps() {
    let Some(mut place) = Place::on("postgres") else { return };
    let (tell, told) = mpsc::sync_channel(10);
    let manager = Manager::builder()
        .linked(false)
        .ability::<told>()
        .plugin(Tell(tell))
        // Nobody would look for an hour.
        .delay(Duration::from_secs(3_600))
        .database(place.fresh.url())
        .build()
        .expect("valid");
    let working = manager.start().expect("starts");
    let listens = "SELECT CAST(count(*) AS TEXT) AS one FROM pg_stat_activity WHERE datname = current_database() \
                   AND query LIKE 'LISTEN%'";
    eventually(LONG, "it listens", || place.client.ask(listens).as_deref() != Some("0"));
    let asked = Asked { queue: Some("told".to_owned()), ..Asked::of("sql_told") };
    let mut last = None;
    // The first may meet the look at the start.
    for _ in 0..3 {
        let (id, _) = place.client.enqueue(&asked).expect("stored");
        last = Some(told.recv_timeout(LONG).expect("it started").id);
        assert_eq!(last, Some(id));
    }
    assert!(last.is_some());
    working.stop();
}
