//! The abilities that the behaviours use.

use std::time::Duration;

use qudo::hook::JobView;
use qudo::{Job, JobError, NewJob, JobResult, abort, snooze};

use crate::Log;

#[qudo::ability]
pub fn echo(job: &Job, arg: String) -> JobResult<String> {
    job.plugin::<Log>()?.add(arg.clone());
    Ok(arg)
}

#[qudo::ability(name = "other-echo", queue = "other")]
pub fn other_echo(job: &Job, arg: String) -> JobResult {
    job.plugin::<Log>()?.add(format!("other {arg}"));
    Ok(())
}

#[qudo::ability]
pub fn double(n: i64) -> JobResult<i64> {
    Ok(n * 2)
}

#[qudo::ability]
pub fn no_argument(job: &Job) -> JobResult {
    job.plugin::<Log>()?.add("called");
    Ok(())
}

/// Fails as often as its argument says.
#[qudo::ability(max_retries = 2, retry_delay = "0s", job_status = true)]
pub fn stumble(job: &Job, times: u32) -> JobResult<u32> {
    job.plugin::<Log>()?.add(format!("attempt {}", job.attempt()));
    job.reply(&job.attempt())?;
    if job.attempt() <= times {
        return Err(JobError::fail(format!("stumbled at attempt {}", job.attempt())));
    }
    Ok(job.attempt())
}

#[qudo::ability(max_retries = 1, retry_delay = "400ms")]
pub fn slow_retry(job: &Job) -> JobResult {
    if job.attempt() == 1 { Err(JobError::fail("once")) } else { Ok(()) }
}

fn from_the_job(job: &JobView<'_>) -> Duration {
    Duration::from_secs(3600 * u64::from(job.attempt()))
}

#[qudo::ability(max_retries = 1, retry_delay = from_the_job)]
pub fn computed_retry(_job: &Job) -> JobResult {
    Err(JobError::fail("always"))
}

#[qudo::ability(max_retries = 5, retry_delay = "0s")]
pub fn give_up(_job: &Job) -> JobResult {
    Err(abort("no such user"))
}

#[qudo::ability(max_retries = 1, retry_delay = "0s")]
pub fn panics(job: &Job) -> JobResult<u32> {
    assert!(job.attempt() > 1, "the first attempt panics");
    Ok(job.attempt())
}

#[qudo::ability]
pub fn splits(job: &Job, fail: bool) -> JobResult {
    job.replace(echo::job("left".to_owned()));
    job.replace(NewJob::named("echo", "right".into()));
    if fail { Err(JobError::fail("not today")) } else { Ok(()) }
}

#[qudo::ability]
pub fn again(job: &Job, left: u32) -> JobResult {
    job.plugin::<Log>()?.add(format!("{left} left"));
    if left > 0 {
        job.replace(again::job(left - 1).uniqkey("the only one"));
    }
    Ok(())
}

/// Leaves no reply, but a history.
#[qudo::ability(job_status = true)]
pub fn noted(_job: &Job) -> JobResult {
    Ok(())
}

/// Snoozes until its manager's log has two lines.
#[qudo::ability(job_status = true)]
pub fn sleepy(job: &Job) -> JobResult<u32> {
    let log = job.plugin::<Log>()?;
    log.add("woke");
    if log.lines().len() < 3 {
        return Err(snooze(Duration::ZERO));
    }
    Ok(job.attempt())
}

#[qudo::ability]
pub fn parent(job: &Job) -> JobResult {
    job.manager().enqueue(echo::job("child".to_owned()))?;
    Ok(())
}

#[qudo::ability]
pub fn replies(job: &Job) -> JobResult<String> {
    job.reply("one")?;
    job.reply("two")?;
    Ok("three".to_owned())
}

#[qudo::ability]
pub fn gives_way(job: &Job, step: u32) -> qudo::JobResult {
    if step == 1 {
        let later = std::time::Duration::from_secs(3_600);
        job.replace(gives_way::job(2).uniqkey("taken").delay(later));
        job.replace(gives_way::job(3).uniqkey("free").delay(later));
    }
    Ok(())
}
