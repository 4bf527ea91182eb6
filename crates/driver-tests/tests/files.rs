//! The suite on the example driver.

#![allow(missing_docs, reason = "a test is read, not called")]

#[path = "../examples/file_driver/driver.rs"]
mod driver;
#[path = "../examples/file_driver/file.rs"]
mod file;
#[path = "../examples/file_driver/state.rs"]
mod state;

use qudo_driver_tests::{Bed, Fresh};

fn fresh() -> Fresh {
    let place = tempfile::tempdir().expect("a temporary directory");
    Fresh::new(format!("file:{}/jobs.json", place.path().display()), place)
}

pub fn run(behaviour: fn(&Bed)) {
    behaviour(&Bed::new([("file".to_owned(), fresh())]).with_local(fresh));
}

qudo_driver_tests::suite!(crate::run);
