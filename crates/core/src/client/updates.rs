//! What a job tells while it runs, read by a thread.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::hearing::hear;
use super::reader::Reader;
use super::tracked::{FOR_EVER, LOST, Tracked};
use super::update_stream::UpdateStream;
use crate::error::Error;
use crate::progress::Progress;
use crate::tools::polling::warn_if_polled;
use crate::tools::time::Instant;

/// Something that a job told while it ran.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update<T> {
    /// It sent a value.
    Sent(Sent<T>),
    /// It said how far it is: the last that it said; what it said in between may be left out, and what it said in the seconds before its
    /// end.
    Progress(Progress),
}

/// A value that a job sent, with [`Job::send`](crate::Job::send).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent<T> {
    /// The job that sent it: that of the ticket, or the one that went on in its place.
    pub job: JobId,
    /// The attempt that sent it; 1 is the first.
    pub attempt: u32,
    /// Its number, from 0 on, which counts over all attempts of the job in one database; after a move it begins again. There may be gaps.
    pub number: u32,
    /// When it was stored, by the database's clock.
    pub at: DateTime<Utc>,
    /// The value.
    pub value: T,
}

/// What a job tells while it runs, in order, until it ended: values that it [sends](crate::Job::send), and
/// [how far](crate::Job::progress) it is.
///
/// Made by [`Ticket::updates`](crate::Ticket::updates). As an iterator it blocks; tasks make it a [stream](Self::into_stream). It follows the job as
/// the ticket does: to another database, to the job that took its place, to the job that it was enqueued again as. After
/// its end [`Ticket::wait`](crate::Ticket::wait) answers at once.
///
/// Of a job that was run several times the values of the newest attempt are read that sent any; those of an earlier one that were read
/// before stay read. A run that snoozes, or is given back, spends no attempt: the next goes on under the same. Values that were sent before the first call are read too, as long as replies are kept.
///
/// A job of which nobody knows how it ended has [`Error::OutcomeUnknown`] for a last item, such as one of a transaction that is not committed.
/// Values that were sent in another database before a reader came are not found after a move.
///
/// Nothing is missed while a database is down: the wait goes on. With a limit for each call an item is
/// [`Error::WaitTimeout`] when nothing came, and the next call waits again. Other errors are items too: a database that refuses, a
/// value that is not of this type. After one that may stay the next call rests before it asks again, for 5 seconds at most.
pub struct Updates<T> {
    reader: Reader,
    limit: Duration,
    value: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Updates<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updates").field("job", &self.reader.job.id).finish_non_exhaustive()
    }
}

impl<T> Updates<T> {
    pub(super) fn of(job: &Tracked) -> Self {
        Self { reader: Reader::new(job), limit: FOR_EVER, value: PhantomData }
    }

    /// Values of all attempts are read, not only of the newest.
    #[must_use]
    pub fn all_attempts(mut self) -> Self {
        self.reader.all_attempts = true;
        self
    }

    /// How long one call waits for something new; as long as it takes by default.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same for a task.
    pub fn into_stream(self) -> UpdateStream<T> {
        UpdateStream::of(self.reader, self.limit)
    }
}

impl<T: DeserializeOwned> Iterator for Updates<T> {
    type Item = Result<Update<T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        warn_if_polled("an iterator of updates", "a stream of them");
        let begun = Instant::now();
        let until = begun.checked_add(self.limit).unwrap_or_else(|| begun + FOR_EVER);
        let limit = self.limit;
        let reader = &mut self.reader;
        loop {
            if let Some(found) = reader.take() {
                return Some(found);
            }
            if reader.is_over() {
                return None;
            }
            match step(reader, until, limit.saturating_sub(begun.elapsed())) {
                Err(error) => return Some(Err(error)),
                Ok(()) if reader.has_something() => {}
                Ok(()) if Instant::now() >= until => return Some(Err(reader.time_is_up(limit))),
                Ok(()) => {}
            }
        }
    }
}

/// Looks once, and waits until a look is worth it, something is found in memory, or until then.
fn step(reader: &mut Reader, until: Instant, left: Duration) -> Result<(), Error> {
    let client = Arc::clone(&reader.client);
    // Before the look, so that nothing is told in between that nobody hears.
    let mut watch = client.waiters.watch(reader.job.id);
    if let Some(rest) = reader.rests_until() {
        watch.wait_until(rest.min(until));
        if Instant::now() >= until {
            return Ok(());
        }
    }
    let again = reader.look(left)?;
    if again || reader.has_something() || Instant::now() >= until {
        return Ok(());
    }
    let Some(database) = reader.awaited_in() else {
        watch.wait_until(until.min(Instant::now() + LOST));
        return Ok(());
    };
    hear(&client, &database);
    (watch.hears, watch.pause) = (Some(reader.known()), reader.pause);
    let again = reader.looks_again_at().min(until);
    loop {
        let idle = reader.idles_until(again);
        let is_told = client.lookouts.wait(&client.waiters, &database, &mut watch, idle);
        if is_told || Instant::now() >= again || reader.note_ours() {
            break;
        }
    }
    reader.pause = watch.pause;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ability::Ability;
    use crate::driver::{DriverError, ErrorKind};
    use crate::fixture::memory;
    use crate::job::Job;
    use crate::job_error::JobResult;
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;

    /// Sends, and is replaced by itself as often.
    struct Chain;

    impl Ability for Chain {
        const NAME: &'static str = "chain";
        type Arg = u32;
        type Reply = ();

        fn work(job: &Job, links: u32) -> JobResult<()> {
            job.send(&links)?;
            if links > 0 {
                job.replace(Self::job(links - 1));
            }
            Ok(())
        }
    }

    #[test]
    fn nothing_is_passed_over_while_a_database_is_away_for_a_moment() {
        // The questions that go wrong, by their numbers from when it is said.
        for broken in 0..6 {
            let asked = Arc::new(AtomicU32::new(u32::MAX / 2));
            let count = Arc::clone(&asked);
            let driver = FaultyDriver::new(memory()).with_fault(move |call| {
                let is_it = matches!(call, "news" | "sent");
                if is_it && count.fetch_add(1, Ordering::SeqCst) == broken {
                    return Err(DriverError::new(ErrorKind::Down, "away"));
                }
                Ok(())
            });
            let manager = Manager::builder()
                .linked(false)
                .driver("one", Arc::new(driver))
                .retry_seconds(1)
                .ability::<Chain>()
                .build()
                .expect("valid");
            let sent = manager.enqueue(Chain::job(2)).expect("stored");
            while manager.work_once().expect("works").is_some() {}
            asked.store(0, Ordering::SeqCst);
            let updates = sent.ticket().expect("new").updates::<u32>();
            let values: Vec<_> = updates
                .within(Duration::from_secs(30))
                .filter_map(|update| match update.expect("waits on") {
                    Update::Sent(one) => Some(one.value),
                    Update::Progress(_) => None,
                })
                .collect();
            assert_eq!(values, [2, 1, 0], "with the question {broken} broken");
        }
    }

    #[test]
    fn a_ticket_that_waited_before_reads_every_job_of_its_chain() {
        let manager = Manager::builder()
            .linked(false)
            .driver("one", memory())
            .ability::<Chain>()
            .build()
            .expect("valid");
        let sent = manager.enqueue(Chain::job(4)).expect("stored");
        while manager.work_once().expect("works").is_some() {}
        let ticket = sent.ticket().expect("new");
        ticket.wait(Duration::from_secs(10)).expect("completed");
        ticket.check().expect("answers");
        let values: Vec<_> = ticket
            .updates::<u32>()
            .filter_map(|update| match update.expect("answers") {
                Update::Sent(one) => Some(one.value),
                Update::Progress(_) => None,
            })
            .collect();
        assert_eq!(values, [4, 3, 2, 1, 0]);
        // And a ticket without time follows what is known without a wait.
        let bare: crate::Ticket<()> = manager.ticket(sent.id().expect("new")).typed();
        bare.wait(Duration::ZERO).expect_err("nobody knows how the last one ended");
    }
}
