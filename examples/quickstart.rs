//! Two abilities, a reply and a retry, on a SQLite file. Ends by itself.

use std::time::Duration;

use qudo::{Job, JobResult, Manager};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Thumbnail {
    path: String,
    width: u32,
}

/// The value is the reply to the client.
#[qudo::ability(queue = "images")]
fn thumbnail(_job: &Job, arg: Thumbnail) -> JobResult<u64> {
    println!("scaling {} to {} pixels", arg.path, arg.width);
    Ok(u64::from(arg.width) * 100)
}

/// Fails once: the second attempt comes after `retry_delay`.
#[qudo::ability(max_retries = 3, retry_delay = "100ms")]
fn send_mail(job: &Job, to: String) -> JobResult {
    if job.attempt() == 1 {
        return Err(qudo::JobError::fail("the mail server is busy"));
    }
    println!("mail to {to} sent at attempt {}", job.attempt());
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("quickstart.db");
    let manager = Manager::builder().database(format!("sqlite:{}", file.display())).build()?;
    manager.migrate()?;

    let cat = Thumbnail { path: "cat.jpg".to_owned(), width: 320 };
    let scaled = manager.enqueue(thumbnail::job(cat).priority(5).uniqkey("cat.jpg"))?;
    let mailed = manager.enqueue(send_mail::job("eve@example.org".to_owned()))?;

    // A service calls `manager.work()`, which runs until SIGTERM or SIGINT.
    let working = manager.start()?;
    let bytes: u64 = scaled.wait(Duration::from_secs(10))?;
    println!("the thumbnail takes {bytes} bytes");
    mailed.wait(Duration::from_secs(10))?;
    working.stop();
    Ok(())
}
