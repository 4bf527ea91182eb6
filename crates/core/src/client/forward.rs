//! Forwards what the spool took, once a database can have it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use qudo_hooks::JobId;
use uuid::Uuid;

use super::Client;
use super::spool::{LOOK_EVERY, Spool, waiting};
use crate::database::Database;
use crate::database::set::Databases;
use crate::database::transfer::{Move, MovedThese};
use crate::driver::{Ending, JobState, Place, Traces};
use crate::error::Error;
use crate::observe::Event;
use crate::tools::guard::{guard, say};
use crate::tools::random::{choice, jitter};
use crate::tools::threads::spawn;

/// Jobs forwarded in one step.
const BATCH: u32 = 250;

/// Starts the thread that forwards, if there is a spool.
pub(crate) fn start(client: &Arc<Client>) -> Result<(), Error> {
    if client.spool.is_none() {
        return Ok(());
    }
    let weak = Arc::downgrade(client);
    spawn("qudo-spool", move || run(&weak)).map_err(Error::no_thread)
}

/// Forwards what is in the spool whenever a database can take it. Ends with the manager.
fn run(client: &Weak<Client>) {
    let mut opened = false;
    loop {
        let Some(client) = client.upgrade() else { return };
        let Some(spool) = client.spool.clone() else { return };
        let forwarded = guard(|| match forward(&client, &spool, &mut opened) {
            Ok(()) => {}
            Err(error) if error.is_down() => log::debug!("the spool waits: {error}"),
            Err(error) => log::warn!("the spool cannot forward: {error}"),
        });
        if let Err(panic) = forwarded {
            say(|| log::error!("the spool's loop {panic}"));
        }
        drop(client);
        // An idle spool is woken by its first job; the pause lets a dropped manager end.
        spool.bell.wait(jitter(LOOK_EVERY));
    }
}

fn forward(client: &Client, spool: &Spool, opened: &mut bool) -> Result<(), Error> {
    if std::mem::replace(opened, true) && spool.is_empty() && !spool.is_time_to_look() {
        return Ok(());
    }
    let depth = spool.look()?;
    if waiting(&depth) == 0 || !client.databases.all().iter().any(|database| database.is_up()) {
        return Ok(());
    }
    let usable = usable(&client.databases);
    let mut trouble = None;
    if depth.moving.count > 0 {
        // An earlier forward was broken off; where it went is not told by the job alone.
        for database in usable.iter().filter(|database| database.is_up()) {
            let resumed = Move::new(&client.databases, &spool.database, database)
                .and_then(|resumed| resumed.run_these(&[]));
            trouble = resumed.err().or(trouble);
        }
    }
    let mut after = JobId::from_uuid(Uuid::nil());
    loop {
        // Without the arguments, which may be large.
        let from = after;
        let page = spool.database.call("list jobs", move |driver| driver.traces(from, BATCH))?;
        let Some(last) = page.last() else { break };
        after = last.id;
        let mut groups: HashMap<Arc<str>, (Arc<Database>, Vec<JobId>)> = HashMap::new();
        let waits = |job: &&Traces| {
            job.places.iter().any(|place| matches!(place, Place::Ready | Place::Scheduled))
        };
        for job in page.iter().filter(waits) {
            let key =
                job.facts.as_ref().and_then(|(ability, key)| Some((&**ability, &**key.as_ref()?)));
            let step = match target(&client.databases, &usable, job.id, key) {
                Ok(Target::Wait) => Ok(()),
                Ok(Target::There(database)) => join(client, spool, &database, job.id).map(drop),
                Ok(Target::Taken) => drop_job(client, spool, job.id).map(drop),
                Ok(Target::To(target)) => {
                    let group = groups.entry(Arc::clone(&target.name));
                    group.or_insert_with(|| (target, Vec::new())).1.push(job.id);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            // The trouble of one database is not that of the jobs for the others.
            trouble = step.err().or(trouble);
        }
        for (target, ids) in groups.into_values() {
            trouble = forward_to(client, spool, &target, &ids).err().or(trouble);
        }
    }
    spool.look()?;
    trouble.map_or(Ok(()), Err)
}

/// The databases whose orders are known, as far as they are up; one that cannot tell them, because its
/// tables are missing or the account may not read them, takes no job now.
fn usable(databases: &Databases) -> Vec<Arc<Database>> {
    let tells = |database: &&Arc<Database>| match database.orders() {
        Err(error) if !error.is_down() => {
            log::debug!("the spool passes over database {:?}: {error}", &*database.name);
            false
        }
        _ => true,
    };
    databases.all().iter().filter(tells).cloned().collect()
}

/// What is to happen with a spooled job now.
enum Target {
    To(Arc<Database>),
    Wait,
    /// Another job holds its key.
    Taken,
    /// It holds its key itself, in a database that is not the key's home any more.
    There(Arc<Database>),
}

/// Where a spooled job goes now: the home of its key, once the former homes say that they do not
/// hold it; without a key any database that is up.
fn target(
    databases: &Databases,
    usable: &[Arc<Database>],
    id: JobId,
    key: Option<(&str, &str)>,
) -> Result<Target, Error> {
    let Some((ability, key)) = key else {
        let open = usable.iter().filter(|one| one.is_up() && !one.orders.known().draining);
        let chosen = choice(open.collect::<Vec<_>>());
        return Ok(chosen.map_or(Target::Wait, |one| Target::To(Arc::clone(one))));
    };
    for former in databases.former_homes(ability, key) {
        if !usable.iter().any(|one| Arc::ptr_eq(one, &former)) {
            return Ok(Target::Wait);
        }
        let (ability, key) = (ability.to_owned(), key.to_owned());
        match former.call("look up a unique key", move |driver| driver.holder(&ability, &key)) {
            Ok(None) => {}
            Ok(Some(holder)) if holder == id => return Ok(Target::There(former)),
            Ok(Some(_)) => return Ok(Target::Taken),
            Err(error) if error.is_down() => return Ok(Target::Wait),
            Err(error) => return Err(error),
        }
    }
    let known = |home: &Arc<Database>| usable.iter().any(|one| Arc::ptr_eq(one, home));
    let home = databases.home_of(ability, key).filter(|home| home.is_up() && known(home));
    Ok(home.map_or(Target::Wait, Target::To))
}

fn drop_job(client: &Client, spool: &Spool, id: JobId) -> Result<usize, Error> {
    log::warn!("job {id} of the spool is dropped: another job holds its unique key");
    if !spool
        .database
        .call("drop a job", move |driver| driver.dequeue(id, Some(Ending::Superseded)))?
    {
        return Ok(0);
    }
    spool.dropped.fetch_add(1, Ordering::Relaxed);
    client.program.tell(|| Event::Dropped { job: id });
    Ok(1)
}

/// A job of the spool that is in a database too. Either a forward was broken off there: what it brought is
/// cancelled, and the job goes on from here. Or an enqueue whose answer was lost stored it: then it
/// lives there, and here it ends.
fn join(
    client: &Client,
    spool: &Spool,
    database: &Arc<Database>,
    id: JobId,
) -> Result<usize, Error> {
    Move::new(&client.databases, &spool.database, database)?.run_these(&[])?;
    let state = database.call("look up a job", move |driver| driver.state(id))?;
    if state.is_none_or(|state| state == JobState::Moving) {
        return Ok(0);
    }
    log::info!("job {id} of the spool is in database {:?} already", &*database.name);
    let gone = spool.database.call("drop a job", move |driver| driver.dequeue(id, None))?;
    Ok(usize::from(gone))
}

/// Forwards these jobs; tells how many are gone from the spool.
fn forward_to(
    client: &Client,
    spool: &Spool,
    target: &Arc<Database>,
    ids: &[JobId],
) -> Result<usize, Error> {
    let MovedThese { moved, taken } =
        Move::new(&client.databases, &spool.database, target)?.run_these(ids)?;
    let moved = moved.len();
    if moved > 0 {
        log::info!("{moved} jobs forwarded from the spool to database {:?}", &*target.name);
        target.bell.ring();
    }
    let mut gone = moved;
    // Those that may not go there any more wait for the next look.
    for id in taken {
        gone += drop_job(client, spool, id)?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::driver::{Deadline, Driver, DriverError, ErrorKind, Order};
    use crate::fixture::eventually;
    use crate::fixture::memory;
    use crate::inside::ManagerInside;
    use crate::manager::Manager;
    use crate::new_job::{NewJob, UniqPolicy};
    use crate::testing::FaultyDriver;

    #[test]
    fn a_job_whose_home_changed_on_its_way_stays_in_the_spool() {
        let builder = Manager::builder().linked(false);
        let builder = builder.database_as("one", "memory:spool-one");
        let builder = builder.database_as("two", "memory:spool-two");
        let manager = builder.spool("memory:spool-spool", 10).build().expect("valid");
        let spool = manager.client().spool.clone().expect("set");
        let job = || NewJob::named("anything", 1.into()).uniqkey("k");
        let home = manager.home(&job()).expect("known").expect("fixed");
        let record = manager.prepare_record(job()).expect("valid").expect("not suppressed");
        // Not through the front door, which would wake the thread that forwards.
        spool
            .database
            .driver()
            .insert(std::slice::from_ref(&record), Deadline::NONE)
            .expect("stored");
        let away = manager.set().find(if home == "one" { "two" } else { "one" }).expect("known");
        assert_eq!(forward_to(manager.client(), &spool, &away, &[record.id]).expect("answers"), 0);
        assert_eq!(spool.dropped.load(Ordering::Relaxed), 0);
        forward(manager.client(), &spool, &mut false).expect("forwards");
        let (at, _) = manager.lookup(record.id).expect("answers").expect("is not lost");
        assert_eq!(at, home);
    }

    /// A manager with a spool.
    struct Bed {
        manager: Manager,
        /// Its two databases are away as long as this is true.
        away: Arc<AtomicBool>,
        /// What is in them.
        inner: [Arc<dyn Driver>; 2],
    }

    fn bed(name: &str) -> Bed {
        let away = Arc::new(AtomicBool::new(true));
        let inner = [memory(), memory()];
        let driver = |at: usize| -> Arc<dyn Driver> {
            let is_away = Arc::clone(&away);
            let driver = FaultyDriver::new(Arc::clone(&inner[at]));
            Arc::new(driver.with_fault(move |_| {
                if is_away.load(Ordering::Relaxed) {
                    return Err(DriverError::new(ErrorKind::Down, "away"));
                }
                Ok(())
            }))
        };
        let builder = Manager::builder().linked(false).retry_seconds(1);
        let builder = builder.driver("one", driver(0)).driver("two", driver(1));
        let manager = builder.spool(format!("memory:{name}"), 10).build().expect("valid");
        Bed { manager, away, inner }
    }

    fn waiting_in(manager: &Manager) -> u64 {
        manager.spool().expect("answers").expect("there is one").waiting
    }

    #[test]
    fn what_was_spooled_goes_to_a_database_that_is_back() {
        let Bed { manager, away, .. } = bed("spool-back");
        let sent: Vec<_> = (0..5).map(|_| NewJob::named("anything", 1.into())).collect();
        let ids: Vec<_> = sent.iter().map(NewJob::id).collect();
        manager.enqueue_many(sent).expect("the spool takes them");
        assert_eq!(waiting_in(&manager), 5);
        away.store(false, Ordering::Relaxed);
        eventually("all are forwarded", || waiting_in(&manager) == 0);
        for id in ids {
            let (name, _) = manager.lookup(id).expect("answers").expect("is not lost");
            assert_ne!(name, "spool");
        }
    }

    #[test]
    fn of_two_jobs_with_one_key_the_one_that_was_there_stays() {
        let Bed { manager, away, inner } = bed("spool-key");
        let keyed = |n: u32| NewJob::named("anything", n.into()).uniqkey("k");
        let spooled = keyed(1).uniq_policy(UniqPolicy::Available);
        let spooled = manager.enqueue(spooled).expect("the spool takes it").id().expect("is new");
        // Another process, which knows no spool, stores a job with that key meanwhile.
        let home = manager.home(&keyed(2)).expect("known").expect("fixed");
        let record = manager.prepare_record(keyed(2)).expect("valid").expect("not suppressed");
        let there = &inner[usize::from(home == "two")];
        there.insert(std::slice::from_ref(&record), Deadline::NONE).expect("stored");
        away.store(false, Ordering::Relaxed);
        eventually("it is dropped", || waiting_in(&manager) == 0);
        let report = manager.spool().expect("answers").expect("there is one");
        assert_eq!(report.dropped, 1);
        assert!(manager.lookup(spooled).expect("answers").is_none());
        assert!(manager.lookup(record.id).expect("answers").is_some());
    }

    #[test]
    fn a_drained_database_takes_nothing_from_the_spool() {
        let Bed { manager, away, inner } = bed("spool-drained");
        let jobs: Vec<_> = (0..8).map(|_| NewJob::named("anything", 1.into())).collect();
        manager.enqueue_many(jobs).expect("the spool takes them");
        inner[0].set_control(&Order::Draining, true, Deadline::NONE).expect("answers");
        away.store(false, Ordering::Relaxed);
        eventually("all are forwarded", || waiting_in(&manager) == 0);
        let ready = |driver: &Arc<dyn Driver>| driver.depth(100).expect("answers").ready.count;
        assert_eq!((ready(&inner[0]), ready(&inner[1])), (0, 8));
    }
}
