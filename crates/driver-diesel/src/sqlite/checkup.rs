use diesel::SqliteConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{About, Remark};

use super::Sqlite;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Which views and triggers are missing.
pub(super) fn checkup(conn: &mut Sql<'_, SqliteConnection>) -> QueryResult<Vec<Remark>> {
    let mut remarks = Vec::new();
    for line in Sqlite::migrations().iter().flat_map(|step| step.up.lines()) {
        let made = line.strip_prefix("CREATE ").and_then(|rest| rest.split_once(' '));
        let Some((kind @ ("VIEW" | "TRIGGER"), rest)) = made else { continue };
        let name = rest.split_whitespace().next().unwrap_or_default();
        let name = conn.tables.render(name).into_owned();
        let kind = kind.to_lowercase();
        let there = "SELECT COUNT(*) FROM sqlite_master WHERE type = ? AND name = ?";
        if conn.row::<i64>(there, &[Bind::Text(&kind), Bind::Text(&name)])? != Some(1) {
            let text = format!("the {kind} {name} is missing");
            remarks.push(Remark::new(About::Tables, text));
        }
    }
    Ok(remarks)
}

/// Fails if a trigger of somebody's enqueues: without the view SQLite would refuse every change of a table in this file.
pub(super) fn refuse_callers(conn: &mut Sql<'_, SqliteConnection>) -> QueryResult<()> {
    let view = conn.tables.render("qudo_enqueue").into_owned();
    let ours = conn.tables.render("qudo_store_1").into_owned();
    let sql = "SELECT name, lower(sql) FROM sqlite_master WHERE type = 'trigger' AND tbl_name NOT IN (?, ?)";
    let triggers = conn.rows::<Trigger>(sql, &[Bind::Text(&view), Bind::Text(&ours)])?;
    let calls = |trigger: &Trigger| [&view, &ours].iter().any(|name| has_word(&trigger.sql, name));
    let names: Vec<_> =
        triggers.into_iter().filter(calls).map(|trigger| trigger.name).take(20).collect();
    if names.is_empty() {
        return Ok(());
    }
    let text = format!("triggers enqueue into {view}: {}; drop them first", names.join(", "));
    Err(Error::QueryBuilderError(text.into()))
}

struct Trigger {
    name: String,
    sql: String,
}

impl FromRow for Trigger {
    fn from_row(columns: &mut dyn Columns) -> diesel::deserialize::Result<Self> {
        Ok(Self { name: columns.text()?, sql: columns.text()? })
    }
}

/// Whether a text has this word, which is no part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |one: char| one.is_alphanumeric() || one == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}
