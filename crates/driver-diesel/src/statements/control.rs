use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Bounded, Control, Depth, Order, Pause};
use uuid::Uuid;

use super::lookup::instant;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

struct Row {
    name: String,
    value: Option<String>,
    changed_at: i64,
}

impl FromRow for Row {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { name: columns.text()?, value: columns.opt_text()?, changed_at: columns.big()? })
    }
}

/// The orders, of which a row means yes, and the database's own id.
pub(crate) fn control<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Control> {
    let sql = "SELECT name, value, changed_at FROM qudo_control ORDER BY name";
    let rows: Vec<Row> = conn.rows(sql, &[])?;
    let mut control = Control::default();
    let (mut pauses, mut workers) = (Vec::new(), Vec::new());
    for Row { name, value, changed_at } in rows {
        match &*name {
            IDENTITY => control.identity = value.and_then(|text| Uuid::parse_str(&text).ok()),
            name if name == Order::Draining.name() => control.draining = true,
            name if name == Order::Paused.name() => control.paused = true,
            name => match (Order::part_of(name), Order::worker_of(name)) {
                (Some(part), _) => {
                    pauses.push(Pause::new(part, value.unwrap_or_default(), instant(changed_at)));
                }
                (None, Some(order)) => workers.push(order),
                // An order of a later version is not known here.
                (None, None) => {}
            },
        }
    }
    control.pauses = (!pauses.is_empty()).then(|| pauses.into());
    control.workers = (!workers.is_empty()).then(|| workers.into());
    Ok(control)
}

/// The row with the database's own id.
const IDENTITY: &str = "identity";

/// Stores an order or removes it; twice is the same as once. The reason of a pause is that of the last order.
///
/// Locking: the row of the order, by its key.
pub(crate) fn set_control<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    order: &Order,
    on: bool,
) -> QueryResult<()> {
    let (name, reason) = (
        order.name(),
        match order {
            Order::PausedPart(_, reason) => Some(&**reason),
            _ => None,
        },
    );
    if !on || reason.is_some() {
        conn.run("DELETE FROM qudo_control WHERE name = ?", &[Bind::Text(&name)])?;
    }
    if !on {
        return Ok(());
    }
    let (words, tail) = E::INSERT_IGNORE;
    let now = E::NOW;
    let sql =
        format!("{words} INTO qudo_control (name, value, changed_at) VALUES (?, ?, {now}){tail}");
    conn.run(&sql, &[Bind::Text(&name), Bind::OptText(reason)]).map(drop)
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
