//! Reports of the databases; the set of them, which may change while the manager works.

use std::sync::Arc;

use crate::database::asked::Asked;
use crate::database::data_source::DataSource;
use crate::database::open::open;
use crate::database::schema::check_schema;
use crate::database::set::Databases;
use crate::database::{Database, DatabaseReport};
use crate::error::Error;
use crate::session::shutdown::remove_lane;
use crate::session::start::add_lane;
use crate::session::work::AtWork;

/// Depths are counted up to this: asking costs the same for a million jobs as for this many.
const DEPTH_BOUND: u64 = 10_000;

/// All databases, the spool included, with how many jobs each holds.
pub(crate) fn reports(databases: &Databases) -> Vec<DatabaseReport> {
    let asked: Vec<_> = databases
        .everywhere()
        .into_iter()
        .map(|database| {
            let depth = database.begin("count jobs", |driver| driver.depth(DEPTH_BOUND));
            (database, depth)
        })
        .collect();
    let report = |(database, depth): (Arc<Database>, Asked<_>)| {
        let depth = depth.wait().ok();
        DatabaseReport { depth, ..database.report() }
    };
    asked.into_iter().map(report).collect()
}

/// Takes a database into use, in the session too if there is one.
pub(crate) fn add(
    databases: &Databases,
    at_work: &AtWork,
    source: DataSource,
) -> Result<(), Error> {
    let database = open(source, &databases.settings)?;
    if let Err(error) = check_schema(&database)
        && !error.is_down()
    {
        return Err(error);
    }
    // Whoever works is looked for while the set cannot change: a session that starts meanwhile makes the lane itself.
    databases.add(&database, || {
        at_work.session().map_or(Ok(()), |session| add_lane(&session, &database))
    })
}

/// Takes a database out of use, and waits for what runs there.
pub(crate) fn remove(databases: &Databases, at_work: &AtWork, name: &str) -> Result<(), Error> {
    let removed = databases.take_out(name)?;
    if let Some(session) = at_work.session() {
        remove_lane(&session, &removed);
    }
    removed.remove();
    Ok(())
}
