//! `qudo wait`: what a job tells while it runs, and its reply.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use qudo::{Error, JobId, JsonValue, Manager, Progress, Update};
use serde_json::json;

use crate::output::say;
use crate::sources::Databases;
use crate::spans::span;
use crate::with_causes;

/// Which job is waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The id of the job.
    job: JobId,
    /// How long to wait at most, such as `30s` or `2h`; as long as it takes by default.
    #[arg(long, value_parser = span)]
    limit: Option<Duration>,
    /// A JSON object for each thing that is told, and one for the end, instead of text.
    #[arg(long)]
    json: bool,
    /// Show what all attempts sent, not only the newest.
    #[arg(long)]
    all_attempts: bool,
    #[command(flatten)]
    databases: Databases,
}

/// The width of the bar.
const BAR: usize = 30;

/// The longest that anybody waits.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Arguments {
    pub(crate) fn databases(&self) -> &Databases {
        &self.databases
    }
}

/// Waits; 0 when the job completed, 1 when it failed, was cancelled or removed, or is not known, 2 when the limit is over or a
/// database did not answer.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let limit = arguments.limit.unwrap_or(FOR_EVER);
    let until = Instant::now() + limit;
    let ticket = manager.ticket(arguments.job);
    let mut bar = Bar { json: arguments.json, is_drawn: false };
    let mut updates = ticket.updates::<JsonValue>();
    if arguments.all_attempts {
        updates = updates.all_attempts();
    }
    loop {
        updates = updates.within(until.saturating_duration_since(Instant::now()));
        match updates.next() {
            None => break,
            Some(Ok(Update::Progress(progress))) => bar.show(&progress),
            Some(Ok(Update::Sent(sent))) => {
                bar.clear();
                if arguments.json {
                    let (job, at) = (sent.job.to_string(), sent.at.to_rfc3339());
                    say(&json!({
                        "sent": sent.value, "job": job, "attempt": sent.attempt,
                        "number": sent.number, "at": at,
                    })
                    .to_string());
                } else {
                    say(&sent.value.to_string());
                }
            }
            Some(Ok(_)) => {}
            // A value that this program cannot read; the next may be another.
            Some(Err(error @ Error::Codec { .. })) => {
                bar.clear();
                eprintln!("qudo: {}", with_causes(&error));
            }
            Some(Err(error)) => {
                bar.clear();
                return ended(&error, arguments.json);
            }
        }
    }
    bar.clear();
    let left = until.saturating_duration_since(Instant::now());
    match ticket.wait_as::<JsonValue>(left) {
        Ok(reply) => {
            if arguments.json {
                say(&json!({ "ended": "completed", "reply": reply }).to_string());
            } else if !reply.is_null() {
                say(&reply.to_string());
            }
            ExitCode::SUCCESS
        }
        Err(error @ Error::Codec { .. }) => {
            eprintln!("qudo: {}", with_causes(&error));
            ExitCode::SUCCESS
        }
        Err(error) => ended(&error, arguments.json),
    }
}

/// How it ended otherwise.
fn ended(error: &Error, as_json: bool) -> ExitCode {
    let (word, code) = match error {
        Error::JobFailed { .. } => ("failed", 1),
        Error::JobCancelled { .. } => ("cancelled", 1),
        Error::JobRemoved { .. } => ("removed", 1),
        Error::OutcomeUnknown { .. } => ("unknown", 1),
        Error::ReplyExpired { .. } => ("expired", 1),
        Error::WaitTimeout { .. } => ("waits", 2),
        _ => ("not known", 2),
    };
    if as_json {
        say(&json!({ "ended": word, "error": with_causes(error) }).to_string());
    } else {
        eprintln!("qudo: {}", with_causes(error));
    }
    ExitCode::from(code)
}

/// How far the job is: a bar on a terminal, a line for each change elsewhere. On the error output, so that the values can be
/// read by a program.
struct Bar {
    json: bool,
    is_drawn: bool,
}

impl Bar {
    fn show(&mut self, progress: &Progress) {
        if self.json {
            say(&progress_as_json(progress).to_string());
            return;
        }
        let text = text_of(progress);
        let mut out = stderr();
        // That nobody sees it ends nothing.
        let _gone = if out.is_terminal() {
            self.is_drawn = true;
            write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _gone = write!(stderr(), "\r\x1b[2K");
        }
    }
}

pub(crate) fn progress_as_json(progress: &Progress) -> JsonValue {
    json!({
        "done": progress.done, "total": progress.total, "note": progress.note,
        "attempt": progress.attempt, "at": progress.at.to_rfc3339(),
    })
}

pub(crate) fn text_of(progress: &Progress) -> String {
    let note = progress.note.as_deref().unwrap_or_default();
    // A note is the job's own text, and must not draw on the terminal.
    let note: String = note.chars().filter(|one| !one.is_control()).collect();
    let attempt =
        if progress.attempt > 1 { format!("attempt {} ", progress.attempt) } else { String::new() };
    let text = match (progress.fraction(), progress.total) {
        (Some(part), Some(total)) => {
            let full = (part * BAR as f64) as usize;
            let (full, rest) = ("#".repeat(full), ".".repeat(BAR - full));
            let percent = (part * 100.0) as u32;
            format!("{attempt}[{full}{rest}] {percent:>3}% {} of {total} {note}", progress.done)
        }
        _ => format!("{attempt}{} done {note}", progress.done),
    };
    text.trim_end().to_owned()
}
