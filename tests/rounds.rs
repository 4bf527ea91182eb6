//! Fair rounds: worker threads are shared by all databases, and a full one leaves the others theirs.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use qudo::{Job, Manager, ManagerBuilder};
use qudo_test_servers::eventually;

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

/// Which databases the runs came from, in the order in which they began.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<String>>>);

impl Begun {
    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Longer than a tenth of a second, so that none is claimed ahead.
#[qudo::ability]
fn long(job: &Job, from: String) -> qudo::JobResult {
    job.plugin::<Begun>()?.0.lock().expect("no panic").push(from);
    std::thread::park_timeout(Duration::from_millis(150));
    Ok(())
}

#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

/// Runs until the gate is opened.
#[qudo::ability]
fn gated(job: &Job, from: String) -> qudo::JobResult {
    job.plugin::<Begun>()?.0.lock().expect("no panic").push(from);
    let Gate(gate) = job.plugin::<Gate>()?;
    let open = gate.0.lock().expect("no panic");
    drop(gate.1.wait_timeout_while(open, DEADLINE, |open| !*open).expect("no panic"));
    Ok(())
}

fn manager(
    databases: &[(String, String)],
    more: impl FnOnce(ManagerBuilder) -> ManagerBuilder,
) -> Manager {
    drop(env_logger::builder().is_test(true).try_init());
    let builder = Manager::builder().linked(false).ability::<long>().ability::<gated>().workers(2);
    let builder =
        databases.iter().fold(builder, |builder, (name, dsn)| builder.database_as(name, dsn));
    let manager = more(builder).build().expect("valid");
    for one in manager.migrate_each(false) {
        one.answer.expect("migrates");
    }
    manager
}

fn memory(count: usize) -> Vec<(String, String)> {
    let unique = uuid::Uuid::now_v7().simple();
    (0..count).map(|n| (format!("memory {n}"), format!("memory:{unique}{n}"))).collect()
}

/// Three backlogs of long jobs and two threads: at half time each has had its third.
fn each_has_its_share(databases: &[(String, String)], jobs: usize) {
    let begun = Begun::default();
    let manager = manager(databases, |builder| builder.plugin(begun.clone()));
    for (name, _) in databases {
        let backlog = (0..jobs).map(|_| long::job(name.clone()).database(name));
        manager.enqueue_many(backlog).expect("stored");
    }
    let working = manager.start().expect("starts");
    let half = databases.len() * jobs / 2;
    eventually(DEADLINE, "half of them ran", || begun.lines().len() >= half);
    working.stop();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for from in begun.lines().into_iter().take(half) {
        *counts.entry(from).or_default() += 1;
    }
    let share = half as f64 / databases.len() as f64;
    for (name, _) in databases {
        let had = counts.get(name).copied().unwrap_or_default() as f64;
        assert!((had - share).abs() <= share * 0.2, "{name} had {had} of {share}: {counts:?}");
    }
}

#[test]
fn long_jobs_of_three_full_databases_share_two_threads() {
    each_has_its_share(&memory(3), 60);
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[test]
fn long_jobs_of_three_full_databases_of_three_kinds_share_two_threads() {
    use qudo_test_servers::FreshDatabase;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let servers: Vec<_> = ["postgres", "mariadb"]
        .into_iter()
        .filter_map(|engine| Some((engine.to_owned(), FreshDatabase::on(engine, "rounds")?)))
        .collect();
    let mut databases: Vec<_> =
        servers.iter().map(|(name, one)| (name.clone(), one.url().to_owned())).collect();
    let file = directory.path().join("jobs.db");
    databases.push(("sqlite".to_owned(), format!("sqlite:{}", file.display())));
    each_has_its_share(&databases, 60);
}

/// When threads become free, one database may have a single job left and the other a backlog.
#[test]
fn a_backlog_starts_at_once_though_another_database_is_asked_first() {
    for _ in 0..20 {
        let (begun, gate) = (Begun::default(), Gate::default());
        let databases = memory(2);
        let names: Vec<_> = databases.iter().map(|(name, _)| name.clone()).collect();
        let manager = manager(&databases, |builder| {
            builder.plugin(begun.clone()).plugin(gate.clone()).delay(Duration::from_secs(60))
        });
        // Both threads are busy, and both databases have found that there is no room.
        manager
            .enqueue_many((0..2).map(|_| gated::job("first".to_owned()).database(&names[0])))
            .expect("stored");
        let working = manager.start().expect("starts");
        eventually(DEADLINE, "both threads are busy", || begun.lines().len() == 2);
        let lone = long::job("lone".to_owned()).database(&names[0]);
        manager.enqueue(lone).expect("stored");
        let backlog = (0..4).map(|_| long::job("backlog".to_owned()).database(&names[1]));
        manager.enqueue_many(backlog).expect("stored");
        gate.open();
        eventually(Duration::from_secs(2), "all run", || begun.lines().len() == 7);
        working.stop();
    }
}
