//! Rows found by a list of ids: one array instead of a parameter for each, so that a list of any length is
//! one statement and one plan.

use diesel::PgConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::held_key::HeldKey;
use crate::sql::Array;
use crate::sql::{Bind, FromRow, Sql};

/// Longer lists gain nothing.
const MAX_LEN: usize = 10_000;

fn condition(keyed: &Keyed<'_>) -> String {
    let and = if keyed.only.is_empty() { "" } else { " AND " };
    format!("{}{and}{} = ANY(?)", keyed.only, keyed.key)
}

/// As [`Engine::rows_by_id`](crate::engine::Engine::rows_by_id).
///
/// Locking: rows are locked in the order of the index, which is that of their ids.
pub(super) fn rows_by_id<T: FromRow>(
    conn: &mut Sql<'_, PgConnection>,
    columns: &str,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
    lock: &str,
) -> QueryResult<Vec<T>> {
    let sql = format!("SELECT {columns} FROM {} x WHERE {}{lock}", keyed.table, condition(keyed));
    let mut rows = Vec::with_capacity(ids.len());
    for piece in ids.chunks(MAX_LEN) {
        let piece = Array::Ids(piece.to_vec());
        let binds: Vec<_> = keyed.binds.iter().copied().chain([Bind::Array(&piece)]).collect();
        rows.extend(conn.rows::<T>(&sql, &binds)?);
    }
    Ok(rows)
}

/// As [`Engine::delete_by_id`](crate::engine::Engine::delete_by_id).
pub(super) fn delete_by_id(
    conn: &mut Sql<'_, PgConnection>,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let sql = format!("DELETE FROM {} WHERE {}", keyed.table, condition(keyed));
    let mut done = 0;
    for piece in ids.chunks(MAX_LEN) {
        let piece = Array::Ids(piece.to_vec());
        let binds: Vec<_> = keyed.binds.iter().copied().chain([Bind::Array(&piece)]).collect();
        done += conn.run(&sql, &binds)?;
    }
    Ok(done)
}

/// As [`Engine::update_by_id`](crate::engine::Engine::update_by_id).
pub(super) fn update_by_id(
    conn: &mut Sql<'_, PgConnection>,
    set: &str,
    set_binds: &[Bind<'_>],
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let sql = format!("UPDATE {} SET {set} WHERE {}", keyed.table, condition(keyed));
    let mut done = 0;
    for piece in ids.chunks(MAX_LEN) {
        let piece = Array::Ids(piece.to_vec());
        let before = set_binds.iter().chain(keyed.binds).copied();
        let binds: Vec<_> = before.chain([Bind::Array(&piece)]).collect();
        done += conn.run(&sql, &binds)?;
    }
    Ok(done)
}

/// As [`Engine::free_keys`](crate::engine::Engine::free_keys). `OFFSET 0` holds the planner to one look by the
/// whole key for each row of the list. Joined, a table that was empty at its last ANALYZE was read through once
/// for each of them: 1,000 keys among 20,000 took six seconds.
pub(super) fn free_keys(
    conn: &mut Sql<'_, PgConnection>,
    keys: &[HeldKey<'_>],
) -> QueryResult<usize> {
    let sql = "DELETE FROM qudo_unique WHERE ctid = ANY(ARRAY(SELECT u.ctid \
               FROM unnest(?::TEXT[], ?::TEXT[], ?::UUID[]) AS v (ability, uniqkey, id), \
               LATERAL (SELECT ctid, id FROM qudo_unique WHERE ability = v.ability \
               AND uniqkey = v.uniqkey OFFSET 0) u WHERE u.id = v.id))";
    let mut done = 0;
    for piece in keys.chunks(MAX_LEN) {
        let abilities = Array::Texts(piece.iter().map(|key| key.ability).collect());
        let uniqkeys = Array::Texts(piece.iter().map(|key| key.uniqkey).collect());
        let ids = Array::Ids(piece.iter().map(|key| *key.id).collect());
        done += conn.run(sql, &[&abilities, &uniqkeys, &ids].map(Bind::Array))?;
    }
    Ok(done)
}
