//! Retry rules: the ability's own, a hook that decides by the failure, and a circuit breaker. Ends
//! by itself.

use std::fmt;
use std::time::Duration;

use qudo::hook::builtin::{CircuitBreaker, RetryByKind};
use qudo::hook::{Decision, Failure, FailureKind, Hook, HookError, JobView};
use qudo::testing::TestQueue;
use qudo::{Job, JobResult, Outcome};

/// The partner has too much to do.
#[derive(Debug)]
struct Busy {
    retry_after: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the partner is busy for {:?}", self.retry_after)
    }
}

impl std::error::Error for Busy {}

/// Waits as long as the partner asks for in its answer.
struct RetryAfter;

impl Hook for RetryAfter {
    fn name(&self) -> &'static str {
        "retry-after"
    }

    fn on_failure(
        &self,
        _job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        if let (Some(busy), Decision::Retry(_)) = (failure.downcast_ref::<Busy>(), &decision) {
            *decision = Decision::Retry(busy.retry_after);
        }
        Ok(())
    }
}

#[qudo::ability(max_retries = 3, retry_delay = exponential("1s", "1m"))]
fn call_partner(job: &Job, order: u32) -> JobResult<u32> {
    match job.attempt() {
        1 => Err(Busy { retry_after: Duration::from_secs(90) })?,
        2 => panic!("an answer nobody thought of"),
        _ => Ok(order),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A queue in memory with a clock of its own: nobody has to wait.
    let queue = TestQueue::builder()
        .ability::<call_partner>()
        .hook(RetryAfter)
        .hook(RetryByKind::default().after(FailureKind::Panic, Duration::from_secs(5)))
        .hook(CircuitBreaker::new(10, Duration::from_secs(30)))
        .build()?;
    let order = queue.manager().enqueue(call_partner::job(7))?;
    for wait in [0, 90, 5] {
        queue.advance(Duration::from_secs(wait));
        for outcome in queue.run_all()? {
            match &outcome {
                Outcome::Retried(failure, delay) => {
                    println!("{}: again in {delay:?}", failure.message());
                }
                other => println!("{}", other.as_str()),
            }
        }
    }
    println!("order {} is placed", order.wait(Duration::ZERO)?);
    Ok(())
}
