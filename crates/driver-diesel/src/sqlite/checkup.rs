use diesel::SqliteConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{About, Remark};

use super::Sqlite;
use crate::engine::Engine;
use crate::sql::{Bind, Sql};

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
    let sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name NOT IN (?, ?) \
               AND (instr(sql, ?) OR instr(sql, ?)) LIMIT 20";
    let [view_bind, ours_bind] = [&view, &ours].map(|name| Bind::Text(name));
    let names = conn.rows::<String>(sql, &[view_bind, ours_bind, view_bind, ours_bind])?;
    if names.is_empty() {
        return Ok(());
    }
    let text = format!("triggers enqueue into {view}: {}; drop them first", names.join(", "));
    Err(Error::QueryBuilderError(text.into()))
}
