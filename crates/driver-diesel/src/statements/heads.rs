//! What waits at the heads of the queues.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::Head;

use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

struct Ability(String, i64);

impl FromRow for Ability {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.big()?))
    }
}

/// The abilities of the first ready jobs of each queue, in the order of the claim. From queue to queue the index is
/// entered anew: `DISTINCT` would read all of it.
///
/// Locking: none. Dead rows at the start of a queue are stepped over, so whoever asks asks seldom.
pub(crate) fn heads<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    queues: u32,
    rows: u32,
) -> QueryResult<Vec<Head>> {
    let (mut heads, mut queue) = (Vec::new(), String::new());
    for _ in 0..queues {
        let next = "SELECT queue FROM qudo_ready WHERE queue > ? ORDER BY queue LIMIT 1";
        match conn.row::<String>(next, &[Bind::Text(&queue)])? {
            Some(next) => queue = next,
            None => break,
        }
        let first = "SELECT ability, COUNT(*) FROM (SELECT ability FROM qudo_ready WHERE queue = ? \
                     ORDER BY queue, claim_rank, id LIMIT ?) AS head GROUP BY ability ORDER BY ability";
        let binds = [Bind::Text(&queue), Bind::Big(rows.into())];
        let all = conn.rows::<Ability>(first, &binds)?.into_iter();
        heads.extend(
            all.map(|Ability(ability, count)| Head::new(&*queue, ability, count.unsigned_abs())),
        );
    }
    Ok(heads)
}
