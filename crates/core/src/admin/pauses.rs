//! Queues and abilities whose jobs wait because an operator wants it so.

use std::sync::Arc;

use crate::database::Database;
use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::driver::{Order, Part, Pause};
use crate::error::Error;
use crate::names::check_name;

/// A longer reason is cut: MySQL has 200 characters for it.
const MAX_REASON: usize = 200;

/// Stores an order for a part, or takes it back, in one database or in all.
pub(crate) fn order(
    databases: &Databases,
    part: &Part,
    reason: Option<&str>,
    database: Option<&str>,
) -> Result<Vec<PerDatabase<()>>, Error> {
    check_name(part.kind(), part.name())?;
    let on = reason.is_some();
    let reason = reason.unwrap_or_default();
    let reason: String = reason.chars().filter(|one| !one.is_control()).take(MAX_REASON).collect();
    let all = match database {
        Some(name) => vec![databases.find(name)?],
        None => databases.all().to_vec(),
    };
    let answer = |database: &Arc<Database>| PerDatabase {
        database: database.name.to_string(),
        answer: database.order(Order::PausedPart(part.clone(), reason.clone()), on),
    };
    Ok(all.iter().map(answer).collect())
}

/// What is paused.
pub(crate) fn pauses(databases: &Databases) -> Vec<PerDatabase<Vec<Pause>>> {
    databases.on_each("read the orders", |driver| {
        Ok(driver.control()?.pauses.map_or_else(Vec::new, |all| all.to_vec()))
    })
}
