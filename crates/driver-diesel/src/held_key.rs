use diesel::result::QueryResult;
use uuid::Uuid;

use crate::sql::{Bind, Sql, SqlConn};

/// A key with the job that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldKey<'a> {
    pub(crate) ability: &'a str,
    pub(crate) uniqkey: &'a str,
    pub(crate) id: &'a Uuid,
}

/// One by one: for an engine where a statement is no round trip.
pub(crate) fn free_each<C: SqlConn>(
    conn: &mut Sql<'_, C>,
    keys: &[HeldKey<'_>],
) -> QueryResult<usize> {
    keys.iter().map(|key| free_key(conn, key)).sum()
}

/// Removes the row of this key, if this job holds it.
pub(crate) fn free_key<C: SqlConn>(conn: &mut Sql<'_, C>, key: &HeldKey<'_>) -> QueryResult<usize> {
    let sql = "DELETE FROM qudo_unique WHERE ability = ? AND uniqkey = ? AND id = ?";
    conn.run(sql, &[Bind::Text(key.ability), Bind::Text(key.uniqkey), Bind::Id(key.id)])
}
