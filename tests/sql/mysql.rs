//! What is MySQL's and MariaDB's own.

use std::time::Duration;

use qudo_test_servers::eventually;

use crate::jobs::all;
use crate::place::{Asked, Place};

fn each(act: impl Fn(&mut Place)) {
    ["mariadb", "mysql"].into_iter().filter_map(Place::on).for_each(|mut place| act(&mut place));
}

#[test]
fn an_enqueue_outside_of_a_transaction_is_refused_and_leaves_nothing() {
    each(|place| {
        let refused =
            place.client.enqueue_within(&Asked::of("a").key("k")).expect_err("no transaction");
        assert!(refused.contains("qudo: an enqueue needs a transaction"), "{refused}");
        assert!(all(&place.manager).is_empty());
        place.client.run("SET autocommit = 0").expect("set");
        assert!(place.client.enqueue_within(&Asked::of("a").key("k")).expect("stored").1);
        place.client.run("COMMIT").expect("commits");
        assert_eq!(all(&place.manager).len(), 1);
        place.assert_sound();
    });
}

#[test]
fn an_enqueue_that_is_killed_leaves_the_callers_transaction_to_the_caller() {
    each(|place| {
        let mut holder = place.another();
        holder.begin();
        holder.enqueue_within(&Asked::of("a").key("k")).expect("stored");
        let mut victim = place.another();
        let number = victim.ask("SELECT CAST(CONNECTION_ID() AS CHAR) AS one").expect("has one");
        let waits = std::thread::spawn(move || {
            victim.begin();
            let answer = victim.enqueue_within(&Asked::of("a").key("k"));
            // As every error of a transaction is answered.
            victim.run("ROLLBACK").expect("rolls back");
            let next = victim.enqueue(&Asked::of("b"));
            (answer, next)
        });
        let sql = format!(
            "SELECT CAST(COUNT(*) AS CHAR) AS one FROM information_schema.processlist WHERE id = {number} \
             AND info LIKE '%INSERT INTO%unique%'"
        );
        eventually(Duration::from_secs(30), "it waits for the key", || {
            place.client.ask(&sql).as_deref() == Some("1")
        });
        place.client.run(&format!("KILL QUERY {number}")).expect("killed");
        let (answer, next) = waits.join().expect("no panic");
        let answer = answer.expect_err("it was killed");
        assert!(answer.contains("interrupted"), "{answer}");
        assert!(next.expect("stored").1);
        holder.run("ROLLBACK").expect("rolls back");
        assert_eq!(all(&place.manager).len(), 1);
        place.assert_sound();
    });
}

#[test]
fn a_deadlock_is_told_as_one_and_a_savepoint_of_the_callers_lives_on() {
    each(|place| {
        let mut other = place.another();
        place.client.begin();
        other.begin();
        place.client.enqueue_within(&Asked::of("a").key("1")).expect("stored");
        other.enqueue_within(&Asked::of("a").key("2")).expect("stored");
        let theirs = std::thread::spawn(move || {
            let answer = other.enqueue_within(&Asked::of("a").key("1"));
            (answer, other.run("COMMIT"))
        });
        let mine = place.client.enqueue_within(&Asked::of("a").key("2"));
        place.client.run("COMMIT").expect("ends");
        let (theirs, _) = theirs.join().expect("no panic");
        let refused =
            [&mine, &theirs].into_iter().filter_map(|one| one.as_ref().err()).collect::<Vec<_>>();
        assert!(refused.len() == 1 && refused[0].contains("Deadlock"), "{mine:?} {theirs:?}");

        place.client.begin();
        place.client.run("SAVEPOINT qudo").expect("theirs");
        place.client.enqueue_within(&Asked::of("b")).expect("stored");
        place.client.enqueue_within(&Asked::of(" b")).expect_err("refused");
        place.client.run("ROLLBACK TO SAVEPOINT qudo").expect("it is there");
        place.client.run("COMMIT").expect("commits");
        assert!(all(&place.manager).iter().all(|job| &*job.facts.ability == "a"));
        place.assert_sound();
    });
}

#[test]
fn neither_the_callers_mode_nor_its_character_set_changes_what_is_stored() {
    each(|place| {
        place
            .client
            .run("SET sql_mode = ''; SET NAMES latin1; SET time_zone = '+05:00'")
            .expect("set");
        place.client.begin();
        // `ü` in latin1, by its number, so that this text itself is plain.
        place
            .client
            .run(
                "CALL qudo_enqueue(CONCAT('b', CHAR(252 USING latin1)), NULL, NULL, NULL, NOW() + INTERVAL 1 HOUR, \
                 CHAR(252 USING latin1), NULL, NULL, @id, @is_new)",
            )
            .expect("stored");
        let long = format!(
            "CALL qudo_enqueue('{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, @id, @is_new)",
            "x".repeat(101)
        );
        assert!(place.client.run(&long).expect_err("too long").contains("qudo: the ability"));
        place.client.run("COMMIT").expect("commits");
        let job = all(&place.manager).remove(0);
        assert_eq!((&*job.facts.ability, job.facts.uniqkey.as_deref()), ("bü", Some("ü")));
        let qudo::driver::JobState::Scheduled { run_after: at } = job.state else {
            panic!("{job:?}")
        };
        let after = at - chrono::Utc::now();
        assert!((55..=60).contains(&after.num_minutes()), "in the caller's time zone: {after}");
        place.assert_sound();
    });
}

#[test]
fn a_procedure_of_somebody_else_stays_and_is_remarked_on() {
    each(|place| {
        let said = |place: &Place| {
            let remarks = place.manager.checkup().remove(0).answer.expect("answers");
            remarks
                .iter()
                .map(ToString::to_string)
                .filter(|one| one.contains("qudo_enqueue"))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(place), Vec::<String>::new());
        place.client.run("DROP PROCEDURE qudo_enqueue").expect("dropped");
        assert!(said(place)[0].contains("is missing"), "{:?}", said(place));
        place.client.run("CREATE PROCEDURE qudo_enqueue() SELECT 1").expect("theirs");
        assert!(said(place)[0].contains("not the one"), "{:?}", said(place));
        place.manager.migrate().expect("asks").remove(0).answer.expect("is up to date");
        assert!(said(place)[0].contains("not the one"), "{:?}", said(place));
        place.client.run("DROP PROCEDURE qudo_enqueue").expect("dropped");
        place.manager.migrate().expect("asks").remove(0).answer.expect("makes it");
        assert!(place.client.enqueue(&Asked::of("a")).expect("stored").1);
    });
}

#[test]
fn no_level_of_isolation_makes_jobs_wait_for_each_other_or_vanish() {
    each(|place| {
        let open = |place: &Place, level: &str| {
            let mut client = place.another();
            let set = format!(
                "SET SESSION innodb_lock_wait_timeout = 1; SET SESSION TRANSACTION ISOLATION LEVEL {level}"
            );
            client.run(&set).expect("set");
            client.begin();
            client
        };
        for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            let mut all: Vec<_> = (0..3).map(|_| open(place, level)).collect();
            for _ in 0..5 {
                for one in &mut all {
                    assert!(one.enqueue_within(&Asked::of(level)).expect(level).1);
                }
            }
            for one in &mut all {
                one.run("COMMIT").expect("commits");
            }
            // What is not committed does not count as stored.
            let given = Asked { id: Some(qudo::JobId::new().to_string()), ..Asked::of(level) };
            let (mut first, mut second) = (open(place, level), open(place, level));
            assert!(first.enqueue_within(&given).expect("stored").1);
            let refused = second.enqueue_within(&given).expect_err("it has to wait");
            assert!(refused.contains("Lock wait timeout"), "{refused}");
            first.run("ROLLBACK").expect("rolls back");
            assert!(second.enqueue_within(&given).expect("stored").1);
            second.run("COMMIT").expect("commits");
        }
        assert_eq!(all(&place.manager).len(), 4 * 16);
        place.assert_sound();
    });
}

#[test]
fn a_session_without_strict_mode_enqueues_no_job_for_a_time_that_is_none() {
    each(|place| {
        place.client.run("SET sql_mode = ''").expect("set");
        place.client.begin();
        for time in ["garbage", "2026-02-31 00:00", "0000-00-00"] {
            let call = format!(
                "CALL qudo_enqueue('a', NULL, NULL, NULL, '{time}', NULL, NULL, NULL, @id, @is_new)"
            );
            let refused = place.client.run(&call).expect_err(time);
            assert!(refused.contains("qudo: run_after"), "{refused}");
        }
        let long = format!(
            "CALL qudo_enqueue('a', NULL, NULL, NULL, NULL, NULL, NULL, '{}', @id, @is_new)",
            "0".repeat(130)
        );
        assert!(place.client.run(&long).expect_err("no id").contains("qudo: the id"));
        place.client.run("COMMIT").expect("ends");
        assert!(all(&place.manager).is_empty());
    });
}
