//! Unique keys: which live job holds which.

use std::collections::HashMap;

use diesel::deserialize;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::JobRecord;
use uuid::Uuid;

use crate::bulk::insert_rows;
use crate::engine::Engine;
use crate::held_key::{HeldKey, free_key};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// How often a unique key whose holder vanishes under our eyes is tried again.
const MAX_TRIES: usize = 5;

type Key<'a> = (&'a str, &'a str);

/// Lets go of the keys of jobs that are gone, in the order of the keys; a key that another job holds by now
/// stays. Returns how many were let go.
///
/// In the transaction that removes the job. On MySQL it waits for a transaction that met the key, because an
/// insert that finds its key taken leaves a lock there. A key that counts as free by itself once its job is gone
/// would not: but see docs/ARCHITECTURE.md, "Unique keys".
pub(crate) fn free_keys<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    mut keys: Vec<HeldKey<'_>>,
) -> QueryResult<usize> {
    keys.sort_unstable();
    match &keys[..] {
        [] => Ok(0),
        // Prepared once, and no list is made.
        [key] => free_key(conn, key),
        _ => E::free_keys(conn, &keys),
    }
}

/// Takes the unique keys of the jobs that have one; returns those held by others, by place.
///
/// The index decides, never a prior look: of two transactions that overlap, the second waits for
/// the first's row. Keys are taken in their order, so that two bulk inserts cannot deadlock.
pub(super) fn take_keys<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[(usize, &JobRecord)],
) -> QueryResult<HashMap<usize, Uuid>> {
    let mut wanted: Vec<(usize, Key<'_>, &Uuid)> = jobs
        .iter()
        .filter_map(|(place, job)| {
            Some((
                *place,
                (job.facts.ability.as_ref(), job.facts.uniqkey.as_deref()?),
                job.id.as_uuid(),
            ))
        })
        .collect();
    wanted.sort_by_key(|(place, key, _)| (*key, *place));
    let mut taken = HashMap::new();
    for _ in 0..MAX_TRIES {
        let rows: Vec<_> = wanted
            .iter()
            .map(|(_, (ability, key), id)| vec![Bind::Text(ability), Bind::Text(key), Bind::Id(id)])
            .collect();
        let (words, tail) = E::INSERT_IGNORE;
        let head = format!("{words} INTO qudo_unique (ability, uniqkey, id) VALUES ");
        if insert_rows(conn, &head, "(?,?,?)", &rows, tail)? == wanted.len() {
            return Ok(taken);
        }
        let holders = holders::<E>(conn, &wanted)?;
        wanted.retain(|(place, (ability, key), id)| {
            match holders.get(&((*ability).to_owned(), (*key).to_owned())) {
                Some(holder) if holder == *id => false,
                Some(holder) => {
                    taken.insert(*place, *holder);
                    false
                }
                // The holder ended between the insert and the look: the key is free again.
                None => true,
            }
        });
        if wanted.is_empty() {
            return Ok(taken);
        }
    }
    Err(Error::QueryBuilderError("a unique key changed hands too often; try again".into()))
}

/// Takes one unique key if it is free; tells whether it was.
pub(super) fn take_key<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ability: &str,
    key: &str,
    id: &Uuid,
) -> QueryResult<bool> {
    let (words, tail) = E::INSERT_IGNORE;
    let sql = format!("{words} INTO qudo_unique (ability, uniqkey, id) VALUES (?,?,?){tail}");
    Ok(conn.run(&sql, &[Bind::Text(ability), Bind::Text(key), Bind::Id(id)])? > 0)
}

struct Holder(String, String, Uuid);

impl FromRow for Holder {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.text()?, columns.id()?))
    }
}

/// Who holds these keys now; in a caller's repeatable-read transaction also a holder that committed
/// after it began. The row must not be locked for good where that can be helped: the caller's
/// transaction may stay open for long, and the settle of the holder would wait for it.
fn holders<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    wanted: &[(usize, Key<'_>, &Uuid)],
) -> QueryResult<HashMap<(String, String), Uuid>> {
    let mut holders = HashMap::new();
    for piece in wanted.chunks(64) {
        let pairs = vec!["(ability = ? AND uniqkey = ?)"; piece.len()].join(" OR ");
        let sql =
            format!("SELECT ability, uniqkey, id FROM qudo_unique WHERE {pairs}{}", E::CURRENT);
        let binds: Vec<_> =
            piece.iter().flat_map(|(_, (a, k), _)| [Bind::Text(a), Bind::Text(k)]).collect();
        for Holder(ability, key, id) in conn.rows::<Holder>(&sql, &binds)? {
            holders.insert((ability, key), id);
        }
    }
    Ok(holders)
}
