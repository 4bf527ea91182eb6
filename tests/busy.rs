//! Many writers of one SQLite file all get their turn.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use qudo::{Manager, NewJob};

const WRITERS: usize = 9;
const JOBS: usize = 60;

/// Each with a pool of its own, as processes have. SQLite's own wait goes on to ever longer pauses, so that
/// of many writers some are passed over until their time is up.
#[test]
fn of_nine_writers_none_waits_until_its_time_is_up() {
    let place = tempfile::tempdir().expect("makes");
    let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
    let open = || Manager::builder().linked(false).database(&dsn).build().expect("valid");
    open().migrate().expect("migrates");
    let start = Barrier::new(WRITERS);
    let mut longest: Vec<Duration> = std::thread::scope(|scope| {
        let write = |_| {
            scope.spawn(|| {
                let manager = open();
                start.wait();
                let write = |_| {
                    let begun = Instant::now();
                    let sent = manager.enqueue(NewJob::named("busy", ().into()));
                    drop(
                        sent.unwrap_or_else(|error| panic!("after {:?}: {error}", begun.elapsed())),
                    );
                    begun.elapsed()
                };
                (0..JOBS).map(write).max().expect("some")
            })
        };
        let writers: Vec<_> = (0..WRITERS).map(write).collect();
        writers.into_iter().map(|one| one.join().expect("none fails")).collect()
    });
    longest.sort_unstable();
    println!("the longest of each: {longest:?}");
    let counts = open().job_count();
    let all = counts.iter().flat_map(|one| one.answer.as_ref().expect("counts"));
    assert_eq!(all.map(|one| one.count as usize).sum::<usize>(), WRITERS * JOBS);
}
