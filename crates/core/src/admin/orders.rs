//! What can be done with one job from outside.

use std::sync::Arc;

use qudo_hooks::JobId;

use crate::backoff::MAX_DELAY;
use crate::client::ticket::Ticket;
use crate::client::{Client, cancelled};
use crate::database::set::Databases;
use crate::driver::{Acted, Due, Ending, ExceptionId, Redrive};
use crate::error::Error;
use crate::observe::Event;
use crate::tools::awake;

/// Removes a job that does not run; tells whether it did.
pub(crate) fn dequeue(client: &Client, id: JobId) -> Result<bool, Error> {
    let removed = client.databases.first("dequeue a job", move |driver| {
        Ok(driver.dequeue(id, Some(Ending::Removed))?.then_some(()))
    })?;
    client.waiters.note([id]);
    if removed.is_some() {
        client.program.tell(|| Event::Dropped { job: id });
    }
    Ok(removed.is_some())
}

/// Changes when a waiting job runs; tells whether it did.
pub(crate) fn reschedule(databases: &Databases, id: JobId, due: Due) -> Result<bool, Error> {
    let due = match due {
        Due::In(delay) => Due::In(delay.min(MAX_DELAY)),
        other => other,
    };
    let moved = databases
        .first("reschedule a job", move |driver| Ok(driver.reschedule(id, due)?.then_some(())))?;
    let Some((name, ())) = moved else {
        return Ok(false);
    };
    databases.found(&name)?.bell.ring();
    Ok(true)
}

/// Cancels a job. Also tells in which database it is.
pub(crate) fn cancel(
    client: &Client,
    id: JobId,
    reason: &str,
    by_force: bool,
) -> Result<(Acted, Option<String>), Error> {
    let has_hooks = !client.program.hooks().is_empty();
    let reason = check_reason(reason)?;
    let why = reason.clone();
    let found = client.databases.first("cancel a job", move |driver| {
        let act = |act: &_| driver.act(act, &[id], None);
        let ended = cancelled::ask(driver, &[id], &why, by_force, has_hooks, act)?;
        Ok(ended.filter(|ended| ended.answers != [Acted::Gone]))
    })?;
    let Some((name, ended)) = found else { return Ok((Acted::Gone, None)) };
    cancelled::tell(client, &client.databases.found(&name)?, &[id], &ended, &reason);
    Ok((ended.answers.first().copied().unwrap_or(Acted::Gone), Some(name)))
}

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 1_000;

/// A reason as it is stored.
pub(crate) fn check_reason(reason: &str) -> Result<String, Error> {
    let text: String = reason.chars().filter(|one| !one.is_control()).take(MAX_REASON).collect();
    let text = text.trim().to_owned();
    if text.is_empty() {
        let reason = "a job is cancelled for a reason, which its clients are told".to_owned();
        return Err(Error::InvalidOption { option: "reason", reason });
    }
    Ok(text)
}

/// Enqueues a discarded job again from the exception log.
pub(crate) fn redrive(client: &Arc<Client>, exception: ExceptionId) -> Result<Ticket, Error> {
    let refused = |reason: String| Error::NotRedrivable { exception, reason };
    let (new, asked) = (JobId::new(), awake::now());
    let found = client.databases.first("redrive a job", move |driver| {
        Ok(Some(driver.redrive(exception, new)?).filter(|one| *one != Redrive::NotFound))
    })?;
    match found {
        Some((name, Redrive::Enqueued(job))) => {
            let database = client.databases.found(&name)?;
            database.bell.ring();
            Ok(Ticket::stored(client, job, database, asked))
        }
        Some((_, Redrive::Already(job))) => Err(Error::AlreadyRedriven { exception, job }),
        Some((_, Redrive::Conflict(job))) => {
            Err(refused(format!("job {job} lives and holds its unique key")))
        }
        Some((_, Redrive::NotDiscarded)) => {
            Err(refused("it was not the job's last failure: the job was retried".to_owned()))
        }
        _ => Err(refused("no database has such a row".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ability::Ability;
    use crate::admin::page::Paging;
    use crate::driver::{ExceptionId, JobState};
    use crate::filter::ExceptionFilter;
    use crate::fixture::{SOON, memory};
    use crate::job::Job;
    use crate::job_error::{JobError, JobResult};
    use crate::manager::Manager;
    use crate::new_job::NewJob;

    struct Fragile;

    impl Ability for Fragile {
        const NAME: &'static str = "fragile";
        type Arg = bool;
        type Reply = ();

        fn work(_: &Job, breaks: bool) -> JobResult<()> {
            if breaks { Err(JobError::fail("broken")) } else { Ok(()) }
        }
    }

    fn manager() -> Manager {
        let builder = Manager::builder().linked(false).ability::<Fragile>();
        builder.driver("one", memory()).driver("two", memory()).build().expect("valid")
    }

    fn stored<R>(manager: &Manager, job: NewJob<R>) -> JobId {
        manager.enqueue(job).expect("stored").id().expect("is new")
    }

    fn run_all(manager: &Manager) {
        while manager.work_once().expect("answers").is_some() {}
    }

    /// The rows of the exception log, of all databases.
    fn log(manager: &Manager) -> Vec<ExceptionId> {
        let lists = manager.exceptions(&ExceptionFilter::all(), &Paging::default()).into_iter();
        lists.flat_map(|on| on.answer.expect("answers")).map(|row| row.id).collect()
    }

    #[test]
    fn a_waiting_job_can_be_removed_once_wherever_it_is() {
        let manager = manager();
        for name in ["one", "two"] {
            let id = stored(&manager, Fragile::job(false).database(name).uniqkey("k"));
            assert!(manager.dequeue(id).expect("answers"));
            assert!(!manager.dequeue(id).expect("answers"));
            assert!(manager.holder("fragile", "k").expect("answers").is_none(), "its key is free");
        }
        assert!(!manager.dequeue(JobId::new()).expect("answers"));
    }

    #[test]
    fn whoever_waits_for_a_removed_job_is_woken() {
        let manager = manager();
        let sent = manager.enqueue(Fragile::job(false)).expect("stored");
        let ticket = sent.ticket().expect("is new").clone();
        let waits = std::thread::spawn(move || ticket.wait_done(SOON));
        while manager.client().waiters.count() == 0 {
            std::thread::yield_now();
        }
        let begun = std::time::Instant::now();
        manager.dequeue(sent.id().expect("is new")).expect("answers");
        let told = waits.join().expect("no panic").expect_err("it never ran");
        assert!(matches!(told, Error::JobRemoved { .. }), "{told}");
        assert!(begun.elapsed() < SOON / 2);
    }

    #[test]
    fn a_waiting_job_can_run_at_another_time() {
        let manager = manager();
        let id = stored(&manager, Fragile::job(false).delay(SOON * 100));
        let state = || {
            let (_, job) = manager.lookup(id).expect("answers").expect("it lives");
            job.state
        };
        assert!(matches!(state(), JobState::Scheduled { .. }));
        assert!(manager.reschedule(id, Due::Now).expect("answers"));
        assert_eq!(state(), JobState::Ready);
        assert!(manager.reschedule(id, Due::In(Duration::MAX)).expect("answers"), "a year");
        assert!(matches!(state(), JobState::Scheduled { .. }));
        assert!(!manager.reschedule(JobId::new(), Due::Now).expect("answers"));
    }

    #[test]
    fn a_discarded_job_is_enqueued_again_once() {
        let manager = manager();
        stored(&manager, Fragile::job(true).uniqkey("k"));
        run_all(&manager);
        let rows = log(&manager);
        assert_eq!(rows.len(), 1);
        let ticket = manager.redrive(rows[0]).expect("is discarded");
        let (name, job) = manager.lookup(ticket.id()).expect("answers").expect("it lives");
        assert_eq!((ticket.database(), job.facts.uniqkey.as_deref()), (Some(&*name), Some("k")));
        let again = manager.redrive(rows[0]);
        let Err(Error::AlreadyRedriven { job, .. }) = again else { panic!("twice") };
        assert_eq!(job, ticket.id());
        let unknown = manager.redrive(ExceptionId::new());
        assert!(matches!(unknown, Err(Error::NotRedrivable { .. })));
    }

    #[test]
    fn a_job_whose_key_another_holds_is_not_enqueued_again() {
        let manager = manager();
        stored(&manager, Fragile::job(true).uniqkey("k"));
        run_all(&manager);
        let holder = stored(&manager, Fragile::job(false).uniqkey("k"));
        let refused = manager.redrive(log(&manager)[0]);
        let Err(error @ Error::NotRedrivable { .. }) = refused else { panic!("twice") };
        assert!(error.to_string().contains(&holder.to_string()), "{error}");
    }
}
