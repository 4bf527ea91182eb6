//! Lists: what is asked, the pages, and what they do not have.

use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::{Cursor, Filter, Filtered, Listing, Paging};
use serde_json::{Value, json};

use crate::output::{print_rows, say};
use crate::sources::Databases;
use crate::{Failure, with_causes};

/// The filter language, at the end of the long help.
pub(crate) const LANGUAGE: &str = "\
Filters:
  Terms side by side all hold. A term is a field, an operator and a value without spaces between them.
    ability:mail,sms   one of these; * stands for any characters: queue:gl.*
    ability!=mail      none of these
    error~timeout      has this part, in small or capital letters
    attempt>=3         <, <=, >, >= for numbers, times and spans of time
    age>1h30m          spans: ms, s, m, h, d, w
    failed>2026-11-27  times: 2026-11, 2026-11-27, 2026-11-27T10:05, now; in UTC
    meta.tenant=7      a value of the metadata; arg.user.name:Bob of the argument
    key:*              has one; NOT key:* has none
  NOT, AND, OR and parentheses put terms together. Values with spaces stand in quotes: 'error~\"no space left\"'.
  Fields of jobs: id ability queue state db key priority attempt codec due enqueued age worker tag meta.NAME arg.NAME
  Fields of failures: id exception ability queue db key priority attempt codec failed age worker version kind error
    discarded redriven tag meta.NAME arg.NAME
  Fields of runs: id ability db key attempt status enqueued started finished age took error
Exit codes:
  0 all databases answered; 2 one did not, or the command line is wrong.";

/// Which rows a list shows, and how many.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArguments {
    /// Terms that all hold, such as `ability:mail queue:gl.* age>10m NOT tag:eu`; without one, every row. `--help`
    /// has the language.
    filter: Vec<String>,
    /// How many rows of each database at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Goes on behind a page, with the cursor that it gave.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<Cursor>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

impl ListArguments {
    /// The filter, whose databases the manager must have.
    pub(crate) fn filter<R: Filtered>(&self, manager: &Manager) -> Result<Filter<R>, Failure> {
        parse(&self.filter, manager)
    }

    pub(crate) fn paging(&self) -> Paging {
        let paging = Paging::default().limit(self.limit).without_arguments();
        self.after.iter().cloned().fold(paging, Paging::after)
    }
}

/// A filter out of the words of a command line.
pub(crate) fn parse<R: Filtered>(
    words: &[String],
    manager: &Manager,
) -> Result<Filter<R>, Failure> {
    // A word with a space is a part of its own: `db:one "state:ready OR state:running"`.
    let part = |word: &String| {
        if word.trim().contains(char::is_whitespace) { format!("({word})") } else { word.clone() }
    };
    let words: Vec<_> = words.iter().map(part).collect();
    let filter: Filter<R> = words
        .join(" ")
        .parse()
        .map_err(|error: qudo::admin::FilterError| Failure::Usage(error.to_string()))?;
    let known = manager.database_names();
    for name in filter.databases().unwrap_or_default() {
        if !known.contains(&name) {
            let known = known.join(", ");
            return Err(Failure::Usage(format!(
                "no database is called {name:?}; there are: {known}"
            )));
        }
    }
    Ok(filter)
}

/// How a list shows its rows.
pub(crate) struct Shape<R> {
    pub(crate) head: &'static [&'static str],
    pub(crate) cells: fn(&R) -> Vec<String>,
    pub(crate) json: fn(&R) -> Value,
}

/// Prints a list; 0 when all databases answered, 2 when one did not.
pub(crate) fn print<R>(listing: &Listing<R>, as_json: bool, shape: &Shape<R>) -> ExitCode {
    if as_json {
        say(&to_json(listing, shape).to_string());
    } else {
        let head: Vec<_> = ["DATABASE"].iter().chain(shape.head).copied().collect();
        print_rows(
            &head,
            listing.rows().map(|(database, row)| {
                let mut cells = vec![database.to_owned()];
                cells.extend((shape.cells)(row));
                cells
            }),
        );
        tell(listing);
    }
    let mut complete = true;
    for (_, error) in listing.errors() {
        complete = false;
        if !as_json {
            eprintln!("qudo: {}", with_causes(error));
        }
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// What the rows do not say, for people.
fn tell<R>(listing: &Listing<R>) {
    for on in &listing.pages {
        let Ok(page) = &on.answer else { continue };
        if let Some(about) = page.about {
            eprintln!("{}: searched {} of about {about} rows", on.database, page.searched);
        }
        if page.unreadable > 0 {
            eprintln!(
                "{}: {} rows hang on arguments that cannot be read here",
                on.database, page.unreadable
            );
        }
    }
    if let Some(next) = &listing.next {
        // Names of queues may have quotes.
        let next = next.to_string().replace('\'', "'\\''");
        eprintln!("there is more: --after '{next}'");
    }
}

fn to_json<R>(listing: &Listing<R>, shape: &Shape<R>) -> Value {
    let rows = listing.rows().map(|(database, row)| {
        let mut row = (shape.json)(row);
        if let Value::Object(fields) = &mut row {
            fields.insert("database".to_owned(), json!(database));
        }
        row
    });
    let databases = listing.pages.iter().map(|on| match &on.answer {
        Ok(page) => json!({
            "database": on.database,
            "searched": page.searched,
            "about": page.about,
            "unreadable": page.unreadable,
            "more": page.more,
        }),
        Err(error) => json!({ "database": on.database, "error": with_causes(error) }),
    });
    json!({
        "rows": rows.collect::<Vec<_>>(),
        "databases": databases.collect::<Vec<_>>(),
        "next": listing.next.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use qudo::admin::{Exception, JobInfo, StatusRow, fields};

    use super::LANGUAGE;

    #[test]
    fn the_help_names_every_field_of_every_list() {
        let of = |list: &str| {
            let from = LANGUAGE.find(list).expect("is in the help") + list.len();
            let text = &LANGUAGE[from..];
            let end = text.find("Fields of").or_else(|| text.find("Exit codes")).expect("goes on");
            text[..end].split_whitespace().collect::<Vec<_>>()
        };
        for (told, has) in [
            (of("Fields of jobs:"), fields::<JobInfo>()),
            (of("Fields of failures:"), fields::<Exception>()),
            (of("Fields of runs:"), fields::<StatusRow>()),
        ] {
            for name in &has {
                let named = |word: &&str| word == name || word.strip_suffix(".NAME") == Some(name);
                assert!(told.iter().any(named), "{name} is not in the help: {told:?}");
            }
            assert_eq!(told.len(), has.len(), "{told:?}");
        }
    }
}
