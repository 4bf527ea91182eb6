use qudo::Error;
use qudo::driver::SchemaState;

use crate::abilities::echo;
use crate::bed::{Bed, Log};

pub fn a_database_without_tables_is_refused_with_the_remedy(bed: &Bed) {
    let engine = bed.first().trim_end_matches(char::is_numeric).to_owned();
    if engine == "memory" {
        return; // It has no tables.
    }
    let bed = Bed::unmigrated(&engine);
    let manager = bed.builder().ability::<echo>().plugin(Log::default()).build().expect("valid");
    let errors = [
        manager.enqueue(echo::job("x".to_owned())).expect_err("no tables"),
        manager.work_once().expect_err("no tables"),
        manager.start().expect_err("no tables"),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(matches!(error, Error::Schema { .. }), "{text}");
        assert!(text.contains("qudo migrate") && text.contains(bed.first()), "{text}");
    }
    manager.migrate().expect("migrates");
    assert!(manager.enqueue(echo::job("x".to_owned())).expect("stored").is_new());
}

pub fn migrating_twice_is_harmless_and_reverting_removes_everything(bed: &Bed) {
    let manager = bed.builder().build().expect("valid");
    for on in manager.migrate().expect("again") {
        assert!(on.answer.expect("up").is_empty(), "{} was migrated", on.database);
    }
    let driver = bed.driver();
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    if driver.engine() == "memory" {
        return; // It has no tables.
    }
    let reverted = driver.revert().expect("reverts");
    assert!(!reverted.is_empty());
    let SchemaState::Behind(missing) = driver.schema().expect("answers") else {
        panic!("reverted")
    };
    assert_eq!(missing.len(), reverted.len());
    // Several at once wait for each other, and each finds the schema complete.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bed.driver().migrate().expect("migrates or waits"));
        }
    });
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
}
