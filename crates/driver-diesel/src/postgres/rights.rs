//! Which right an account lacks: PostgreSQL names the table, and no more.

use diesel::PgConnection;
use diesel::result::{DatabaseErrorKind, Error};

use crate::sql::{Bind, Sql};
use crate::tables::Tables;

const DENIED: &str = "permission denied for table ";

/// Asks which of the rights on a table of ours this account lacks, in one text.
const LACKS: &str = "SELECT concat_ws(', ', \
     CASE WHEN NOT has_table_privilege(t, 'SELECT') THEN 'SELECT' END, \
     CASE WHEN NOT has_table_privilege(t, 'INSERT') THEN 'INSERT' END, \
     CASE WHEN NOT has_table_privilege(t, 'UPDATE') THEN 'UPDATE' END, \
     CASE WHEN NOT has_table_privilege(t, 'DELETE') THEN 'DELETE' END) \
     FROM (SELECT CAST(to_regclass(?) AS oid)) AS x (t)";

/// The table of ours that a statement was refused for.
pub(super) fn denied(error: &Error, tables: &Tables) -> Option<String> {
    let text = error.to_string();
    let table = text.split_once(DENIED)?.1.split_whitespace().next()?;
    tables.owns(table).then(|| match tables.schema() {
        Some(schema) => format!("\"{schema}\".{table}"),
        None => table.to_owned(),
    })
}

/// What the account lacks on this table, asked outside of the transaction that was refused.
pub(super) fn named(conn: &mut Sql<'_, PgConnection>, table: &str) -> Option<String> {
    let lacks = conn.row::<String>(LACKS, &[Bind::Text(table)]).ok()??;
    (!lacks.is_empty()).then_some(lacks)
}

/// The same error with what the account lacks, if that is known.
pub(super) fn with_what_lacks(error: Error, lacks: Option<String>) -> Error {
    let Some(lacks) = lacks else { return error };
    let message = format!("{error}; of its rights this account lacks {lacks}");
    Error::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message))
}
