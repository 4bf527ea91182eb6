use std::sync::Arc;

use qudo_hooks::{HookSet, Outcome};

use super::dispatch::Paces;
use super::life::ThreadLife;
use super::shelf::{Exchanged, Shelf};
use crate::database::interim::JobStore;
use crate::driver::{ClaimedJob, Settlement, Verdict};
use crate::job::{Post, Tenure};
use crate::session::Session;
use crate::session::lane::Lane;
use crate::session::run::{Begun, Context, Ran, run_job};
use crate::tools::awake;
use crate::tools::guard::{guard, say};
use crate::tools::time::Instant;

/// Runs jobs on one thread until the session stops.
pub(crate) fn run(session: &Session, number: usize) {
    let shelf = &session.dispatch.shelves[number];
    let _life = ThreadLife::start(&session.client.program, &session.worker);
    let hooks = session.client.program.hooks();
    let mut thread = Thread {
        session,
        number,
        shelf,
        hooks,
        at: None,
        paces: Paces::default(),
        now: Instant::now(),
    };
    let mut ended = None;
    while let Some(job) = thread.next(ended.take()) {
        ended = thread.work(job);
    }
}

/// Where the thread's jobs come from.
struct Place {
    lane: Arc<Lane>,
    post: Arc<Post>,
}

struct Thread<'s> {
    session: &'s Session,
    number: usize,
    shelf: &'s Shelf,
    /// As they were when the jobs at hand were taken.
    hooks: Arc<HookSet>,
    at: Option<Place>,
    /// How long the runs took since jobs were taken the last time.
    paces: Paces,
    /// When the last run ended, and the next begins.
    now: Instant,
}

impl Thread<'_> {
    /// Puts aside the run that ended and takes the next job: one of those at hand, or from the common queue.
    fn next(&mut self, ended: Option<Settlement>) -> Option<Box<ClaimedJob>> {
        let Exchanged { next, ended } = self.shelf.exchange(ended, self.now);
        if !ended.is_empty()
            && let Some(Place { lane, .. }) = &self.at
        {
            lane.settle.push_all(ended);
        }
        if next.is_some() {
            return next;
        }
        let (paces, at) = (std::mem::take(&mut self.paces), &mut self.at);
        // Whoever waits holds on to no database: it may be removed meanwhile.
        let (lane, job) = self.session.dispatch.pop(self.number, &paces, || *at = None)?;
        if self.at.as_ref().is_none_or(|at| !Arc::ptr_eq(&at.lane, &lane)) {
            self.at = Some(self.place(lane));
        }
        self.hooks = self.session.client.program.hooks();
        self.now = Instant::now();
        Some(job)
    }

    fn place(&self, lane: Arc<Lane>) -> Place {
        let post = Arc::new(Post {
            database: Arc::clone(&lane.database.name),
            driver: Arc::clone(lane.database.driver()),
            worker: self.session.worker.id,
            host: Arc::clone(&self.session.host),
            tenure: Arc::clone(&lane) as Arc<dyn Tenure>,
            store: Arc::new(JobStore(Arc::clone(&lane.database))),
        });
        Place { lane, post }
    }

    /// Runs a job, or gives it back; returns what is to be settled.
    fn work(&mut self, job: Box<ClaimedJob>) -> Option<Settlement> {
        let Place { lane, post } = self.at.take().expect("a job comes from a lane");
        let begun = Begun { at: self.now, awake: awake::now() };
        if lane.is_stopping() || !lane.heart.holds_leases_at(begun.awake) {
            lane.give_back(job);
            self.at = Some(Place { lane, post });
            return None;
        }
        let session = self.session;
        let program = &session.client.program;
        let context = Context { program, hooks: &self.hooks, worker: &session.worker };
        let (id, waited) = (job.id, begun.at.saturating_duration_since(job.ready_since));
        let (queue, ability) = (job.facts.queue.clone(), job.facts.ability.clone());
        // The user's code is contained further in; what is left is a logger or an observer.
        let Ok(Ran { settlement, outcome, post }) = guard(|| run_job(&context, post, job, begun))
        else {
            say(|| log::error!("job {id} will run again when its lease ends: its run panicked"));
            lane.note_settled(1);
            self.at = Some(self.place(lane));
            self.now = Instant::now();
            return None;
        };
        self.now = Instant::now();
        let took = self.now - begun.at;
        self.paces.note(took);
        if settlement.as_ref().is_none_or(|one| one.verdict != Verdict::GiveBack) {
            lane.tally.note(&queue, &ability, &outcome, waited, took);
        }
        if settlement.is_none() {
            // The ability settled it in a transaction of its own.
            lane.note_settled(1);
            session.client.waiters.note([id]);
            lane.tell_ends([id].into_iter());
            if matches!(outcome, Outcome::Replaced(_)) {
                lane.database.bell.ring();
            }
        }
        self.at = Some(Place { lane, post });
        settlement
    }
}
