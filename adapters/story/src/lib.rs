//! What every adapter has to do, told once: the tests of each adapter give it their library's transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qudo::admin::{AuditOptions, JobFilter, JobInfo, JobState, Paging};
use qudo::hook::{Hook, HookError, JobDraft, JobView};
use qudo::{Enqueued, Error, Job, JobResult, Manager, NewJob};
use qudo_test_servers::FreshDatabase;

/// Doubles a number.
///
/// # Errors
///
/// None.
#[qudo::ability(name = "story_double")]
pub fn double(_job: &Job, number: u32) -> JobResult<u32> {
    Ok(number * 2)
}

/// A transaction of the library: enqueues the jobs one after the other, and ends it.
pub struct Transaction<'a> {
    /// The data source name of the database.
    pub url: &'a str,
    /// The manager whose jobs they are.
    pub manager: &'a Manager,
    /// The jobs.
    pub jobs: Vec<NewJob<u32>>,
    /// Whether it is committed; it is rolled back otherwise.
    pub commit: bool,
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("commit", &self.commit).finish_non_exhaustive()
    }
}

/// The answers of a transaction, a job each.
pub type Answers = Vec<Result<Enqueued<u32>, Error>>;

/// Stamps every job, keeps out those for `nobody`, and counts those that it hears of.
struct Stamp(&'static AtomicUsize);

impl Hook for Stamp {
    fn name(&self) -> &'static str {
        "stamp"
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        if job.queue() == "nobody" {
            job.suppress();
        }
        job.meta_mut().set("stamp", "red");
        Ok(())
    }

    fn post_enqueue_in(&self, _job: &JobView<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn jobs(manager: &Manager) -> Vec<JobInfo> {
    let listing = manager.jobs(&JobFilter::all(), &Paging::default());
    assert_eq!(listing.errors().count(), 0);
    listing.rows().map(|(_, job)| job.clone()).collect()
}

fn job(number: u32) -> NewJob<u32> {
    double::job(number)
}

/// The story on one engine: `sqlite`, `postgres`, `mariadb` or `mysql`.
///
/// # Panics
///
/// Where the adapter does anything else.
pub fn tell(engine: &'static str, run: impl Fn(Transaction<'_>) -> Answers) {
    let Some(fresh) = FreshDatabase::on(engine, "adapter") else { return };
    told(fresh.url(), &run);
    let other = match engine {
        "postgres" => format!("{}?schema=jobs&table_prefix=mail_", fresh.url()),
        _ => format!("{}?table_prefix=mail_", fresh.url()),
    };
    told_elsewhere(fresh.url(), &other, &run);
}

fn told(url: &str, run: &impl Fn(Transaction<'_>) -> Answers) {
    let heard: &'static AtomicUsize = Box::leak(Box::default());
    let manager = Manager::builder()
        .linked(false)
        .ability::<double>()
        .hook(Stamp(heard))
        .database(url)
        .build()
        .expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let run =
        |jobs: Vec<NewJob<u32>>, commit| run(Transaction { url, manager: &manager, jobs, commit });
    let one = |job, commit| run(vec![job], commit).remove(0);

    // A rollback leaves nothing, and its ticket knows nothing.
    let lost = one(job(1), false).expect("stored for a moment");
    assert!(jobs(&manager).is_empty());
    let ticket = lost.ticket().expect("new");
    assert!(matches!(ticket.check(), Ok(qudo::Standing::Unknown)));

    // A commit stores the job with what hooks and codecs made of it.
    let keyed = || job(21).uniqkey("k 'ü'").priority(3).codec("msgpack");
    let stored = one(keyed(), true).expect("stored");
    assert!(stored.is_new());
    let id = stored.id().expect("new");
    let found = jobs(&manager).remove(0);
    assert_eq!((found.id, &*found.facts.codec, found.facts.priority), (id, "msgpack", 3));
    assert_eq!((found.facts.uniqkey.as_deref(), &*found.facts.arg), (Some("k 'ü'"), &[21][..]));
    assert_eq!(found.facts.meta.as_deref(), Some("{\"stamp\":\"red\"}"));

    // The key is held; the id is there.
    let again = one(keyed(), true).expect("answers");
    assert!(!again.is_new());
    assert_eq!(again.id(), Some(id));
    assert!(!one(job(5).with_id(id), true).expect("answers").is_new());

    // What a hook keeps out is not stored.
    assert!(matches!(one(job(1).queue("nobody"), true), Ok(Enqueued::Suppressed)));

    // Delays are the database's own time.
    let late = one(job(2).delay(Duration::from_hours(1)), true).expect("stored");
    let state =
        |id| jobs(&manager).into_iter().find(|job| Some(job.id) == id).expect("stored").state;
    let JobState::Scheduled { run_after } = state(late.id()) else { panic!("it has to wait") };
    let at = run_after + Duration::from_mins(1);
    let later = one(job(2).run_after(at), true).expect("stored");
    let JobState::Scheduled { run_after } = state(later.id()) else { panic!("it has to wait") };
    assert!((run_after - at).num_milliseconds().abs() < 2, "{run_after} {at}");

    // Several in one transaction are all there, or none is; a refused one says why before the database is asked.
    let several = || vec![job(7), job(8), job(9)];
    assert!(run(several(), false).iter().all(|one| one.as_ref().is_ok_and(Enqueued::is_new)));
    assert_eq!(jobs(&manager).len(), 3);
    assert!(run(several(), true).iter().all(|one| one.as_ref().is_ok_and(Enqueued::is_new)));
    assert_eq!(jobs(&manager).len(), 6);
    assert!(matches!(one(job(1).queue(" x"), true), Err(Error::InvalidName { .. })));

    // It is run, and the ticket hears the reply.
    while manager.work_once().expect("works").is_some() {}
    let reply: u32 = stored.ticket().expect("new").wait(Duration::from_secs(10)).expect("replies");
    assert_eq!(reply, 42);
    assert_eq!(heard.load(Ordering::Relaxed), 10, "each new one was told of, rolled back or not");
    assert!(manager.audit(AuditOptions::default()).is_clean());

    // An error is qudo's, with the library's as its source.
    for sql in [
        "DROP VIEW IF EXISTS qudo_store_1",
        "DROP FUNCTION IF EXISTS qudo_store_1",
        "DROP PROCEDURE IF EXISTS qudo_store_1",
    ] {
        let _ = if let Some(file) = url.strip_prefix("sqlite:") {
            std::process::Command::new("sqlite3")
                .arg(file)
                .arg(sql)
                .output()
                .map(drop)
                .map_err(|_| ())
        } else {
            qudo_test_servers::run_sql(url, sql).map(drop).map_err(|_| ())
        };
    }
    let error = one(job(1), true).expect_err("nothing stores it");
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let mut source = std::error::Error::source(&error);
    let mut causes = 0;
    while let Some(cause) = source {
        (source, causes) = (cause.source(), causes + 1);
    }
    assert!(causes >= 2 && error.to_string().contains("qudo_store_1"), "{error}");
}

fn told_elsewhere(url: &str, dsn: &str, run: &impl Fn(Transaction<'_>) -> Answers) {
    let manager =
        Manager::builder().linked(false).ability::<double>().database(dsn).build().expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let jobs_of = vec![job(1).uniqkey("k"), job(2).uniqkey("k")];
    let answers = run(Transaction { url, manager: &manager, jobs: jobs_of, commit: true });
    let new: Vec<_> = answers.iter().map(|one| one.as_ref().expect("stored").is_new()).collect();
    assert_eq!(
        (new, jobs(&manager).len()),
        (vec![true, false], 1),
        "in the tables of that installation"
    );
}
