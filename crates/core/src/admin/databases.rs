//! Reports of the databases; the set of them, which may change while the manager works.

use std::sync::Arc;

use crate::database::asked::Asked;
use crate::database::data_source::DataSource;
use crate::database::open::open;
use crate::database::schema::check_schema;
use crate::database::set::Databases;
use crate::database::{Database, DatabaseReport};
use crate::driver::{Control, Depth, Driver};
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
            let ask = |driver: &dyn Driver| Ok((driver.depth(DEPTH_BOUND)?, driver.control()?));
            let asked = database.begin("count jobs", ask);
            (database, asked)
        })
        .collect();
    let report = |(database, asked): (Arc<Database>, Asked<(Depth, Control)>)| {
        let told = asked.wait().ok();
        let report = database.report();
        let Some((depth, Control { draining, paused, .. })) = told else { return report };
        // As they are stored: a program that does not work may not have read them.
        DatabaseReport { depth: Some(depth), draining, paused, ..report }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ability::Ability;
    use crate::database::health::DatabaseState;
    use crate::driver::{DriverError, ErrorKind};
    use crate::fixture::{SOON, memory};
    use crate::job::Job;
    use crate::job_error::JobResult;
    use crate::manager::Manager;

    struct Nothing;

    impl Ability for Nothing {
        const NAME: &'static str = "nothing";
        type Arg = ();
        type Reply = ();

        fn work(_: &Job, (): ()) -> JobResult<()> {
            Ok(())
        }
    }

    fn manager() -> Manager {
        let builder = Manager::builder().linked(false).ability::<Nothing>().workers(1);
        builder.driver("one", memory()).build().expect("valid")
    }

    fn wait(manager: &Manager, database: &str) {
        let sent = manager.enqueue(Nothing::job(()).database(database)).expect("stored");
        sent.wait_as::<()>(SOON).expect("somebody works there");
    }

    #[test]
    fn a_report_tells_state_and_depth_and_a_dead_database_has_none() {
        let manager = manager();
        manager.add_database("memory:reported").expect("is new");
        manager.enqueue(Nothing::job(()).database("reported")).expect("stored");
        manager
            .set()
            .find("one")
            .expect("is there")
            .mark_down(&DriverError::new(ErrorKind::Down, "away"));
        let reports = manager.database_reports();
        assert_eq!((&*reports[0].name, reports[0].state), ("one", DatabaseState::Down));
        assert!(reports[0].depth.is_none() && reports[0].reason.as_deref() == Some("away"));
        let depth = reports[1].depth.expect("answers");
        assert_eq!((&*reports[1].name, depth.ready.count), ("reported", 1));
        manager.set().find("reported").expect("is there").driver().revert().expect("empties it");
    }

    #[test]
    fn a_database_is_worked_from_its_addition_to_its_removal() {
        let manager = manager();
        let work = manager.start().expect("starts");
        wait(&manager, "one");
        for _ in 0..3 {
            manager.add_database_as("two", "memory:").expect("is new");
            wait(&manager, "two");
            assert_eq!(manager.loops().len(), 8, "four loops each");
            manager.remove_database("two").expect("is there");
            assert_eq!(manager.loops().len(), 4);
            assert!(manager.enqueue(Nothing::job(()).database("two")).is_err());
        }
        wait(&manager, "one");
        work.stop();
        assert!(manager.loops().is_empty());
        manager.add_database_as("two", "memory:").expect("is new");
        let work = manager.start().expect("starts again");
        wait(&manager, "two");
        work.stop();
    }

    #[test]
    fn the_last_database_and_one_that_is_not_there_cannot_be_removed() {
        let manager = manager();
        assert!(matches!(manager.remove_database("one"), Err(Error::NoDatabase)));
        assert!(matches!(manager.remove_database("two"), Err(Error::UnknownDatabase { .. })));
        assert!(matches!(manager.add_database("nonsense"), Err(Error::InvalidDsn { .. })));
        let taken = manager.add_database_as("one", "memory:");
        assert!(matches!(taken, Err(Error::DuplicateDatabase(_))));
    }

    #[test]
    fn one_manager_works_once_at_a_time() {
        let manager = manager();
        let work = manager.start().expect("starts");
        assert!(matches!(manager.start().map(|_| ()), Err(Error::AlreadyWorking)));
        work.stop();
        manager.start().expect("starts again").stop();
        let idle = Manager::builder().linked(false).driver("one", memory()).build().expect("valid");
        assert!(matches!(idle.start().map(|_| ()), Err(Error::NoAbilities)));
        assert!(matches!(idle.work_once(), Err(Error::NoAbilities)));
    }
}
