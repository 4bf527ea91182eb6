//! Tasks that await jobs: a thread of a database's looks for all of them.
//!
//! It begins with the first task that awaits a job there, and ends with the last. Threads that wait need none to
//! look for them meanwhile.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use super::Client;
use super::lookout::Lookout;
use super::pauses::Pause;
use super::waiters::Watch;
use crate::database::Database;
use crate::tools::threads::{sleep, spawn};
use crate::tools::time::Instant;

/// A keeper without tasks stays for so long: the next task is often not far.
const IDLE_FOR: Duration = Duration::from_secs(1);

/// A machine that has no thread left may have one then.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// One task that awaits a job.
struct Awaiting<'a, 'w> {
    client: &'a Arc<Client>,
    lookout: Arc<Lookout>,
    watch: &'a mut Watch<'w>,
    pause: Pause,
    number: u64,
    /// Its keeper knows of it.
    is_told: bool,
}

/// Awaits that the job may have ended, or told something that is heard, or until then; whether it did.
pub(super) fn until_ended<'a, 'w>(
    client: &'a Arc<Client>,
    database: &Arc<Database>,
    watch: &'a mut Watch<'w>,
    until: Instant,
) -> impl Future<Output = bool> + use<'a, 'w> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let lookout = client.lookouts.join(database, watch);
    lookout.inner.lock().tasks += 1;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let pause = client.pauses.until(until);
    let mut awaiting = Awaiting { client, lookout, watch, pause, number, is_told: false };
    poll_fn(move |context| awaiting.poll(context))
}

impl Awaiting<'_, '_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        // First, so that no end comes in between.
        self.watch.ended().set_waker(self.number, Some(context.waker()));
        if self.watch.has_ended() {
            return Poll::Ready(true);
        }
        if Pin::new(&mut self.pause).poll(context).is_ready() {
            return Poll::Ready(false);
        }
        let is_kept = std::mem::replace(&mut self.lookout.inner.lock().has_keeper, true);
        if is_kept && std::mem::replace(&mut self.is_told, true) {
            return Poll::Pending;
        }
        self.is_told = true;
        if is_kept {
            // This job may be due before the one that it sleeps for.
            self.lookout.bell.ring();
        } else {
            self.start_keeper();
        }
        Poll::Pending
    }

    fn start_keeper(&self) {
        let (client, lookout) = (Arc::clone(self.client), Arc::clone(&self.lookout));
        if let Err(error) = spawn("qudo-tickets", move || keep(client, &lookout)) {
            log::error!("no thread can be started that looks for jobs which tasks await: {error}");
            // Threads that wait look for themselves, and tasks try again.
            sleep(TRY_AGAIN_AFTER);
            self.lookout.inner.lock().has_keeper = false;
            self.lookout.call_all();
        }
    }
}

impl Drop for Awaiting<'_, '_> {
    fn drop(&mut self) {
        self.watch.ended().set_waker(self.number, None);
        self.lookout.inner.lock().tasks -= 1;
        self.client.lookouts.leave(&self.lookout, self.watch);
        self.lookout.hand_over(false);
    }
}

/// Looks for all, until no task awaits.
fn keep(mut client: Arc<Client>, lookout: &Arc<Lookout>) {
    loop {
        if lookout.inner.lock().tasks == 0 {
            // A program that ends meanwhile must not find its client held, whose end says what is not said yet.
            let idle = Arc::downgrade(&client);
            drop(client);
            // A thread that waits looks for itself.
            let is_idle = || !lookout.bell.wait(IDLE_FOR);
            let may_leave = lookout.has_jobs() || is_idle();
            let Some(held) = idle.upgrade() else { return };
            client = held;
            if may_leave && client.lookouts.dismiss_keeper(lookout) {
                // A thread that waits has to look from now on.
                lookout.hand_over(false);
                return;
            }
            continue;
        }
        lookout.bell.wait(lookout.next_due().saturating_duration_since(Instant::now()));
        if Instant::now() >= lookout.next_due() {
            // More than a call may take: a database that hangs is suspected then.
            lookout.look(&client.waiters, Instant::now() + lookout.database.limit() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use qudo_hooks::JobId;

    use super::*;
    use crate::ability::Ability;
    use crate::client::ticket::Ticket;
    use crate::driver::{Deadline, DriverError, ErrorKind};
    use crate::error::Error;
    use crate::fixture::{SOON, block_on, databases, eventually, memory, records};
    use crate::job::Job;
    use crate::job_error::JobResult;
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;

    struct Double;

    impl Ability for Double {
        const NAME: &'static str = "double";
        type Arg = u32;
        type Reply = u32;

        fn work(_: &Job, n: u32) -> JobResult<u32> {
            Ok(n * 2)
        }
    }

    fn manager() -> Manager {
        let builder = Manager::builder().linked(false).ability::<Double>();
        builder.driver("one", memory()).driver("two", memory()).build().expect("valid")
    }

    #[test]
    fn a_task_enqueues_and_awaits_the_reply() {
        let manager = manager();
        let sent = block_on(manager.enqueue_async(Double::job(21))).expect("stored");
        let ticket = sent.ticket().expect("is new");
        let early = block_on(ticket.wait_async(Duration::from_millis(5)));
        assert!(early.is_err_and(|error| error.is_timeout()));
        let worker = manager.clone();
        let works = std::thread::spawn(move || worker.work_once());
        assert_eq!(block_on(ticket.wait_async(SOON)).expect("replies"), 42);
        works.join().expect("no panic").expect("works");
        assert_eq!(block_on(ticket.replies_async(SOON)).expect("replies"), [42]);
        assert_eq!(block_on(ticket.wait_as_async::<u64>(SOON)).expect("replies"), 42);
        block_on(ticket.wait_done_async(SOON)).expect("done");
        assert!(matches!(block_on(ticket.check_async()), Ok(crate::Standing::Completed(1))));
        let many = block_on(manager.enqueue_many_async((0..10).map(Double::job).collect()))
            .expect("stored");
        assert_eq!(many.len(), 10);
        let never: Ticket = manager.ticket(JobId::new());
        let unknown = block_on(never.wait_async(SOON));
        assert!(matches!(unknown, Err(Error::OutcomeUnknown { .. })));
    }

    struct Bed {
        client: Arc<Client>,
        database: Arc<Database>,
        jobs: Vec<JobId>,
        asked: Arc<AtomicUsize>,
    }

    impl Bed {
        fn new(jobs: usize) -> Self {
            let inner = memory();
            let records = records(jobs);
            inner.insert(&records, Deadline::NONE).expect("stored");
            let asked = Arc::<AtomicUsize>::default();
            let count = Arc::clone(&asked);
            let driver = FaultyDriver::new(inner).with_fault(move |call| {
                if call == "live" {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Ok::<(), DriverError>(())
            });
            let database = crate::fixture::database("one", Arc::new(driver));
            let client = crate::fixture::client(databases(&["other"]));
            let jobs = records.iter().map(|job| job.id).collect();
            Self { client, database, jobs, asked }
        }

        /// As another process does, of which nobody here is told.
        fn end(&self, job: JobId) {
            assert!(self.database.driver().dequeue(job, None).expect("answers"));
        }

        fn await_end(&self, job: JobId, limit: Duration) -> impl Future<Output = ()> + use<> {
            let (client, database) = (Arc::clone(&self.client), Arc::clone(&self.database));
            async move {
                let mut watch = client.waiters.watch(job);
                until_ended(&client, &database, &mut watch, Instant::now() + limit).await;
            }
        }
    }

    #[test]
    fn a_thousand_tasks_on_one_thread_hear_of_ends_in_other_processes_in_few_questions() {
        let bed = Bed::new(1_000);
        let mut all: Vec<_> =
            bed.jobs.iter().map(|job| Box::pin(bed.await_end(*job, SOON))).collect();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(all.iter_mut().all(|one| one.as_mut().poll(&mut context).is_pending()));
        let begun = Instant::now();
        bed.jobs.iter().for_each(|job| bed.end(*job));
        for one in all {
            block_on(one);
        }
        assert!(begun.elapsed() < SOON / 2, "the ends were noticed, not the limit");
        let most = begun.elapsed().as_millis() as usize + 100;
        let asked = bed.asked.load(Ordering::SeqCst);
        assert!(asked <= most, "{asked}");
        assert_eq!(bed.client.waiters.count(), 0);
        eventually("nobody keeps what nobody awaits", || bed.client.lookouts.len() == 0);
    }

    #[test]
    fn a_task_that_is_dropped_leaves_nothing_behind() {
        let bed = Bed::new(1);
        let mut one = Box::pin(bed.await_end(bed.jobs[0], SOON));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(one.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert_eq!(bed.client.waiters.count(), 0);
        eventually("nobody keeps what nobody awaits", || bed.client.lookouts.len() == 0);
    }

    #[test]
    fn a_wait_of_a_task_ends_with_its_time() {
        let bed = Bed::new(1);
        let begun = Instant::now();
        block_on(bed.await_end(bed.jobs[0], Duration::from_millis(20)));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(20) && took < SOON / 2, "{took:?}");
    }

    #[test]
    fn a_thread_looks_for_itself_when_the_last_task_has_left() {
        let bed = Bed::new(2);
        let task = bed.await_end(bed.jobs[0], SOON);
        let mut task = Box::pin(task);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        let (client, database, job) =
            (Arc::clone(&bed.client), Arc::clone(&bed.database), bed.jobs[1]);
        let waits = std::thread::spawn(move || {
            let mut watch = client.waiters.watch(job);
            let begun = Instant::now();
            client.lookouts.wait(&client.waiters, &database, &mut watch, begun + SOON);
            begun.elapsed()
        });
        eventually("it waits", || bed.client.waiters.count() == 2);
        drop(task);
        bed.end(bed.jobs[1]);
        assert!(waits.join().expect("no panic") < SOON / 2);
        eventually("nobody keeps what nobody awaits", || bed.client.lookouts.len() == 0);
    }

    #[test]
    fn tasks_whose_database_hangs_wait_no_longer_than_they_want_to() {
        let hangs = FaultyDriver::new(memory()).with_fault(|_| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        });
        let builder = Manager::builder().linked(false).ability::<Double>();
        let manager = builder.driver("one", Arc::new(hangs)).build().expect("valid");
        let tickets: Vec<Ticket> = (0..500).map(|_| manager.ticket(JobId::new())).collect();
        let limit = Duration::from_millis(300);
        let mut all: Vec<_> =
            tickets.iter().map(|ticket| Box::pin(ticket.wait_async(limit))).collect();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let begun = Instant::now();
        assert!(all.iter_mut().all(|one| one.as_mut().poll(&mut context).is_pending()));
        for one in all {
            assert!(block_on(one).is_err_and(|error| error.is_timeout()));
        }
        // One after the other, their looks would take 500 times 0.3 s, by 16 at a time.
        assert!(begun.elapsed() < limit * 500 / 16 / 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_dead_database_blocks_neither_the_task_nor_the_others() {
        let away = FaultyDriver::new(memory())
            .with_fault(|_| Err(DriverError::new(ErrorKind::Down, "away")));
        let builder = Manager::builder().linked(false).ability::<Double>();
        let manager = builder.driver("one", Arc::new(away)).build().expect("valid");
        let never: Vec<Ticket<u32>> =
            (0..100).map(|_| manager.ticket(JobId::new()).typed()).collect();
        let mut all: Vec<_> = never
            .iter()
            .map(|ticket| Box::pin(ticket.wait_async(Duration::from_millis(300))))
            .collect();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(all.iter_mut().all(|one| one.as_mut().poll(&mut context).is_pending()));
        let begun = Instant::now();
        let stored = block_on(manager.enqueue_async(Double::job(1)));
        assert!(stored.is_err() && begun.elapsed() < SOON / 2);
        for one in all {
            assert!(block_on(one).is_err_and(|error| error.is_timeout()));
        }
    }
}
