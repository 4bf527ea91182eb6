//! A plugin: an object that the manager builds once from options, and abilities share. Ends by
//! itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qudo::plugin::Plugin;
use qudo::{Job, JobResult, Manager};
use serde::Deserialize;

/// Sends mail through a relay; here it only counts.
struct Mailer {
    relay: String,
    sent: AtomicUsize,
}

#[derive(Deserialize)]
struct MailerOptions {
    relay: String,
}

impl Plugin for Mailer {
    const NAME: &'static str = "mailer";
    type Options = MailerOptions;

    fn build(options: MailerOptions) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        if options.relay.is_empty() {
            return Err("the relay has no name".into());
        }
        Ok(Self { relay: options.relay, sent: AtomicUsize::new(0) })
    }
}

qudo::plugin::register_plugin!(Mailer);

#[qudo::ability(max_retries = 3)]
fn mail(job: &Job, to: String) -> JobResult<usize> {
    let mailer = job.plugin::<Mailer>()?;
    println!("mail to {to} through {}", mailer.relay);
    Ok(mailer.sent.fetch_add(1, Ordering::Relaxed) + 1)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The options may come from any configuration that serde reads.
    let options = serde_json::json!({"relay": "mx1.example.org"});
    let manager =
        Manager::builder().database("memory:plugin").plugin_options("mailer", options).build()?;
    manager.enqueue(mail::job("eve@example.org".to_owned()))?;
    let second = manager.enqueue(mail::job("bob@example.org".to_owned()))?;
    while manager.work_once()?.is_some() {}
    println!("{} mails were sent", second.wait(Duration::ZERO)?);
    Ok(())
}
