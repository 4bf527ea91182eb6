use std::sync::Arc;

use crate::database::set::Databases;
use crate::database::transfer::{Move, MoveReport};
use crate::error::Error;

/// Moves the waiting jobs of one database to another.
pub(crate) fn move_jobs(databases: &Databases, from: &str, to: &str) -> Result<MoveReport, Error> {
    let (from, to) = (databases.find(from)?, databases.find(to)?);
    if Arc::ptr_eq(&from, &to) {
        let reason = format!("the jobs are to go from {:?} to {:?}", &*from.name, &*to.name);
        return Err(Error::InvalidOption { option: "to", reason });
    }
    for database in databases.all().iter() {
        // Homes are chosen by the orders as far as they are known.
        if let Err(error) = database.orders() {
            log::debug!("database {:?} does not tell its orders: {error}", &*database.name);
        }
    }
    let done = Move::new(databases, &from, &to)?.run()?;
    log::info!(
        "{} jobs moved from database {:?} to {:?}, {} stayed",
        done.moved,
        &*from.name,
        &*to.name,
        done.stayed
    );
    to.bell.ring();
    Ok(done)
}
