//! Starts the threads of a session: those that run jobs, and the loops of each lane.

use std::sync::Arc;

use super::lane::Lane;
use super::pulses::Kind;
use super::{Session, fetcher, heartbeat, janitor, listener, settler, worker};
use crate::database::Database;
use crate::error::Error;
use crate::tools::threads::spawn;

/// Starts the threads that run jobs.
pub(crate) fn start_workers(session: &Arc<Session>) -> Result<(), Error> {
    for number in 0..session.client.program.options.workers {
        let alive = WorkerAlive::new(session);
        spawn(&format!("qudo-worker-{number}"), move || worker::run(&alive.0, number))
            .map_err(Error::no_thread)?;
    }
    Ok(())
}

/// Takes a database up.
pub(crate) fn add_lane(session: &Arc<Session>, database: &Arc<Database>) -> Result<(), Error> {
    let lane = session.make_lane(database);
    let started = start_loops(session, &lane);
    if started.is_err() {
        lane.leave();
    }
    if session.stop.is_stopping() {
        // The shutdown may have looked at the lanes before this one was among them.
        lane.settle.close();
    }
    started
}

fn start_loops(session: &Arc<Session>, lane: &Arc<Lane>) -> Result<(), Error> {
    type Loop = fn(&Arc<Session>, &Arc<Lane>);
    let mut loops: Vec<(Kind, Loop)> = vec![
        (Kind::Fetch, fetcher::run as Loop),
        (Kind::Settle, settler::run),
        (Kind::Heartbeat, heartbeat::run),
        (Kind::Janitor, janitor::run),
    ];
    if lane.claims_side_by_side() {
        loops.push((Kind::FetchBeside, fetcher::run_beside));
    }
    if lane.listens() {
        loops.push((Kind::Listen, listener::run));
    }
    // Back before others can have counted our silence.
    let dead_after = session.client.program.options.dead_after;
    lane.database.begin_work(dead_after / 8, &session.queues);
    // All are counted before the first can end.
    let thread = |(kind, run)| (LaneThread::new(session, lane, kind), run);
    let threads: Vec<_> = loops.into_iter().map(thread).collect();
    for (thread, run) in threads {
        let name = format!("qudo-{}-{}", thread.kind.as_str(), lane.database.name);
        let started = spawn(&name, move || run(&thread.session, &thread.lane));
        if started.is_err() {
            // Before the others that are counted are dropped: the last of them lets go of the lane.
            lane.leave();
            lane.settle.close();
            lane.ring_all();
            return started.map_err(Error::no_thread);
        }
    }
    Ok(())
}

/// Counts a thread that runs jobs for as long as it lives, also when it cannot be started.
struct WorkerAlive(Arc<Session>);

impl WorkerAlive {
    fn new(session: &Arc<Session>) -> Self {
        session.stop.begin_worker();
        Self(Arc::clone(session))
    }
}

impl Drop for WorkerAlive {
    fn drop(&mut self) {
        let session = &self.0;
        session.stop.end_worker();
        session.end_if_overdue();
        if session.stop.workers() == 0 {
            // The heartbeats waited for the last job.
            session.lanes().iter().for_each(|lane| lane.heartbeat_bell.ring());
        }
    }
}

/// Counts a thread of a lane for as long as it lives, also when it cannot be started.
struct LaneThread {
    session: Arc<Session>,
    lane: Arc<Lane>,
    kind: Kind,
}

impl LaneThread {
    fn new(session: &Arc<Session>, lane: &Arc<Lane>, kind: Kind) -> Self {
        let thread = Self { session: Arc::clone(session), lane: Arc::clone(lane), kind };
        lane.begin_thread(thread.is_waited_for());
        if kind == Kind::FetchBeside {
            lane.begin_fetching();
        }
        thread
    }

    /// The listener blocks on its socket and notices a stop only at its next tick; nothing is lost
    /// when the process ends without it.
    fn is_waited_for(&self) -> bool {
        self.kind != Kind::Listen
    }
}

impl Drop for LaneThread {
    fn drop(&mut self) {
        let (session, lane) = (&self.session, &self.lane);
        if matches!(self.kind, Kind::Fetch | Kind::FetchBeside) {
            lane.end_fetching();
            // The end of a stop may have waited for it too.
            session.end_if_overdue();
        }
        let (is_last_waited_for, is_last) = lane.end_thread(self.is_waited_for());
        if is_last_waited_for {
            lane.database.end_work();
        }
        if is_last && lane.is_leaving() {
            session.end_lane(lane);
        }
        session.stop.note();
    }
}
