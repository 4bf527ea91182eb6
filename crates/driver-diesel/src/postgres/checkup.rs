use diesel::PgConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{About, Remark};

use super::Postgres;
use crate::checkup::setting;
use crate::engine::Engine;
use crate::sql::{Bind, Sql};

/// Settings with which a commit may be lost, and what they should be.
const DURABLE: [(&str, &str); 3] =
    [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")];

/// What an operator should know of the settings, and which functions are missing.
pub(super) fn checkup(conn: &mut Sql<'_, PgConnection>) -> QueryResult<Vec<Remark>> {
    let mut remarks = Vec::new();
    for (name, wanted) in DURABLE {
        let is = setting(conn, "SELECT current_setting(?)", &[Bind::Text(name)])?;
        // What waits for standbys too is no less.
        let stronger = name == "synchronous_commit"
            && ["remote_apply", "remote_write", "local"].contains(&&*is);
        if is != wanted && !stronger {
            let text = format!(
                "{name} is {is}: what is committed may be lost in a crash; set it to {wanted}"
            );
            remarks.push(Remark::new(About::Durability, text));
        }
    }
    for step in Postgres::migrations() {
        for line in step.up.lines() {
            let Some(rest) = line.strip_prefix("CREATE FUNCTION ") else { continue };
            let name = rest.split('(').next().unwrap_or_default();
            let sql = format!("SELECT CAST(to_regproc('{name}') AS TEXT)");
            if setting(conn, &sql, &[])?.is_empty() {
                remarks.push(Remark::new(About::Tables, format!("the function {name} is missing")));
            }
        }
    }
    Ok(remarks)
}
