use std::process::ExitCode;
use std::time::Duration;

use qudo::Manager;
use qudo::admin::{Ailment, HealthLimits};
use serde_json::json;

use crate::output::say;
use crate::sources::Databases;
use crate::spans::{seconds, timeout};

/// What counts as healthy.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// How many seconds a database has to answer.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = timeout)]
    timeout: Duration,
    /// For how many seconds a job may be ready, since it was enqueued, due or put back.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    oldest_ready: Option<Duration>,
    /// How many jobs may be ready in one database, up to 9,999.
    #[arg(long, value_name = "JOBS", value_parser = clap::value_parser!(u64).range(0..10_000))]
    ready: Option<u64>,
    /// For how many seconds a lease may be over that nobody took back.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    lease_overdue: Duration,
    /// Do not look at worker processes.
    #[arg(long)]
    without_workers: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Tells what is not as it should be; 0 when all is, 1 when something is not, 2 when a database did not answer.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let mut limits = HealthLimits::default();
    limits.within = arguments.timeout;
    limits.oldest_ready = arguments.oldest_ready;
    limits.ready = arguments.ready;
    limits.lease_overdue = Some(arguments.lease_overdue);
    limits.workers = !arguments.without_workers;
    let health = manager.health(&limits);
    let ailments = || health.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)));
    if arguments.json {
        let all: Vec<_> = ailments()
            .map(|(database, one)| {
                json!({ "database": database, "ailment": one.as_str(), "text": one.to_string() })
            })
            .collect();
        say(&json!({ "healthy": all.is_empty(), "ailments": all }).to_string());
    } else {
        for (database, one) in ailments() {
            say(&format!("{database}: {one}"));
        }
        if ailments().next().is_none() {
            say("healthy");
        }
    }
    let no_answer = ailments().any(|(_, one)| matches!(one, Ailment::NoAnswer(_)));
    match (no_answer, ailments().next()) {
        (true, _) => ExitCode::from(2),
        (false, Some(_)) => ExitCode::FAILURE,
        (false, None) => ExitCode::SUCCESS,
    }
}
