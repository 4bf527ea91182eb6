use std::process::ExitCode;

use qudo::admin::AuditOptions;
use qudo::driver::ErrorKind;
use qudo::{Error, Manager};
use serde_json::json;

use crate::output::say;
use crate::sources::Databases;
use crate::with_causes;

/// What is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// Leave the audit out, which reads through all live jobs.
    #[arg(long)]
    no_audit: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Whether a remark about this says already why the audit could not be made.
fn explains(about: &str, error: &Error) -> bool {
    let Error::Database { source, .. } = error else {
        return matches!((about, error), ("tables", Error::Schema { .. }));
    };
    matches!(
        (about, source.kind()),
        ("tables", ErrorKind::Schema) | ("rights", ErrorKind::Permission)
    )
}

/// Tells what an operator should know; 0 when there is nothing, 1 when there is something, 2 when a database could not be looked at.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for on in manager.checkup() {
        match on.answer {
            Ok(remarks) => found.extend(
                remarks.into_iter().map(|one| (on.database.clone(), one.about.as_str(), one.text)),
            ),
            Err(error) => errors.push((on.database, with_causes(&error))),
        }
    }
    if !arguments.no_audit {
        let report = manager.audit(AuditOptions::default());
        for finding in &report.findings {
            let text = format!("job {}: {}", finding.job, finding.flaw);
            found.push((finding.databases.join(", "), "audit", text));
        }
        for (database, error) in &report.failures {
            // Tables that are missing, or may not be read, were remarked on, and cannot be audited.
            let is_known = errors.iter().any(|(known, _)| known == database)
                || found.iter().any(|(of, about, _)| of == database && explains(about, error));
            if !is_known {
                errors.push((database.clone(), with_causes(error)));
            }
        }
    }
    if arguments.json {
        let remarks: Vec<_> = found
            .iter()
            .map(|(database, about, text)| json!({ "database": database, "about": about, "text": text }))
            .collect();
        let away: Vec<_> = errors
            .iter()
            .map(|(database, error)| json!({ "database": database, "error": error }))
            .collect();
        say(&json!({ "remarks": remarks, "databases": away }).to_string());
    } else {
        for (database, about, text) in &found {
            say(&format!("{database}: {about}: {text}"));
        }
        for (_, error) in &errors {
            eprintln!("qudo: {error}");
        }
        if found.is_empty() && errors.is_empty() {
            say("nothing to remark");
        }
    }
    match (errors.is_empty(), found.is_empty()) {
        (false, _) => ExitCode::from(2),
        (true, false) => ExitCode::FAILURE,
        (true, true) => ExitCode::SUCCESS,
    }
}
