use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::{Exception, ExceptionFilter, FailureGroup, FailureGroups, PerDatabase};
use serde_json::{Value, json};

use crate::list::{ListArguments, print};
use crate::output::{print_rows, say};
use crate::shapes::{EXCEPTIONS, exception_as_json, time};
use crate::{Failure, with_causes};

/// So many failures are looked at to count them.
const SEARCH: u32 = 100_000;

/// What is shown of failures.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    list: ListArguments,
    /// The single failures, newest first, in the place of groups.
    #[arg(long)]
    each: bool,
}

impl Arguments {
    pub(crate) fn databases(&self) -> &crate::sources::Databases {
        &self.list.databases
    }
}

/// Shows groups of failures, or each of them; 0 when all databases answered, 2 when one did not.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let filter: ExceptionFilter = arguments.list.filter::<Exception>(manager)?;
    if arguments.each {
        let listing = manager.exceptions(&filter, &arguments.list.paging());
        return Ok(print(&listing, arguments.list.json, &EXCEPTIONS));
    }
    if arguments.list.after.is_some() {
        let reason = "groups have no pages: --after goes with --each";
        return Err(Failure::Usage(reason.to_owned()));
    }
    let mut answers = manager.failures(&filter, SEARCH);
    let mut hidden = 0;
    for answer in answers.iter_mut().filter_map(|on| on.answer.as_mut().ok()) {
        let shown = (arguments.list.limit as usize).min(answer.groups.len());
        hidden += answer.groups.split_off(shown).len();
    }
    if arguments.list.json {
        say(&to_json(&answers, hidden, &filter).to_string());
    } else {
        let head = [
            "DATABASE", "COUNT", "OPEN", "ABILITY", "KIND", "CLASS", "VERSION", "FIRST", "LAST",
            "SAMPLE",
        ];
        let rows = answers.iter().flat_map(|on| {
            let groups = on.answer.iter().flat_map(|answer| &answer.groups);
            groups.map(|group| cells(&on.database, group))
        });
        print_rows(&head, rows);
    }
    if hidden > 0 && !arguments.list.json {
        eprintln!("{hidden} more groups: --limit shows more");
    }
    let mut complete = true;
    for on in &answers {
        match &on.answer {
            Ok(answer) if !arguments.list.json => tell(&on.database, answer),
            Ok(_) => {}
            Err(error) => {
                complete = false;
                if !arguments.list.json {
                    eprintln!("qudo: {}", with_causes(error));
                }
            }
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

/// What the groups do not say, for people.
fn tell(database: &str, answer: &FailureGroups) {
    if answer.more {
        let about = answer.about.map_or_else(String::new, |about| format!(" of about {about}"));
        eprintln!("{database}: the newest {}{about} failures", answer.searched);
    }
    if answer.unreadable > 0 {
        eprintln!(
            "{database}: {} failures hang on arguments that cannot be read here",
            answer.unreadable
        );
    }
    if answer.ungrouped > 0 {
        eprintln!("{database}: {} failures are of more kinds than are counted", answer.ungrouped);
    }
}

fn cells(database: &str, group: &FailureGroup) -> Vec<String> {
    vec![
        database.to_owned(),
        group.count.to_string(),
        group.open.to_string(),
        group.ability.clone(),
        group.kind.as_str().to_owned(),
        group.class.clone().unwrap_or_default(),
        group.version.clone().unwrap_or_default(),
        time(group.first),
        time(group.last),
        group.sample.message.clone(),
    ]
}

/// What means the failures of a group in its database, among those that were asked for.
fn of_group(database: &str, group: &FailureGroup, asked: &ExceptionFilter) -> ExceptionFilter {
    let here = format!("db:{database:?}").parse();
    let here = here.unwrap_or_else(|_| ExceptionFilter::exception(group.sample.id));
    group.filter().and(here).and(asked.clone())
}

fn to_json(
    answers: &[PerDatabase<FailureGroups>],
    hidden: usize,
    asked: &ExceptionFilter,
) -> Value {
    let groups = answers.iter().flat_map(|on| {
        let groups = on.answer.iter().flat_map(|answer| &answer.groups);
        groups.map(|group| {
            json!({
                "database": on.database,
                "count": group.count,
                "open": group.open,
                "ability": group.ability,
                "kind": group.kind.as_str(),
                "class": group.class,
                "version": group.version,
                "first": group.first.to_rfc3339(),
                "last": group.last.to_rfc3339(),
                "filter": of_group(&on.database, group, asked).to_string(),
                "sample": exception_as_json(&group.sample),
            })
        })
    });
    let databases = answers.iter().map(|on| match &on.answer {
        Ok(answer) => json!({
            "database": on.database,
            "searched": answer.searched,
            "about": answer.about,
            "unreadable": answer.unreadable,
            "more": answer.more,
            "ungrouped": answer.ungrouped,
        }),
        Err(error) => json!({ "database": on.database, "error": with_causes(error) }),
    });
    json!({
        "groups": groups.collect::<Vec<_>>(),
        "hidden": hidden,
        "databases": databases.collect::<Vec<_>>(),
    })
}
