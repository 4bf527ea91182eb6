//! The numbers of a process through the `metrics` facade.

#![cfg(all(feature = "sqlite", feature = "metrics"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::BTreeMap;
use std::time::Duration;

use diesel::{Connection as _, SqliteConnection};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use qudo::hook::builtin::Metrics;
use qudo::metrics::{Sampler, measure};
use qudo::{EnqueueIn, Job, JobResult, Manager};

#[qudo::ability]
fn splits(job: &Job, parts: u32) -> JobResult {
    for part in 0..parts {
        job.replace(part_of::job(part));
    }
    Ok(())
}

#[qudo::ability(queue = "parts")]
fn part_of(_job: &Job, _part: u32) -> JobResult {
    Ok(())
}

/// Every series with its labels, and its number, or how many times were recorded.
fn told(recorder: &DebuggingRecorder) -> BTreeMap<String, f64> {
    read(&recorder.snapshotter())
}

fn read(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        let labels: Vec<_> =
            key.labels().map(|one| format!("{}={}", one.key(), one.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(times) => times.len() as f64,
        };
        all.insert(format!("{}{{{}}}", key.name(), labels.join(",")), value);
    }
    all
}

#[test]
fn enqueues_in_transactions_replacements_runs_and_the_state_of_databases_are_told() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("jobs.db").display().to_string();
    let manager = Manager::builder()
        .linked(false)
        .ability::<splits>()
        .ability::<part_of>()
        .hook(Metrics)
        .database_as("one", format!("sqlite:{file}"))
        .database_as("gone", "sqlite:/nowhere/at/all.db")
        .build()
        .expect("valid");
    manager.migrate_each(false).remove(0).answer.expect("migrates");
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        manager.enqueue(splits::job(2).database("one")).expect("stored");
        let mut conn = SqliteConnection::establish(&file).expect("opens");
        let stored = conn.immediate_transaction(|conn| {
            let job = part_of::job(7).database("one");
            manager.enqueue_in(conn, job).map_err(|_| diesel::result::Error::RollbackTransaction)
        });
        assert!(stored.expect("committed").is_new());
        while manager.work_once().expect("answers").is_some() {}
        manager.enqueue(part_of::job(8).database("one")).expect("stored");
        measure(&manager, Duration::from_secs(1));
    });
    let told = told(&recorder);
    for (series, value) in [
        ("qudo_process_enqueued_total{database=one,queue=default,ability=splits}", 1.0),
        ("qudo_process_enqueued_total{database=one,queue=parts,ability=part_of}", 3.0),
        (
            "qudo_process_enqueued_in_transactions_total{database=one,queue=parts,ability=part_of}",
            1.0,
        ),
        (
            "qudo_process_runs_total{database=one,queue=default,ability=splits,outcome=replaced}",
            1.0,
        ),
        (
            "qudo_process_runs_total{database=one,queue=parts,ability=part_of,outcome=completed}",
            3.0,
        ),
        ("qudo_process_run_seconds{database=one,queue=parts,ability=part_of}", 3.0),
        ("qudo_process_wait_seconds{database=one,queue=parts,ability=part_of}", 3.0),
        ("qudo_process_database_up{database=one}", 1.0),
        ("qudo_process_database_up{database=gone}", 0.0),
        ("qudo_process_jobs{database=one,state=ready}", 1.0),
        ("qudo_process_workers{database=one,state=live}", 0.0),
    ] {
        assert_eq!(told.get(series), Some(&value), "{series}: {told:#?}");
    }
    assert!(told["qudo_process_jobs{database=gone,state=ready}"].is_nan(), "nobody knows");
    assert!(told["qudo_process_oldest_ready_seconds{database=one}"] < 60.0);
}

#[test]
fn a_process_that_works_tells_of_its_loops_and_its_spool() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let spool = format!("sqlite:{}", place.path().join("spool.db").display());
    let builder = Manager::builder().linked(false).ability::<part_of>().database("memory:told");
    let manager = builder.spool(&spool, 10).build().expect("valid");
    manager.migrate().expect("migrates");
    let handle = manager.start().expect("starts");
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || measure(&manager, Duration::from_secs(1)));
    let told = told(&recorder);
    assert_eq!(told.get("qudo_process_spool_jobs{}"), Some(&0.0));
    assert!(
        told.contains_key("qudo_process_loop_idle_seconds{database=told,loop=heartbeat}"),
        "{told:#?}"
    );
    assert!(!told.keys().any(|key| key.contains("database=spool")), "{told:#?}");
    handle.stop();
}

#[test]
fn a_sampler_tells_until_it_is_dropped_and_then_nothing_is_known() {
    // Its thread tells the recorder of the whole program.
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().expect("the first of this program");
    let manager = Manager::builder().linked(false).database("memory:sampled").build();
    let manager = manager.expect("valid");
    let sampler = Sampler::start(&manager, Duration::from_secs(3_600)).expect("starts");
    let up = || {
        let all = read(&snapshotter);
        all.get("qudo_process_database_up{database=sampled}").copied()
    };
    let begun = std::time::Instant::now();
    while up() != Some(1.0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", up());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(sampler);
    assert!(up().is_some_and(f64::is_nan), "{:?}", up());
}

/// The page names what there is: those of `qudo metrics`, and those of a process.
#[test]
fn the_guide_names_the_series_of_a_process() {
    let guide = include_str!("../docs/guide/monitoring.md");
    for series in [
        "qudo_process_enqueued_total",
        "qudo_process_enqueued_in_transactions_total",
        "qudo_process_runs_total",
        "qudo_process_run_seconds",
        "qudo_process_wait_seconds",
        "qudo_process_spool_jobs",
        "qudo_process_spool_dropped",
        "qudo_process_loop_idle_seconds",
    ] {
        assert!(guide.contains(&format!("`{series}`")), "{series}");
    }
}
