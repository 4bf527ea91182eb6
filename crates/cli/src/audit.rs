use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::{AuditOptions, AuditReport};
use serde_json::json;

use crate::output::say;
use crate::sources::Databases;
use crate::with_causes;

/// What the command looks for and does.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// Put right what can be, under the locks that keep others away.
    #[arg(long)]
    repair: bool,
    /// Take a unique key that lives in two databases for allowed.
    #[arg(long)]
    keys_may_double: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Looks; 0 when all is as it should be, 1 when something is left wrong, 2 when a database could
/// not be looked at.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let options =
        AuditOptions::default().repair(arguments.repair).keys_may_double(arguments.keys_may_double);
    let report = manager.audit(options);
    let text = if arguments.json { as_json(&report).to_string() } else { report.to_string() };
    say(&text);
    if report.failures.is_empty() {
        ExitCode::from(u8::from(!report.is_clean()))
    } else {
        ExitCode::from(2)
    }
}

fn as_json(report: &AuditReport) -> serde_json::Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "databases": finding.databases,
                "job": finding.job.to_string(),
                "flaw": finding.flaw.as_str(),
                "text": finding.flaw.to_string(),
                "repaired": finding.repaired,
            })
        })
        .collect();
    let failures: Vec<_> = report
        .failures
        .iter()
        .map(|(database, error)| json!({ "database": database, "error": with_causes(error) }))
        .collect();
    json!({
        "jobs": report.jobs,
        "clean": report.is_clean(),
        "findings": findings,
        "failures": failures,
    })
}
