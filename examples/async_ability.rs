//! `async` abilities on a tokio runtime, and enqueuing from async code. Ends by itself.

use std::time::Duration;

use qudo::{Job, JobResult, Manager};

/// Ended at its limit, at the next `await`.
#[qudo::ability(max_retries = 1, retry_delay = "50ms", time_limit = "200ms")]
async fn fetch(job: &Job, url: String) -> JobResult<usize> {
    // The first attempt meets a server that does not answer.
    let pause = if job.attempt() == 1 { 10_000 } else { 20 };
    tokio::time::sleep(Duration::from_millis(pause)).await;
    println!("fetched {url} at attempt {}", job.attempt());
    Ok(url.len())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let manager = Manager::builder()
        .database("memory:async")
        .workers(8) // as many requests are under way at once
        .plugin(runtime.handle().clone())
        .build()?;
    let working = manager.start()?;

    let tickets = runtime.block_on(async {
        // A handler: the manager's methods block, so they go where blocking is allowed.
        let mut tickets = Vec::new();
        for page in 0..8 {
            let manager = manager.clone();
            let job = fetch::job(format!("https://example.org/{page}"));
            tickets.push(tokio::task::spawn_blocking(move || manager.enqueue(job)).await??);
        }
        Ok::<_, Box<dyn std::error::Error>>(tickets)
    })?;
    for ticket in tickets {
        ticket.wait(Duration::from_secs(20))?;
    }
    working.stop();
    Ok(())
}
