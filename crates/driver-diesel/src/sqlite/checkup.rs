use diesel::SqliteConnection;
use diesel::result::QueryResult;
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
