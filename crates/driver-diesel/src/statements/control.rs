use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Bounded, Control, ControlFlag, Depth};
use uuid::Uuid;

use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

struct Row(String, Option<String>);

impl FromRow for Row {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.opt_text()?))
    }
}

/// The orders, of which a row means yes, and the database's own id.
pub(crate) fn control<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Control> {
    let rows: Vec<Row> = conn.rows("SELECT name, value FROM qudo_control", &[])?;
    let has = |flag: ControlFlag| rows.iter().any(|row| row.0 == flag.as_str());
    let identity = rows.iter().find(|row| row.0 == IDENTITY).and_then(|row| row.1.as_deref());
    Ok(Control {
        draining: has(ControlFlag::Draining),
        paused: has(ControlFlag::Paused),
        identity: identity.and_then(|text| Uuid::parse_str(text).ok()),
    })
}

/// The row with the database's own id.
const IDENTITY: &str = "identity";

/// Stores an order or removes it; twice is the same as once.
pub(crate) fn set_control<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    flag: ControlFlag,
    on: bool,
) -> QueryResult<()> {
    let name = [Bind::Text(flag.as_str())];
    if !on {
        return conn.run("DELETE FROM qudo_control WHERE name = ?", &name).map(drop);
    }
    let (words, tail) = E::INSERT_IGNORE;
    let now = E::NOW;
    let sql = format!("{words} INTO qudo_control (name, changed_at) VALUES (?, {now}){tail}");
    conn.run(&sql, &name).map(drop)
}

/// The database's own id. Of two processes that make one at once, the first wins.
pub(crate) fn identity<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Uuid> {
    if let Some(known) = control::<E>(conn)?.identity {
        return Ok(known);
    }
    let (words, tail) = E::INSERT_IGNORE;
    let sql = format!(
        "{words} INTO qudo_control (name, value, changed_at) VALUES ('{IDENTITY}', ?, {}){tail}",
        E::NOW
    );
    let fresh = Uuid::now_v7();
    conn.run(&sql, &[Bind::Text(&fresh.to_string())])?;
    Ok(control::<E>(conn)?.identity.unwrap_or(fresh))
}

/// Counts the narrow tables, each up to the bound, along its primary key.
pub(crate) fn depth<E: Engine>(conn: &mut Sql<'_, E::Conn>, bound: u64) -> QueryResult<Depth> {
    let mut count = |rows: &str| -> QueryResult<Bounded> {
        let sql = format!("SELECT COUNT(*) FROM (SELECT id FROM {rows} LIMIT ?) bounded");
        let most = i64::try_from(bound).unwrap_or(i64::MAX).saturating_add(1);
        let counted = conn.row::<i64>(&sql, &[Bind::Big(most)])?.unwrap_or_default();
        Ok(Bounded::new(counted.unsigned_abs(), bound))
    };
    Ok(Depth::new(
        count("qudo_ready")?,
        count("qudo_scheduled")?,
        count("qudo_lease")?,
        // One that left is on its way until it surely arrived.
        count("qudo_moving WHERE leg IN ('leaving', 'arriving', 'left')")?,
    ))
}
