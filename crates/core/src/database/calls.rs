//! Calls to one database, each with a hard limit.
//!
//! A server that was stopped, or whose packets are dropped, does not answer and does not fail
//! either, and the client libraries wait for it for ever. So driver calls run on helper threads. A caller waits
//! at most `limit` and then abandons the helper, and another takes its place. If the call returns later, its
//! `late` callback undoes the effect, and the helper ends.
//!
//! The price is a hand-over to another thread and back, about 10 µs where both are awake. Rejected: limits on the
//! sockets, which diesel does not show, and a proxy in between, which users would have to run.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::driver::{Driver, DriverError, ErrorKind};
use crate::tools::guard::guard;
use crate::tools::reply::{Departure, Reply};
use crate::tools::sync::{Condvar, Mutex, MutexGuard};
use crate::tools::threads::spawn;
use crate::tools::time::Instant;

/// More calls at once wait in line.
pub(crate) const MAX_HELPERS: usize = 16;

/// How long an idle helper busy-waits for its next task before it blocks. To wake a blocked thread takes tens of
/// microseconds, a fifth of an enqueue, and a caller that enqueues one job after the other comes back within this
/// time. It spins and does not yield: on a loaded machine a yield may cost milliseconds.
const LOOK_FOR: Duration = Duration::from_micros(30);

/// A helper that had no task for this long ends.
const IDLE_FOR: Duration = Duration::from_secs(10);

type Task = Box<dyn FnOnce(&dyn Driver) + Send>;

/// The helper threads of one database.
pub(crate) struct Calls {
    shared: Arc<Shared>,
}

struct Shared {
    driver: Arc<dyn Driver>,
    /// The driver never waits for anything, so it is asked on the caller's thread.
    direct: bool,
    /// More calls at once wait in line.
    most: usize,
    inner: Mutex<Inner>,
    work: Condvar,
    /// How many tasks are in line, to be looked at without the lock.
    in_line: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    tasks: VecDeque<Task>,
    /// Helpers that sleep.
    idle: usize,
    /// Since when a helper is awake and looks for a task.
    looking: Option<Instant>,
    /// Helpers that were not given up.
    helpers: usize,
    /// The calls under way, oldest first.
    running: BTreeSet<UnderWay>,
    next: u64,
    closed: bool,
}

/// A call under way.
pub(crate) struct Call<T> {
    shared: Arc<Shared>,
    reply: Arc<Reply<Answer<T>, UnderWay>>,
}

type Answer<T> = Result<T, DriverError>;

/// Since when a call is under way, and under which number.
type UnderWay = (Instant, u64);

/// What becomes of an answer that comes when nobody waits any more.
pub(crate) type Late<T> = Box<dyn FnOnce(&dyn Driver, Result<T, DriverError>) + Send>;

impl Calls {
    /// At most `most` calls at once.
    pub(crate) fn new(driver: &Arc<dyn Driver>, most: usize) -> Self {
        let (driver, direct) = (Arc::clone(driver), !driver.may_block());
        let (inner, work, in_line) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        Self { shared: Arc::new(Shared { driver, direct, most, inner, work, in_line }) }
    }

    /// For how long the oldest call under way has been waiting for its answer.
    pub(crate) fn oldest(&self) -> Duration {
        let inner = self.shared.inner.lock();
        inner.running.first().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }

    /// Hands a call to a helper thread.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
        late: Late<T>,
    ) -> Call<T> {
        self.begin_series(|driver, _| ask(driver), late)
    }

    /// As [`begin`](Self::begin), for several calls in one: after each but the last it calls its
    /// second argument, so that it does not look like one that hangs.
    pub(crate) fn begin_series<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn Driver, &dyn Fn()) -> Result<T, DriverError> + Send + 'static,
        late: Late<T>,
    ) -> Call<T> {
        let reply = Arc::new(Reply::default());
        let call = Call { shared: Arc::clone(&self.shared), reply: Arc::clone(&reply) };
        if self.shared.direct {
            let answer = shielded(|| ask(&*self.shared.driver, &|| {}));
            reply.begin(|| (Instant::now(), 0));
            reply.answer(answer, |_| {});
            return call;
        }
        let shared = Arc::clone(&self.shared);
        let task = move |driver: &dyn Driver| {
            if !reply.begin(|| shared.start()) {
                return;
            }
            let answer =
                shielded(|| ask(driver, &|| reply.renew(|under_way| shared.renew(under_way))));
            if let Some(answer) = reply.answer(answer, |under_way| shared.end(under_way)) {
                // The helper counts again, now that it is back.
                shared.inner.lock().helpers += 1;
                let late = guard(|| late(driver, answer));
                if let Err(panic) = late {
                    log::error!("the driver {panic}");
                }
            }
        };
        let mut inner = self.shared.inner.lock();
        inner.tasks.push_back(Box::new(task));
        self.shared.in_line.store(inner.tasks.len(), Ordering::Relaxed);
        find_helper(&self.shared, inner);
        call
    }
}

/// Wakes a helper for a task that was put in line, or starts one.
fn find_helper(shared: &Arc<Shared>, mut inner: MutexGuard<'_, Inner>) {
    // One that has been looking for longer lost its processor to others.
    let looking = inner.looking.is_some_and(|since| since.elapsed() < 2 * LOOK_FOR);
    if inner.tasks.len() <= usize::from(looking) {
        return;
    }
    // An idle helper that was woken still counts as idle until it runs.
    if inner.tasks.len() <= inner.idle + usize::from(looking) {
        drop(inner);
        shared.work.notify_one();
    } else if inner.helpers < shared.most {
        inner.helpers += 1;
        drop(inner);
        let own = Arc::clone(shared);
        if let Err(error) = spawn("qudo-call", move || help(&own)) {
            // The other helpers take the task, or whoever waits for it gives up in time.
            log::error!("cannot start a thread for calls to a database: {error}");
            shared.inner.lock().helpers -= 1;
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.shared.inner.lock().closed = true;
        self.shared.work.notify_all();
    }
}

/// A driver's panic is an error of its database, not the end of a helper.
fn shielded<T>(ask: impl FnOnce() -> Result<T, DriverError>) -> Result<T, DriverError> {
    guard(ask).unwrap_or_else(|panic| {
        let message = format!("the driver {panic}");
        Err(DriverError::new(ErrorKind::Other, message).ambiguous(true))
    })
}

/// Runs tasks until none came for a while.
fn help(shared: &Arc<Shared>) {
    let mut inner = shared.inner.lock();
    let mut looked = true;
    loop {
        if let Some(task) = inner.tasks.pop_front() {
            shared.in_line.store(inner.tasks.len(), Ordering::Relaxed);
            drop(inner);
            looked = false;
            task(&*shared.driver);
            inner = shared.inner.lock();
            if inner.helpers > shared.most {
                // This one was given up and another took its place.
                break;
            }
            continue;
        }
        if inner.closed {
            break;
        }
        // One that looks is enough: more would only keep the processor from others.
        if !looked && inner.looking.is_none() {
            looked = true;
            let begun = Instant::now();
            inner.looking = Some(begun);
            drop(inner);
            look(&shared.in_line, begun);
            inner = shared.inner.lock();
            inner.looking = None;
            continue;
        }
        inner.idle += 1;
        let waited = shared.work.wait_for(&mut inner, IDLE_FOR);
        inner.idle -= 1;
        if waited.timed_out() && inner.tasks.is_empty() {
            break;
        }
    }
    inner.helpers -= 1;
}

/// Waits awake for a task, for a moment.
fn look(in_line: &AtomicUsize, begun: Instant) {
    while in_line.load(Ordering::Relaxed) == 0 && begun.elapsed() < LOOK_FOR {
        std::hint::spin_loop();
    }
}

impl Shared {
    fn start(&self) -> UnderWay {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let under_way = (Instant::now(), inner.next);
        inner.running.insert(under_way);
        under_way
    }

    /// One call of a series ended and the next begins.
    fn renew(&self, under_way: &mut UnderWay) {
        let mut inner = self.inner.lock();
        inner.running.remove(under_way);
        under_way.0 = Instant::now();
        inner.running.insert(*under_way);
    }

    fn end(&self, under_way: UnderWay) {
        self.inner.lock().running.remove(&under_way);
    }
}

impl<T> Call<T> {
    /// The answer, or after the limit an error that says so. The error is ambiguous if the call
    /// had begun.
    pub(crate) fn wait(self, limit: Duration) -> Result<T, DriverError> {
        match self.reply.wait(Instant::now().checked_add(limit)) {
            Some(answer) => answer,
            None => self.leave(limit),
        }
    }

    /// Gives the call up without waiting.
    pub(crate) fn abandon(self) {
        let _ = self.leave(Duration::ZERO);
    }

    /// Gives the call up, unless its answer comes at this moment.
    fn leave(&self, limit: Duration) -> Result<T, DriverError> {
        let shared = &self.shared;
        let left = self.reply.leave(|under_way| {
            let mut inner = shared.inner.lock();
            inner.running.remove(&under_way);
            inner.helpers -= 1;
            if !inner.tasks.is_empty() {
                find_helper(shared, inner);
            }
        });
        match left {
            Departure::Answered(answer) => answer,
            Departure::Begun => Err(no_answer(limit, true)),
            Departure::InTime => Err(no_answer(limit, false)),
        }
    }
}

/// The error of whoever left. A call that never began says nothing of the database: the line was
/// too long.
pub(super) fn no_answer(limit: Duration, begun: bool) -> DriverError {
    let limit = limit.as_secs_f32();
    let message = if begun {
        format!("no answer within {limit} s")
    } else {
        format!("too many calls under way; this one did not begin within {limit} s")
    };
    DriverError::new(ErrorKind::Down, message).hung(begun).congested(!begun).ambiguous(begun)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::memory::MemoryDriver;

    fn calls() -> Calls {
        let driver: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
        let mut calls = Calls::new(&driver, MAX_HELPERS);
        Arc::get_mut(&mut calls.shared).expect("nobody else has it yet").direct = false;
        calls
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn an_answer_comes_back_and_a_panic_is_an_error() {
        let calls = calls();
        let call = calls.begin(|_| Ok(7), Box::new(|_, _| {}));
        assert_eq!(call.wait(SOON).expect("answers"), 7);
        let call = calls.begin::<()>(|_| panic!("oh no"), Box::new(|_, _| {}));
        let error = call.wait(SOON).expect_err("panicked").to_string();
        assert!(error.contains("oh no"), "{error}");
    }

    #[test]
    fn whoever_asks_leaves_in_time_and_the_late_answer_is_cleared_away() {
        let calls = calls();
        let (go, hangs) = mpsc::channel::<()>();
        let (cleared, seen) = mpsc::channel();
        let call = calls.begin(
            move |_| {
                let _ = hangs.recv();
                Ok(7)
            },
            Box::new(move |_, late| cleared.send(late.expect("late")).expect("the test waits")),
        );
        let error = call.wait(Duration::from_millis(20)).expect_err("hangs");
        assert!(error.is_down() && error.is_hung());
        // Others are served meanwhile.
        let call = calls.begin(|_| Ok(1), Box::new(|_, _| {}));
        assert_eq!(call.wait(SOON).expect("answers"), 1);
        go.send(()).expect("the helper hangs");
        assert_eq!(seen.recv_timeout(SOON), Ok(7));
    }

    #[test]
    fn a_call_that_never_began_is_not_ambiguous_and_never_runs() {
        let calls = calls();
        let (go, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let stuck: Vec<_> = (0..MAX_HELPERS)
            .map(|_| {
                let hangs = Arc::clone(&hangs);
                calls.begin(
                    move |_| {
                        let _ = hangs.lock().recv();
                        Ok(())
                    },
                    Box::new(|_, _| {}),
                )
            })
            .collect();
        let (ran, runs) = mpsc::channel();
        let call = calls.begin(move |_| Ok(ran.send(())), Box::new(|_, _| {}));
        let error = call.wait(Duration::from_millis(20)).expect_err("waits in line");
        assert!(!error.is_ambiguous() && !error.marks_down());
        drop(go);
        for one in stuck {
            one.wait(SOON).expect("ends");
        }
        assert_eq!(runs.recv(), Err(mpsc::RecvError), "it was dropped, not run");
    }
}
