//! Arguments that only workers can read, and the rotation of their keys. Ends by itself.

use std::time::Duration;

use qudo::admin::{JobFilter, Paging};
use qudo::codec::{Encrypted, Json};
use qudo::{JobResult, Manager};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Transfer {
    iban: String,
    cents: u64,
}

#[qudo::ability(codec = "json+aead")]
fn transfer(order: Transfer) -> JobResult<u64> {
    Ok(order.cents + order.iban.len() as u64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let dsn = format!("sqlite:{}", directory.path().join("bank.db").display());
    // Keys come from where secrets are kept, 32 bytes from a cryptographic source each.
    let (old, new) = ([1; 32], [2; 32]);
    let before = Encrypted::over(Json).key("2025", old);
    let manager = Manager::builder().database(&dsn).codec(before).build()?;
    manager.migrate()?;
    let order = Transfer { iban: "NL00QUDO0123456789".to_owned(), cents: 99_500 };
    let sent = manager.enqueue(transfer::job(order))?;
    for on in manager.jobs(&JobFilter::all(), &Paging::default()) {
        for job in on.answer? {
            let readable = String::from_utf8_lossy(&job.facts.arg).contains("NL00");
            println!(
                "{} as {}: readable in the tables: {readable}",
                job.facts.ability, job.facts.codec
            );
        }
    }

    // The key is rotated while the job waits: workers know both, new jobs take the last.
    let rotated = Encrypted::over(Json).key("2025", old).key("2026", new);
    let worker = Manager::builder().database(&dsn).codec(rotated).build()?;
    worker.work_once()?;
    let ticket = worker.ticket(sent.id().ok_or("not stored")?);
    println!("the reply, encrypted too: {}", ticket.wait_as::<u64>(Duration::from_secs(5))?);
    Ok(())
}
