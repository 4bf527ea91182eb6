//! Orders for one worker process.

use std::sync::Arc;

use crate::database::Database;
use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::driver::{Order, WorkerId, WorkerOrder};
use crate::error::Error;

/// Stores an order for a worker process in each database that it works, or takes it back. An answer tells whether the database knows the worker.
/// Orders for processes that have ended go with the next one that is stored.
pub(crate) fn order(
    databases: &Databases,
    worker: WorkerId,
    order: WorkerOrder,
    on: bool,
) -> Vec<PerDatabase<bool>> {
    let all = databases.all();
    let answer = |database: &Arc<Database>| PerDatabase {
        database: database.name.to_string(),
        answer: order_in(database, worker, order, on),
    };
    all.iter().map(answer).collect()
}

fn order_in(
    database: &Arc<Database>,
    worker: WorkerId,
    order: WorkerOrder,
    on: bool,
) -> Result<bool, Error> {
    let ask = |driver: &dyn crate::driver::Driver| {
        let workers = driver.workers()?.into_iter().map(|one| one.info.id).collect::<Vec<_>>();
        Ok((workers, driver.control()?))
    };
    let (workers, control) = database.call("look for a worker process", ask)?;
    let known = workers.contains(&worker);
    for (other, order) in control.workers.iter().flat_map(|all| all.iter()) {
        if !workers.contains(other) {
            database.order(Order::Worker(*other, *order), false)?;
        }
    }
    if known {
        database.order(Order::Worker(worker, order), on)?;
    }
    Ok(known)
}
