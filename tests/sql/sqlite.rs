//! What is SQLite's own.

use diesel::connection::SimpleConnection;
use diesel::sql_types::Binary;
use diesel::{Connection, RunQueryDsl, SqliteConnection, sql_query};
use qudo::JobId;

use crate::jobs::all;
use crate::place::{Asked, Place};

fn place() -> Place {
    Place::on("sqlite").expect("always there")
}

/// The statement that fires a trigger says what becomes of conflicts inside.
#[test]
fn the_or_of_an_insert_changes_nothing() {
    let mut place = place();
    for or in ["IGNORE", "REPLACE", "FAIL", "ABORT", "ROLLBACK"] {
        let id = JobId::new();
        let enqueue = |key: &str, ability: &str| {
            format!(
                "INSERT OR {or} INTO qudo_enqueue (ability, uniqkey, id) VALUES ('{ability}', '{key}', '{id}')"
            )
        };
        let before = all(&place.manager).len();
        place.client.run(&enqueue(or, "a")).expect("stored");
        // The same once more, with another key, and with the key of another job.
        place.client.run(&enqueue(or, "a")).expect("is there");
        place.client.run(&enqueue("other", "a")).expect("is there");
        let held =
            format!("INSERT OR {or} INTO qudo_enqueue (ability, uniqkey) VALUES ('a', '{or}')");
        place.client.run(&held).expect("answers");
        assert_eq!(
            place.client.ask("SELECT id AS one FROM qudo_enqueued"),
            Some(id.as_uuid().simple().to_string())
        );
        assert_eq!(
            place.client.ask("SELECT CAST(is_new AS TEXT) AS one FROM qudo_enqueued").as_deref(),
            Some("0")
        );
        let refused =
            place.client.run(&enqueue("z", " a")).expect_err("it is refused, not passed over");
        assert!(refused.contains("qudo: the ability"), "{refused}");
        assert_eq!(all(&place.manager).len(), before + 1, "OR {or}");
        place.assert_sound();
    }
}

/// Text that is not UTF-8 would be read by nobody.
#[test]
fn bytes_that_are_no_text_are_refused_wherever_a_text_is_read() {
    let mut place = place();
    let conn = place.client.sqlite();
    let odd: [&[u8]; 8] = [
        b"a\xff",
        b"\xc3",
        b"a\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf5\x80\x80\x80",
        b"\xe2\x82",
        b"a\0b",
        b"\x80",
    ];
    for bytes in odd {
        for sql in [
            "INSERT INTO qudo_enqueue (ability) VALUES (CAST(? AS TEXT))",
            "INSERT INTO qudo_enqueue (ability, queue) VALUES ('a', CAST(? AS TEXT))",
            "INSERT INTO qudo_enqueue (ability, uniqkey) VALUES ('a', CAST(? AS TEXT))",
            "INSERT INTO qudo_enqueue (ability, meta) VALUES ('a', '{\"a\":\"' || CAST(? AS TEXT) || '\"}')",
            "INSERT INTO qudo_enqueue (ability, meta) VALUES ('a', '{\"a\":\"' || printf('%.300c', 'x') || CAST(? AS TEXT) || '\"}')",
        ] {
            let refused = sql_query(sql).bind::<Binary, _>(bytes).execute(conn).expect_err(sql);
            assert!(refused.to_string().contains("qudo: the "), "{bytes:?} {sql}: {refused}");
        }
    }
    assert!(all(&place.manager).is_empty());
}

#[test]
fn values_of_other_kinds_are_refused_and_ids_may_be_bytes() {
    let mut place = place();
    for (columns, values) in [
        ("ability", "5"),
        ("ability", "x'61'"),
        ("ability, queue", "'a', 5"),
        ("ability, uniqkey", "'a', 5"),
        ("ability, uniqkey", "'a', x'61'"),
        ("ability, arg", "'a', x'31'"),
        ("ability, arg", "'a', 9e999"),
        ("ability, priority", "'a', '5'"),
        ("ability, priority", "'a', 1.5"),
        ("ability, run_after", "'a', '18:30'"),
        ("ability, run_after", "'a', '2026'"),
        ("ability, run_after", "'a', '-2026-12-05 00:00'"),
        ("ability, meta", "'a', '{\"tags\":[\"x\\u0000\"]}'"),
        ("ability, run_after", "'a', 1700000000"),
        ("ability, run_after", "'a', 'tomorrow'"),
        ("ability, meta", "'a', 5"),
        ("ability, id", "'a', x'61'"),
        ("ability, id", "'a', '0011223344556677889900112233445g'"),
    ] {
        let sql = format!("INSERT INTO qudo_enqueue ({columns}) VALUES ({values})");
        let refused = place.client.run(&sql).expect_err(&sql);
        assert!(refused.contains("qudo: "), "{sql}: {refused}");
    }
    place
        .client
        .run("INSERT INTO qudo_enqueue (ability, priority) VALUES ('float', 5.0)")
        .expect("stored");
    let floats = all(&place.manager);
    assert_eq!(floats[0].facts.priority, 5);
    assert!(place.manager.dequeue(floats[0].id).expect("removed"));
    let id = JobId::new();
    let conn = place.client.sqlite();
    sql_query("INSERT INTO qudo_enqueue (ability, arg, id) VALUES ('a', 5, ?)")
        .bind::<Binary, _>(&id.as_uuid().as_bytes()[..])
        .execute(conn)
        .expect("stored");
    let job = all(&place.manager).remove(0);
    assert_eq!((job.id, &*job.facts.arg), (id, &b"5"[..]));
}

#[test]
fn many_rows_of_one_statement_are_as_many_jobs() {
    let mut place = place();
    place
        .client
        .run(
            "CREATE TABLE users (name TEXT, priority INTEGER);
             INSERT INTO users VALUES ('eve', 1), ('bob', 2), ('eve', 3);
             INSERT INTO qudo_enqueue (ability, arg, priority, uniqkey) SELECT 'greet', json_quote(name), priority, name FROM users",
        )
        .expect("stored");
    let jobs: Vec<_> =
        all(&place.manager).into_iter().map(|job| (job.facts.priority, job.facts.arg)).collect();
    assert_eq!(jobs, [(1, b"\"eve\"".to_vec()), (2, b"\"bob\"".to_vec())]);
    place.assert_sound();
}

#[test]
fn an_application_that_trusts_no_schema_enqueues_too() {
    let mut place = place();
    place
        .client
        .run(
            "PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = ON; PRAGMA foreign_keys = ON",
        )
        .expect("set");
    let asked = Asked {
        meta: Some("{\"ä\":1,\"tags\":[\"ü\"]}".to_owned()),
        ..Asked::of("ä").key("ö")
    };
    assert!(place.client.enqueue(&asked).expect("stored").1);
}

#[test]
fn a_database_of_another_encoding_is_refused_in_words() {
    let place = place();
    let schema = place
        .another()
        .ask(
            "SELECT group_concat(sql, ';') AS one FROM (SELECT sql FROM sqlite_master WHERE sql IS NOT NULL \
             ORDER BY CASE type WHEN 'table' THEN 1 WHEN 'view' THEN 2 ELSE 3 END)",
        )
        .expect("it has tables");
    let mut wide = SqliteConnection::establish(":memory:").expect("opens");
    wide.batch_execute("PRAGMA encoding = 'UTF-16le'").expect("set");
    wide.batch_execute(&schema).expect("made");
    wide.batch_execute("INSERT INTO qudo_enqueued VALUES (1, '', 0, x'', 0, NULL)").expect("made");
    let refused =
        wide.batch_execute("INSERT INTO qudo_enqueue (ability) VALUES ('a')").expect_err("refused");
    assert!(refused.to_string().contains("another encoding"), "{refused}");
}

#[test]
fn jobs_of_one_large_statement_keep_the_order_of_their_rows() {
    let mut place = place();
    place
        .client
        .run(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 6000)
             INSERT INTO qudo_enqueue (ability, arg) SELECT 'a', n FROM n",
        )
        .expect("stored");
    let told = place.client.ask(
        "SELECT CAST(sum(CAST(j.arg AS TEXT) <> j.place) AS TEXT) AS one
         FROM (SELECT arg, row_number() OVER (ORDER BY id) AS place FROM qudo_job) j",
    );
    assert_eq!(told.as_deref(), Some("0"));
}

/// A trigger of somebody's that names the view would make every later change of a table fail.
#[test]
fn nothing_is_reverted_while_a_trigger_of_somebodys_enqueues() {
    let mut place = place();
    place
        .client
        .run(
            "CREATE TABLE users (id INTEGER);
             CREATE TRIGGER greet AFTER INSERT ON users BEGIN INSERT INTO Qudo_Enqueue (ability) VALUES ('a'); END;
             CREATE TRIGGER other AFTER UPDATE ON users BEGIN SELECT 'mail_qudo_enqueue', 'qudo_enqueued'; END",
        )
        .expect("made");
    let driver =
        qudo::driver::DriverRegistration::open_linked(place.fresh.url()).expect("opens").driver;
    let refused = driver.revert().expect_err("the trigger is in the way").to_string();
    assert!(refused.contains("greet") && !refused.contains("other"), "{refused}");
    assert!(place.client.enqueue(&Asked::of("a")).expect("all is there").1);
    place.client.run("DROP TRIGGER greet").expect("dropped");
    driver.revert().expect("reverts");
}
