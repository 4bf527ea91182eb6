//! Databases that go away and come back.

use std::sync::{Arc, Mutex};

use qudo::admin::DatabaseState;
use qudo::{JobId, Manager};
use qudo_driver_tests::abilities::echo;
use qudo_driver_tests::session::{gate, waits};
use qudo_driver_tests::{Bed, DEADLINE, eventually};

use crate::engines::table;
use crate::transactional::{Conn, sql};

pub fn an_end_is_kept_while_the_tables_are_away(bed: &Bed) {
    let Some(mut conn) = Conn::open(bed) else { return };
    let (manager, log) = bed.with(|builder| builder.ability::<waits>().workers(1).retry_seconds(1));
    let name = JobId::new().to_string();
    let job = waits::job(name.clone()).database(bed.first());
    let sent = manager.enqueue(job).expect("stored");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["started"]);
    let lease = table(bed, "qudo_lease");
    let name_of = |table: &str| table.rsplit('.').next().expect("a name").to_owned();
    let away = format!("{}_away", name_of(&lease));
    sql(&mut conn, &format!("ALTER TABLE {lease} RENAME TO {away}"));
    gate(&name).open();
    let state = || {
        let reports = manager.database_reports();
        reports.into_iter().find(|one| one.name == bed.first()).expect("known").state
    };
    eventually("it is found out", || state() != DatabaseState::Up);
    sql(&mut conn, &format!("ALTER TABLE {lease}_away RENAME TO {}", name_of(&lease)));
    sent.wait_as::<()>(DEADLINE).expect("settled");
    assert_eq!(log.lines(), ["started", "passed"]);
    working.stop();
}

pub fn changes_of_state_are_told(bed: &Bed) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&told);
    let builder = bed.builder().on_database_change(move |report| {
        own.lock().expect("no panic").push((report.name.clone(), report.state));
    });
    // A file in a directory that does not exist yet is a database that is down.
    let place = tempfile::tempdir().expect("a temporary directory");
    let directory = place.path().join("later");
    let dsn = format!("sqlite:{}/jobs.db", directory.display());
    let manager = builder.database_as("late", dsn).build().expect("valid");
    let error = manager.enqueue(echo::job(String::new()).database("late")).expect_err("down");
    assert!(error.is_down(), "{error}");
    std::fs::create_dir(&directory).expect("creates");
    let late = Manager::builder().linked(false);
    let dsn = format!("sqlite:{}/jobs.db", directory.display());
    late.database(dsn).build().expect("valid").migrate().expect("migrates");
    eventually("it is back", || told.lock().expect("no panic").len() == 2);
    let expected = [DatabaseState::Down, DatabaseState::Up].map(|state| ("late".to_owned(), state));
    assert_eq!(*told.lock().expect("no panic"), expected);
}
