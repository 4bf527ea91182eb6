//! Lists of ids as one bind: a JSON array that `JSON_TABLE` turns into rows.
//!
//! A list in `IN (..)` leaves the plan to the optimizer. For a few hundred ids in a table or queue
//! of a few thousand rows, MySQL and MariaDB read it all rather than look up each id, and a
//! statement that locks then waits for every row on its way: those that other workers claim. One
//! such statement was seen to wait for a minute while its transaction held up everybody else. Joined
//! from a list on the left, and held to the index, every row is found by its whole key, whatever the
//! statistics say: without the hint a table of a few rows is read through all the same. It is also one
//! prepared statement for any number of ids, and one bind.

use diesel::MysqlConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::held_key::HeldKey;
use crate::sql::{Bind, FromRow, Sql};

/// Rows `v` with the column `hex`.
const IDS: &str = "JSON_TABLE(?, '$[*]' COLUMNS (hex CHAR(32) PATH '$')) v";

/// The same for a statement that locks the rows joined to it. MySQL takes a table function for locked
/// already and refuses a second lock on it, unless a subquery hides it (error 3569).
const IDS_HIDDEN: &str =
    "(SELECT hex FROM JSON_TABLE(?, '$[*]' COLUMNS (hex CHAR(32) PATH '$')) j) v";

/// Rows `v` with the columns `number` and `hex`.
pub(super) const NUMBERED: &str =
    "JSON_TABLE(?, '$[*]' COLUMNS (number BIGINT PATH '$[0]', hex CHAR(32) PATH '$[1]')) v";

/// Longer lists gain nothing, and a packet has a largest size.
const MAX_LEN: usize = 4_096;

fn ids_json(ids: &[Uuid]) -> String {
    let mut text = String::with_capacity(ids.len() * 35 + 2);
    for (place, id) in ids.iter().enumerate() {
        text.push_str(if place == 0 { "[\"" } else { "\",\"" });
        push_hex(&mut text, id);
    }
    text.push_str(if ids.is_empty() { "[]" } else { "\"]" });
    text
}

/// The list that [`NUMBERED`] reads.
pub(super) fn numbered_json(rows: impl Iterator<Item = (i64, Uuid)>) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("[");
    for (number, id) in rows {
        let comma = if text.len() > 1 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}[{number},\"");
        push_hex(&mut text, &id);
        text.push_str("\"]");
    }
    text.push(']');
    text
}

fn push_hex(text: &mut String, id: &Uuid) {
    text.push_str(id.simple().encode_lower(&mut Uuid::encode_buffer()));
}

/// The index that begins with the id.
fn index(table: &str) -> &'static str {
    if table == "qudo_scheduled" { "ix_qudo_scheduled_id" } else { "PRIMARY" }
}

fn and(only: &str) -> String {
    if only.is_empty() { String::new() } else { format!(" WHERE {only}") }
}

/// As [`Engine::rows_by_id`](crate::engine::Engine::rows_by_id).
pub(super) fn rows_by_id<T: FromRow>(
    conn: &mut Sql<'_, MysqlConnection>,
    columns: &str,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
    lock: &str,
) -> QueryResult<Vec<T>> {
    let Keyed { table, key, only, .. } = keyed;
    let (index, list) = (index(table), if lock.is_empty() { IDS } else { IDS_HIDDEN });
    let sql = format!(
        "SELECT {columns} FROM {list} STRAIGHT_JOIN {table} x FORCE INDEX ({index}) ON x.{key} = UNHEX(v.hex){}{lock}",
        and(only)
    );
    let mut rows = Vec::with_capacity(ids.len());
    for piece in ids.chunks(MAX_LEN) {
        rows.extend(conn.rows::<T>(&sql, &binds(&ids_json(piece), keyed))?);
    }
    Ok(rows)
}

/// As [`Engine::delete_by_id`](crate::engine::Engine::delete_by_id).
pub(super) fn delete_by_id(
    conn: &mut Sql<'_, MysqlConnection>,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let Keyed { table, key, only, .. } = keyed;
    let index = index(table);
    let sql = format!(
        "DELETE x FROM {IDS} STRAIGHT_JOIN {table} x FORCE INDEX ({index}) ON x.{key} = UNHEX(v.hex){}",
        and(only)
    );
    let mut done = 0;
    for piece in ids.chunks(MAX_LEN) {
        done += conn.run(&sql, &binds(&ids_json(piece), keyed))?;
    }
    Ok(done)
}

/// As [`Engine::update_by_id`](crate::engine::Engine::update_by_id).
pub(super) fn update_by_id(
    conn: &mut Sql<'_, MysqlConnection>,
    set: &str,
    set_binds: &[Bind<'_>],
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let Keyed { table, key, only, binds } = keyed;
    let index = index(table);
    let sql = format!(
        "UPDATE {IDS} STRAIGHT_JOIN {table} x FORCE INDEX ({index}) ON x.{key} = UNHEX(v.hex) SET {set}{}",
        and(only)
    );
    let mut done = 0;
    for piece in ids.chunks(MAX_LEN) {
        let json = ids_json(piece);
        let mut all = vec![Bind::Text(&json)];
        all.extend(set_binds.iter().chain(*binds).copied());
        done += conn.run(&sql, &all)?;
    }
    Ok(done)
}

fn binds<'b>(json: &'b str, keyed: &Keyed<'b>) -> Vec<Bind<'b>> {
    std::iter::once(Bind::Text(json)).chain(keyed.binds.iter().copied()).collect()
}

/// As [`Engine::free_keys`](crate::engine::Engine::free_keys). The ability is a bind and not part of the list,
/// because a text of `JSON_TABLE` has another collation than the column and would not be looked up in its index.
pub(super) fn free_keys(
    conn: &mut Sql<'_, MysqlConnection>,
    keys: &[HeldKey<'_>],
) -> QueryResult<usize> {
    let sql = "DELETE x FROM JSON_TABLE(?, '$[*]' COLUMNS (uniqkey VARCHAR(1000) PATH '$[0]', \
               hex CHAR(32) PATH '$[1]')) v STRAIGHT_JOIN qudo_unique x FORCE INDEX (PRIMARY) \
               ON x.ability = ? AND x.uniqkey = UNHEX(v.uniqkey) AND x.id = UNHEX(v.hex)";
    let mut done = 0;
    for of_one in keys.chunk_by(|one, next| one.ability == next.ability) {
        for piece in of_one.chunks(MAX_LEN) {
            let json = keys_json(piece);
            done += conn.run(sql, &[Bind::Text(&json), Bind::Text(piece[0].ability)])?;
        }
    }
    Ok(done)
}

/// Pairs of a key, which has at most 500 bytes, and an id.
fn keys_json(keys: &[HeldKey<'_>]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("[");
    for key in keys {
        text.push_str(if text.len() > 1 { ",[\"" } else { "[\"" });
        for byte in key.uniqkey.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("\",\"");
        push_hex(&mut text, key.id);
        text.push_str("\"]");
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_json_arrays_of_hex_digits() {
        let one = Uuid::from_u128(0xabc);
        assert_eq!(ids_json(&[]), "[]");
        assert_eq!(
            ids_json(&[Uuid::nil(), one]),
            "[\"00000000000000000000000000000000\",\"00000000000000000000000000000abc\"]"
        );
        assert_eq!(
            numbered_json([(-3, Uuid::nil()), (7, one)].into_iter()),
            "[[-3,\"00000000000000000000000000000000\"],[7,\"00000000000000000000000000000abc\"]]"
        );
        assert_eq!(numbered_json(std::iter::empty()), "[]");
        let key = |uniqkey| HeldKey { ability: "a", uniqkey, id: &one };
        let id = "00000000000000000000000000000abc";
        assert_eq!(
            keys_json(&[key("k\""), key("ä")]),
            format!("[[\"6b22\",\"{id}\"],[\"c3a4\",\"{id}\"]]")
        );
    }
}
