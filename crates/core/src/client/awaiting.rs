//! What blocks, for tasks: enqueues and tickets that are awaited.
//!
//! The blocking part is done by the threads of the [front](super::front), the waiting by no thread: a task sleeps until its
//! job's end wakes it.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::enqueued::Enqueued;
use super::hearing::hear;
use super::keeper::until_ended;
use super::lookout::MIN_ANSWER;
use super::pauses::Pause;
use super::ticket::{Standing, Ticket};
use super::tracked::{Done, FOR_EVER, LOST, Tracked, Verdict};
use super::{Client, enqueue};
use crate::error::Error;
use crate::new_job::NewJob;
use crate::progress::Progress;
use crate::spans::carried;
use crate::tools::front::Running;
use crate::tools::time::Instant;

/// As the blocking enqueue, for a task.
pub(crate) async fn enqueue(client: Arc<Client>, job: NewJob) -> Result<Enqueued, Error> {
    let front = Arc::clone(&client.front);
    front.run(carried(move || enqueue::enqueue(&client, job))).await
}

/// As the blocking enqueue of many, for a task.
pub(crate) async fn enqueue_many(
    client: Arc<Client>,
    jobs: Vec<NewJob>,
) -> Result<Vec<Enqueued>, Error> {
    let front = Arc::clone(&client.front);
    front.run(carried(move || enqueue::enqueue_many(&client, jobs))).await
}

/// As the blocking wait, for a task.
async fn wait_for_end(mut job: Arc<Tracked>, limit: Duration) -> Result<Done, Error> {
    let begun = Instant::now();
    let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
    job = job.last();
    let mut passed = HashSet::new();
    while passed.insert(job.id) {
        match wait_for_this(&job, begun, until, limit).await? {
            Ok(done) => return Ok(done),
            Err(next) => job = next,
        }
    }
    Err(Error::OutcomeUnknown { job: job.id })
}

/// Awaits the end of this job, or the job that goes on in its place.
async fn wait_for_this(
    job: &Arc<Tracked>,
    begun: Instant,
    until: Instant,
    limit: Duration,
) -> Result<Result<Done, Arc<Tracked>>, Error> {
    let client = Arc::clone(&job.client);
    let mut watch = client.waiters.watch(job.id);
    let mut seen = None;
    loop {
        let asked = Arc::clone(job);
        let look = move || asked.look(limit.saturating_sub(begun.elapsed()));
        // It may wait in line behind others, whose databases hang.
        let at_most = client.pauses.until(until.max(Instant::now() + MIN_ANSWER));
        if let Some(found) = unless_over(&mut client.looks.run(look), at_most).await {
            match job.judge(found)? {
                Verdict::Done(done) => return Ok(Ok(done)),
                Verdict::GoesOn(next) => return Ok(Err(next)),
                Verdict::Waits(state) => seen = state.or(seen),
            }
        }
        if limit.saturating_sub(begun.elapsed()).is_zero() {
            return Err(job.time_is_up(limit, seen));
        }
        match job.awaited_in(seen.as_ref()) {
            Some(database) => {
                hear(&client, &database);
                let again = Instant::now() + job.look_again_after();
                let _told = until_ended(&client, &database, &mut watch, until.min(again)).await;
            }
            // It is being moved out of the spool, or no database says where it is.
            None => client.pauses.until(until.min(Instant::now() + LOST)).await,
        }
    }
}

/// The answer, unless the pause is over before.
pub(super) async fn unless_over<T>(running: &mut Running<T>, mut pause: Pause) -> Option<T> {
    poll_fn(|context| {
        if let Poll::Ready(answer) = Pin::new(&mut *running).poll(context) {
            return Poll::Ready(Some(answer));
        }
        Pin::new(&mut pause).poll(context).map(|()| None)
    })
    .await
}

/// For tasks of any runtime: the methods of the same names, without `_async`, block.
///
/// Tasks that await occupy no thread: the ends of jobs in this process wake them at once, and one thread a database looks
/// for the jobs of all of them that other processes run, in one statement for many. Whoever drops the future waits no
/// longer, and nothing is left behind.
impl<R> Ticket<R> {
    /// Awaits that the job completed and returns its last reply; see [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub async fn wait_async(&self, limit: Duration) -> Result<R, Error>
    where
        R: DeserializeOwned,
    {
        self.last_reply(wait_for_end(self.tracked(), limit).await?)
    }

    /// As [`wait_async`](Self::wait_async), for a reply of this type.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub async fn wait_as_async<T: DeserializeOwned>(&self, limit: Duration) -> Result<T, Error> {
        self.last_reply(wait_for_end(self.tracked(), limit).await?)
    }

    /// As [`wait_async`](Self::wait_async), whatever the job replied.
    ///
    /// # Errors
    ///
    /// As [`wait_done`](Self::wait_done).
    pub async fn wait_done_async(&self, limit: Duration) -> Result<(), Error> {
        wait_for_end(self.tracked(), limit).await.map(drop)
    }

    /// Awaits that the job completed and returns all its replies; see [`replies`](Self::replies).
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub async fn replies_async(&self, limit: Duration) -> Result<Vec<R>, Error>
    where
        R: DeserializeOwned,
    {
        self.all_replies(wait_for_end(self.tracked(), limit).await?)
    }

    /// How far the job said last that it is; see [`progress`](Self::progress).
    ///
    /// # Errors
    ///
    /// When the job's database does not answer.
    pub async fn progress_async(&self) -> Result<Option<Progress>, Error> {
        let job = self.tracked();
        let looks = Arc::clone(&job.client.looks);
        looks.run(move || job.progress()).await
    }

    /// Looks once how far the job is; see [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// When the job's database does not answer.
    pub async fn check_async(&self) -> Result<Standing, Error> {
        let job = self.tracked();
        let looks = Arc::clone(&job.client.looks);
        looks.run(move || job.look_once().map(Standing::from)).await
    }
}
