//! How a service with three abilities, a retry hook and a plugin is written, and tested without a
//! database. Ends by itself.

use std::sync::Mutex;
use std::time::Duration;

use qudo::hook::builtin::RetryGrowing;
use qudo::testing::TestQueue;
use qudo::testing::{assert_enqueued, refute_enqueued};
use qudo::{Job, JobError, JobResult, Manager};

#[derive(Default)]
struct Outbox(Mutex<Vec<String>>);

#[qudo::ability]
fn sign_up(job: &Job, user: String) -> JobResult {
    job.manager().enqueue(welcome::job(user.clone()))?;
    job.manager().enqueue(remind::job(user).delay(Duration::from_secs(86_400)))?;
    Ok(())
}

#[qudo::ability(max_retries = 3)]
fn welcome(job: &Job, user: String) -> JobResult {
    if job.attempt() == 1 {
        return Err(JobError::fail("the relay is busy"));
    }
    let outbox = job.plugin::<Outbox>()?;
    outbox.0.lock().map_err(|_| JobError::fail("poisoned"))?.push(format!("welcome {user}"));
    Ok(())
}

#[qudo::ability(unique_by = |user| user.clone())]
fn remind(job: &Job, user: String) -> JobResult<String> {
    Ok(format!("{user} is reminded by {}", job.ability()))
}

/// What the service does at a request.
fn handle(manager: &Manager, user: &str) -> Result<(), qudo::Error> {
    manager.enqueue(sign_up::job(user.to_owned())).map(drop)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queue = TestQueue::builder()
        .linked()
        .hook(RetryGrowing::new(Duration::from_secs(10), Duration::from_secs(60)))
        .plugin(Outbox::default())
        .build()?;
    handle(queue.manager(), "eve")?;
    assert_enqueued!(queue, sign_up, |_, user| user == "eve");
    queue.run_all()?;
    refute_enqueued!(queue, sign_up);
    assert_enqueued!(queue, welcome, |job, _| job.attempt == 1);
    queue.advance(Duration::from_secs(10));
    queue.run_all()?;
    refute_enqueued!(queue, welcome);
    assert_enqueued!(queue, remind, |job, _| job.facts.uniqkey.as_deref() == Some("eve"));
    println!("everything is as it should be");
    Ok(())
}
