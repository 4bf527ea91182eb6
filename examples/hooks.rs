//! Hooks: for all abilities, for one, and those that come with the crate. Ends by itself.

use std::time::Duration;

use qudo::hook::builtin::{AllowList, Timing};
use qudo::hook::{Hook, HookError, JobDraft, JobView};
use qudo::{Job, JobResult, Manager, Outcome};

/// Puts the tenant of the request on every job, and refuses jobs without one.
struct Tenant(&'static str);

impl Hook for Tenant {
    fn name(&self) -> &'static str {
        "tenant"
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        if self.0.is_empty() {
            return Err(HookError::new("no tenant is known"));
        }
        let queue = format!("{}.{}", self.0, job.queue());
        job.set_queue(queue);
        Ok(())
    }
}

/// Says how each run ended. Registered at link time: every manager of the program has it.
struct Report;

impl Hook for Report {
    fn name(&self) -> &'static str {
        "report"
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        println!("{} in queue {} {}", job.ability(), job.queue(), outcome.as_str());
    }
}

qudo::hook::register_hook!(Report);

/// Only for the ability that names it.
struct OnlyOnce;

impl Hook for OnlyOnce {
    fn name(&self) -> &'static str {
        "only-once"
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        if job.attempt() > 1 {
            return Err(HookError::abort("this is not done twice"));
        }
        Ok(())
    }
}

#[qudo::ability(max_retries = 5, retry_delay = "0s", hooks = [OnlyOnce])]
fn charge(_job: &Job, cents: u32) -> JobResult {
    Err(qudo::JobError::fail(format!("no answer while charging {cents}")))
}

#[qudo::ability]
fn greet(name: String) {
    println!("hello {name}");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timing = Timing::default();
    let manager = Manager::builder()
        .database("memory:hooks")
        .hook(Tenant("acme"))
        .hook(AllowList::default().ability("greet").ability("charge"))
        .hook(timing.clone())
        .queues(["acme.default"])
        .build()?;
    let greeted = manager.enqueue(greet::job("eve".to_owned()))?;
    let charged = manager.enqueue(charge::job(995))?;
    while manager.work_once()?.is_some() {}
    greeted.wait(Duration::ZERO)?;
    let error = charged.wait(Duration::ZERO).expect_err("it was aborted");
    println!("{error}");
    for one in timing.report() {
        println!("{} ran {} times", one.ability, one.runs);
    }
    Ok(())
}
