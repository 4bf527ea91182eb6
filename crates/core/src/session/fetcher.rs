use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::driver::{ClaimedJob, DriverError, ErrorKind, WakeSource};
use crate::session::Session;
use crate::session::claimable::Claimable;
use crate::session::claiming::Claiming;
use crate::session::dispatch::{Claimer, STALE_RESERVATION};
use crate::session::lane::Lane;
use crate::session::loops::supervise;
use crate::session::pulses::Kind;
use crate::session::uncertain::Uncertain;
use crate::tools::bell::Bell;
use crate::tools::random::jitter;
use crate::tools::time::Instant;

/// How many due jobs one promotion moves: bounded, so that a claim never waits long for it.
const MAX_PROMOTE: u32 = 1_000;

/// While there is work, due jobs are looked for this often.
const PROMOTE_EVERY: Duration = Duration::from_millis(200);

/// Claimed but unsettled jobs beyond this wait for the settler: memory stays bounded when a
/// database takes claims but is slow to settle.
const MAX_IN_FLIGHT: usize = 10_000;

/// The same for the bytes of what ended and is not settled: replies and arguments.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// After an error of a claim that is neither an absence nor a lock, the next comes so much later.
const TROUBLED: Duration = Duration::from_secs(1);

/// The same after a lock, or a statement that somebody ended.
const CONTENDED: Duration = Duration::from_millis(150);

/// The same where the account lacks a right.
const REFUSED: Duration = Duration::from_secs(10);

/// While what ended waits to be settled, the next look comes so much later.
const BLOCKED: Duration = Duration::from_millis(5);

/// Meanwhile a stop is noticed this soon.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The shortest pause between two looks at a database that has to be asked.
const MIN_POLL: Duration = Duration::from_millis(3);

/// A database that has been idle for a while is asked every 1/200 of that while: the first job
/// after a quiet time waits half a percent of it, and an idle server sees ever fewer questions.
const IDLE_SHARE: u32 = 200;

/// What the fetcher remembers between rounds.
struct Fetcher<'a> {
    session: &'a Arc<Session>,
    lane: &'a Arc<Lane>,
    /// Whether it is the first, or claims beside that one, which does all else.
    kind: Kind,
    /// Which queue is asked first: it turns, so that a full queue does not starve the next.
    turn: usize,
    last_work: Instant,
    next_promotion: Instant,
    /// Claims whose answer was lost: their leases must be released before the next claim.
    uncertain: Vec<Uncertain>,
    /// Claims whose jobs were not delivered yet.
    under_way: Vec<Uncertain>,
    /// How many jobs it asks for; from then until they are delivered the lane counts its claim.
    reserved: u32,
    /// How many of them other lanes were told of.
    handed_over: usize,
    /// What ended waits to be settled, so that nothing is claimed.
    blocked: bool,
    /// The last look at every queue found nothing.
    idle: bool,
    /// What is not paused.
    claimable: Claimable,
    /// Something woke the fetcher: it may be a job that is due before the next promotion.
    woken: bool,
}

/// Claims for one database until the session stops.
pub(crate) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    session.meet(lane);
    fetch(session, lane, Kind::Fetch);
}

/// The same beside the first, while there is a backlog whose jobs end faster than one claim after the other brings
/// them.
pub(crate) fn run_beside(session: &Arc<Session>, lane: &Arc<Lane>) {
    fetch(session, lane, Kind::FetchBeside);
}

fn fetch(session: &Arc<Session>, lane: &Arc<Lane>, kind: Kind) {
    let now = Instant::now();
    let mut fetcher = Fetcher {
        session,
        lane,
        kind,
        turn: 0,
        last_work: now,
        next_promotion: now,
        uncertain: Vec::new(),
        under_way: Vec::new(),
        reserved: 0,
        handed_over: 0,
        blocked: false,
        idle: false,
        claimable: Claimable::under(
            &lane.database.orders.known(),
            &session.queues,
            &session.abilities,
        ),
        woken: false,
    };
    supervise(lane, kind, || {
        fetcher.recover_from_panic();
        fetcher.fetch_on();
    });
    fetcher.withdraw();
    fetcher.release_all();
    // A claim in flight at the stop may deliver after the lane was drained, perhaps to threads that have ended: those
    // jobs go back too.
    for job in session.dispatch.take_back(lane.index) {
        lane.give_back(job);
    }
}

impl Fetcher<'_> {
    /// Claims until the lane stops.
    fn fetch_on(&mut self) {
        let lane = self.lane;
        while !lane.is_stopping() {
            let control = lane.database.orders.known();
            let paused = control.paused || self.session.is_quiet();
            if self.claimable.is_outdated(&control) {
                self.claimable =
                    Claimable::under(&control, &self.session.queues, &self.session.abilities);
            }
            if !lane.database.is_trusted() || !lane.heart.holds_leases() || paused {
                if paused && lane.database.is_trusted() {
                    lane.pulses.beat(self.kind);
                    // Claims whose answers were lost hold leases that nobody works.
                    if let Err(error) = self.release_uncertain() {
                        log::debug!("database {:?}: {error}", &*lane.database.name);
                    }
                }
                self.withdraw();
                if lane.database.is_second_name() {
                    // Only its first name may still be asked.
                    self.hand_over();
                }
                // The bell rings when the database is back; the pause covers a missed heartbeat.
                self.bell().wait(Duration::from_millis(500));
                continue;
            }
            match self.round() {
                Ok(pause) => {
                    if !std::mem::take(&mut self.blocked) {
                        lane.pulses.beat(self.kind);
                    }
                    if let Some(pause) = pause {
                        self.sleep(self.next_release().map_or(pause, |next| next.min(pause)));
                    }
                }
                Err(error) => self.recover(&error),
            }
        }
    }

    fn is_first(&self) -> bool {
        self.kind == Kind::Fetch
    }

    fn claimer(&self) -> Claimer {
        if self.is_first() { Claimer::First } else { Claimer::Beside }
    }

    fn bell(&self) -> &Bell {
        if self.is_first() { &self.lane.database.bell } else { &self.lane.beside_bell }
    }

    /// Gives up the turn of the lane, for which the first fetcher waits.
    fn withdraw(&self) {
        if self.is_first() {
            self.session.dispatch.withdraw(self.lane.index);
        }
    }

    /// What was claimed when a panic came is known to nobody: it is given back by the number of the claim.
    fn recover_from_panic(&mut self) {
        self.uncertain.append(&mut self.under_way);
        // Nothing comes of the reservation.
        self.deliver(Vec::new());
    }

    /// Asks how many jobs are wanted.
    fn reserve(&mut self) -> u32 {
        let (dispatch, lane) = (&self.session.dispatch, self.lane.index);
        let wanted = match self.claimer() {
            Claimer::First => dispatch.reserve(lane),
            // Not as long as its server belongs to a cluster, which shows only when it has answered.
            Claimer::Beside if !self.lane.claims_side_by_side() => 0,
            Claimer::Beside => dispatch.reserve_beside(lane),
        };
        if wanted > 0 {
            self.reserved = wanted;
            self.lane.claiming.fetch_add(1, Ordering::SeqCst);
        }
        wanted
    }

    /// Ends what [`reserve`](Self::reserve) began. What the claim brought is counted already: the heartbeat looks at
    /// both counts.
    fn deliver(&mut self, jobs: Vec<ClaimedJob>) {
        self.session.dispatch.deliver(self.lane.index, self.claimer(), jobs);
        if std::mem::take(&mut self.reserved) > 0 {
            self.lane.claiming.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// One look at the database: promote what is due, then claim from the queues in turn.
    /// Returns how long to sleep, or `None` to go on at once.
    fn round(&mut self) -> Result<Option<Duration>, DriverError> {
        self.release_uncertain()?;
        if self.is_first() && Instant::now() >= self.next_promotion {
            self.promote()?;
        }
        if self.lane.in_flight.load(Ordering::Relaxed) > MAX_IN_FLIGHT
            || self.lane.settle.bytes() > MAX_BYTES
        {
            self.blocked = true;
            // The second is not missed until then.
            let pause = if self.is_first() { BLOCKED } else { STALE_RESERVATION };
            return Ok(Some(pause));
        }
        let wanted = self.reserve();
        if wanted == 0 {
            // No worker thread needs anything: the bell rings when one does. Asking the database
            // meanwhile would find the backlog again and again.
            self.idle = false;
            let delay = self.session.client.program.options.delay;
            // Threads may be held for a lane whose database does not answer, or that does not come to
            // its turn; nobody rings when that is over.
            let held = self.is_first() && self.session.dispatch.has_idle();
            return Ok(Some(if held { delay.min(STALE_RESERVATION) } else { delay }));
        }
        let death = self.lane.heart.death();
        let claimed = self.claim(wanted);
        let (jobs, result) = match claimed {
            Ok(jobs) => (jobs, Ok(())),
            Err((jobs, error)) => (jobs, Err(error)),
        };
        let found = jobs.len();
        self.lane.in_flight.fetch_add(found, Ordering::SeqCst);
        self.under_way.clear();
        // A process that was stopped between the claim and now, and found dead: others may hold what it
        // brought. If it is found just now, the beat may have cleared the queue before this comes.
        let (jobs, stale) =
            if self.lane.heart.death() == death { (jobs, Vec::new()) } else { (Vec::new(), jobs) };
        self.deliver(jobs);
        for job in stale {
            self.lane.give_back(Box::new(job));
        }
        if self.lane.heart.death() != death {
            for job in self.session.dispatch.take_back(self.lane.index) {
                self.lane.give_back(job);
            }
        }
        result?;
        self.lane.database.note_claim();
        self.idle = found == 0;
        if found > 0 {
            self.last_work = Instant::now();
            return Ok(None);
        }
        if !self.is_first() {
            // It waits until it is called, as the claim without jobs says that there is no backlog.
            return Ok(None);
        }
        // The claim comes first after a wake-up: most are for a job that is ready, and looking for
        // due ones is a round trip that it would wait for.
        if std::mem::take(&mut self.woken) && self.promote()? > 0 {
            return Ok(None);
        }
        let due = self.next_promotion.saturating_duration_since(Instant::now());
        Ok(Some(due.min(self.session.client.program.options.delay)))
    }

    fn release_uncertain(&mut self) -> Result<(), DriverError> {
        self.take_over();
        let worker = self.session.worker.id;
        let mut at = 0;
        while let Some(one) = self.uncertain.get_mut(at) {
            let (claim, is_over) = (one.claim, Instant::now() >= one.deadline);
            if one.released && !is_over {
                at += 1;
                continue;
            }
            let found =
                self.lane.database.ask(move |driver| driver.release_claim(worker, claim))?;
            one.released = true;
            if is_over || found > 0 {
                self.uncertain.swap_remove(at);
                self.handed_over = 0;
            }
        }
        Ok(())
    }

    /// At the end: as a rule they go with the worker's row, but another lane may go on with that. A
    /// database that is away is not waited for.
    fn release_all(&mut self) {
        if self.lane.database.is_trusted()
            && let Err(error) = self.release_uncertain()
        {
            log::debug!("database {:?}: {error}", &*self.lane.database.name);
        }
        self.hand_over();
    }

    /// Tells the other lanes of the same database, if there are any, what is uncertain. It is kept here
    /// too: this may be a restored copy after all, and to release a claim twice harms nobody.
    fn hand_over(&mut self) {
        let session = self.session;
        let identity = self.lane.database.orders.known().identity;
        let Some(identity) = identity.filter(|_| self.handed_over < self.uncertain.len()) else {
            return;
        };
        let left = self.uncertain.iter().map(|one| (identity, *one));
        session.left_claims.lock().extend(left);
        self.handed_over = self.uncertain.len();
        let same = |lane: &Arc<Lane>| lane.database.orders.known().identity == Some(identity);
        for lane in
            session.lanes().iter().filter(|lane| lane.index != self.lane.index && same(lane))
        {
            // Else it would sleep until its next look at the database.
            lane.database.bell.ring();
        }
    }

    /// Takes over what other lanes left.
    fn take_over(&mut self) {
        let mut left = self.session.left_claims.lock();
        if left.is_empty() {
            return;
        }
        let Some(ours) = self.lane.database.orders.known().identity else { return };
        for (identity, one) in std::mem::take(&mut *left) {
            if identity == ours {
                // As it was when it was left there: the other lane cannot release it.
                self.uncertain.push(Uncertain { released: false, ..one });
            } else {
                left.push((identity, one));
            }
        }
    }

    /// How long until a claim can be released for good.
    fn next_release(&self) -> Option<Duration> {
        let deadlines = self.uncertain.iter().map(|one| one.deadline);
        deadlines.min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn promote(&mut self) -> Result<u32, DriverError> {
        let promotion = self.lane.database.ask(|driver| driver.promote_due(MAX_PROMOTE))?;
        let pause = if promotion.moved >= MAX_PROMOTE {
            Duration::ZERO
        } else {
            let far = self.session.client.program.options.delay;
            let mut next = promotion.next.unwrap_or(far).min(far);
            if promotion.moved == 0 && next.is_zero() {
                // It is due, and somebody's open transaction holds its row.
                next = PROMOTE_EVERY;
            }
            // A due time rounds to the database's microsecond; a millisecond later it is past.
            if self.idle { next + Duration::from_millis(1) } else { next.min(PROMOTE_EVERY) }
        };
        self.next_promotion = Instant::now() + pause;
        Ok(promotion.moved)
    }

    /// Claims up to `wanted` jobs, queue after queue. What was claimed before an error is kept.
    fn claim(&mut self, wanted: u32) -> Result<Vec<ClaimedJob>, (Vec<ClaimedJob>, DriverError)> {
        let (session, database) = (self.session, &self.lane.database);
        let (worker, abilities) = (session.worker.id, &self.claimable.abilities);
        let claiming = Claiming {
            program: &session.client.program,
            worker,
            abilities,
            database,
            thorough: false,
        };
        let queues = &self.claimable.queues;
        let mut jobs = Vec::new();
        for step in 0..queues.len() {
            let queue = &queues[(self.turn + step) % queues.len()];
            let claim = self.session.claims.fetch_add(1, Ordering::Relaxed);
            let limit = wanted - jobs.len() as u32;
            let deadline = Instant::now() + self.lane.database.limit();
            self.under_way.push(Uncertain { claim, deadline, released: false });
            match claiming.claim(queue, claim, limit, deadline) {
                Ok(claimed) if jobs.is_empty() => jobs = claimed,
                Ok(claimed) => jobs.extend(claimed),
                Err(error) => {
                    if error.is_ambiguous() || error.is_down() {
                        self.uncertain.push(Uncertain { claim, deadline, released: false });
                    }
                    return Err((jobs, error));
                }
            }
            if jobs.len() as u32 >= wanted {
                self.turn = (self.turn + step + 1) % queues.len();
                break;
            }
        }
        Ok(jobs)
    }

    /// Sleeps until the pause is over, the bell rings, or the database says that it changed.
    fn sleep(&mut self, pause: Duration) {
        if !self.idle || !self.is_first() {
            self.bell().wait(jitter(pause));
            return;
        }
        if self.lane.listening.load(Ordering::Acquire) {
            self.woken = self.lane.database.bell.wait(jitter(pause));
            return;
        }
        let at_most = match self.lane.database.driver().wake_source() {
            WakeSource::Poll { at_most } => at_most,
            WakeSource::Listen => None,
        };
        let until = Instant::now() + pause;
        let queues: Vec<&str> = self.claimable.queues.iter().map(AsRef::as_ref).collect();
        let longest = at_most.unwrap_or(pause).min(pause);
        while !self.lane.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let step = (self.last_work.elapsed() / IDLE_SHARE).min(longest).max(MIN_POLL);
            if self.lane.database.bell.wait(jitter(step).min(left)) {
                break;
            }
            // An error shows again in the next round, where it is dealt with.
            let changed = if at_most.is_some() {
                // So cheap that it waits for nothing.
                self.lane.database.driver().changed(&queues, &self.claimable.abilities)
            } else if !self.lane.database.is_trusted() {
                break;
            } else {
                let queues = Arc::clone(&self.claimable.queues);
                let abilities = Arc::clone(&self.claimable.abilities);
                self.lane.database.ask(move |driver| {
                    let queues: Vec<_> = queues.iter().map(AsRef::as_ref).collect();
                    driver.changed(&queues, &abilities)
                })
            };
            if changed.unwrap_or(true) {
                break;
            }
        }
        self.woken = true;
    }

    fn recover(&mut self, error: &DriverError) {
        match error.kind() {
            // It is noted already; if the database is in use all the same, it is slow.
            ErrorKind::Down => {
                self.bell().wait(jitter(Duration::from_millis(50)));
            }
            ErrorKind::Schema => {
                // It does not mend itself at once; the probe finds out when it has.
                self.lane.database.mark_down(error);
            }
            ErrorKind::Contention => {
                let text = crate::tools::causes::with_causes(error);
                log::warn!("database {:?} could not claim: {text}", &*self.lane.database.name);
                self.bell().wait(jitter(CONTENDED));
            }
            kind => {
                let text = crate::tools::causes::with_causes(error);
                log::error!("database {:?} could not claim: {text}", &*self.lane.database.name);
                // A right that claims lack: the database is as good as ever for all else. Enqueues ring.
                let pause = if kind == ErrorKind::Permission { REFUSED } else { TROUBLED };
                let until = Instant::now() + jitter(pause);
                while !self.lane.is_stopping() && Instant::now() < until {
                    let left = until.saturating_duration_since(Instant::now());
                    self.bell().wait(left.min(LOOK_AGAIN));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use super::*;
    use crate::driver::Driver;
    use crate::fixture::{SOON, memory};
    use crate::session::bed::{Bed, eventually};
    use crate::session::shutdown::shut_down;
    use crate::testing::FaultyDriver;

    fn end(bed: &Bed, runs: u32) {
        bed.pace.may_end.ring();
        bed.begun(runs);
        eventually(|| bed.left().0 + bed.left().1 == 0);
        shut_down(&bed.session);
        assert_eq!(bed.pace.begun.load(Ordering::SeqCst), runs, "each once");
        assert_eq!(bed.left(), (0, 0, 0));
    }

    #[test]
    fn jobs_are_claimed_as_soon_as_they_are_there() {
        let bed = Bed::with(SOON);
        eventually(|| bed.left().2 == 1);
        bed.insert(20);
        end(&bed, 20);
    }

    #[test]
    fn a_claim_whose_answer_was_lost_is_released_before_the_next() {
        let lost = AtomicBool::new(false);
        let driver = FaultyDriver::new(memory()).with_claim(move |driver, request| {
            let jobs = driver.claim(request)?;
            if !jobs.is_empty() && !lost.swap(true, Ordering::SeqCst) {
                let broken = DriverError::new(ErrorKind::Other, "the connection broke");
                return Err(broken.ambiguous(true));
            }
            Ok(jobs)
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        bed.insert(3);
        end(&bed, 3);
    }

    #[test]
    fn a_claim_that_panics_leaves_no_job_leased() {
        let panicked = AtomicBool::new(false);
        let driver = FaultyDriver::new(memory()).with_claim(move |driver, request| {
            let jobs = driver.claim(request)?;
            assert!(jobs.is_empty() || panicked.swap(true, Ordering::SeqCst), "on purpose");
            Ok(jobs)
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        bed.insert(3);
        end(&bed, 3);
    }

    #[test]
    fn an_error_of_a_claim_is_no_reason_to_stop_and_none_to_ask_without_end() {
        let (claims, fails) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
        let (counted, failing) = (Arc::clone(&claims), Arc::clone(&fails));
        let driver = FaultyDriver::new(memory()).with_claim(move |driver, request| {
            counted.fetch_add(1, Ordering::SeqCst);
            if failing.load(Ordering::SeqCst) {
                return Err(DriverError::new(ErrorKind::Contention, "a lock"));
            }
            driver.claim(request)
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        eventually(|| claims.load(Ordering::SeqCst) > 1);
        let (begun, before) = (Instant::now(), claims.load(Ordering::SeqCst));
        std::thread::sleep(CONTENDED * 3);
        let made = claims.load(Ordering::SeqCst) - before;
        let most = begun.elapsed().as_millis() / (CONTENDED.as_millis() / 2) + 1;
        assert!(u128::from(made) <= most, "{made} claims");
        fails.store(false, Ordering::SeqCst);
        bed.insert(2);
        end(&bed, 2);
    }

    #[test]
    fn a_job_that_becomes_due_is_promoted_and_claimed() {
        let bed = Bed::with(SOON);
        let mut job = crate::fixture::record();
        job.due = crate::driver::Due::In(Duration::from_millis(50));
        let driver: &Arc<dyn Driver> = bed.database.driver();
        driver.insert(&[job], crate::driver::Deadline::NONE).expect("stored");
        end(&bed, 1);
    }

    #[test]
    fn nothing_is_claimed_from_a_paused_database() {
        use crate::driver::{Admin as _, Deadline, Order};
        let (claims, beats) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (claimed, beaten) = (Arc::clone(&claims), Arc::clone(&beats));
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            let calls = match call {
                "claim" => &claimed,
                "heartbeat" => &beaten,
                _ => return Ok(()),
            };
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        driver.set_control(&Order::Paused, true, Deadline::NONE).expect("answers");
        let bed = Bed::over(Arc::new(driver), SOON);
        bed.insert(1);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        // In the time of many beats it would have claimed.
        eventually(|| {
            bed.database.bell.ring();
            lane.heartbeat_bell.ring();
            lane.heart.beat_at_least_every(Some(Duration::from_millis(1)));
            beats.load(Ordering::SeqCst) > 20
        });
        assert_eq!((bed.left().0, claims.load(Ordering::SeqCst)), (1, 0));
        lane.heart.beat_at_least_every(None);
        bed.database.order(Order::Paused, false).expect("answers");
        end(&bed, 1);
    }

    /// A session over a driver that claims side by side, of which `after` is told which claim was the second of
    /// two, and may panic or wait; and how many claims were.
    fn side_by_side(after: impl Fn(bool) + Send + Sync + 'static) -> (Bed, Arc<AtomicU32>) {
        let (under_way, seconds) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
        let (counted, large) = (Arc::clone(&seconds), AtomicU32::new(0));
        let claim = move |driver: &dyn Driver, request: &crate::driver::ClaimRequest<'_>| {
            let is_second = under_way.fetch_add(1, Ordering::SeqCst) == 1;
            counted.fetch_add(u32::from(is_second), Ordering::SeqCst);
            // What the first of the large ones brings says that there is a backlog.
            if request.limit == 1_000 && large.fetch_add(1, Ordering::SeqCst) > 0 {
                eventually(|| counted.load(Ordering::SeqCst) > 0);
            }
            let jobs = driver.claim(request);
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| after(is_second)));
            under_way.fetch_sub(1, Ordering::SeqCst);
            panic.map_err(std::panic::resume_unwind).expect("went on");
            jobs
        };
        let driver = FaultyDriver::new(memory()).with_claim(claim).that_claims_side_by_side();
        let bed = Bed::with_threads(2, Arc::new(driver), SOON);
        bed.pace.at_once.store(true, Ordering::SeqCst);
        (bed, seconds)
    }

    #[test]
    fn while_there_is_a_backlog_of_short_jobs_a_second_claim_is_made_beside_the_first() {
        let (bed, seconds) = side_by_side(|_| ());
        bed.insert(20);
        bed.begun(20);
        assert_eq!(seconds.load(Ordering::SeqCst), 0, "there is no backlog");
        bed.insert(6_000);
        end(&bed, 6_020);
        assert!(seconds.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn a_second_claim_that_panics_leaves_no_job_leased() {
        let panicked = AtomicBool::new(false);
        let (bed, seconds) = side_by_side(move |is_second| {
            assert!(!is_second || panicked.swap(true, Ordering::SeqCst), "on purpose");
        });
        bed.insert(6_000);
        end(&bed, 6_000);
        assert!(seconds.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn what_two_claims_bring_after_a_stop_is_given_back() {
        let (may_go_on, waits) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let (go_on, waiting) = (Arc::clone(&may_go_on), Arc::clone(&waits));
        let (bed, seconds) = side_by_side(move |is_second| {
            if is_second {
                go_on.store(false, Ordering::SeqCst);
            }
            waiting.fetch_add(1, Ordering::SeqCst);
            eventually(|| go_on.load(Ordering::SeqCst));
            waiting.fetch_sub(1, Ordering::SeqCst);
        });
        bed.insert(20_000);
        eventually(|| waits.load(Ordering::SeqCst) == 2 && seconds.load(Ordering::SeqCst) > 0);
        std::thread::scope(|scope| {
            scope.spawn(|| shut_down(&bed.session));
            eventually(|| bed.session.stop.is_stopping());
            may_go_on.store(true, Ordering::SeqCst);
        });
        let depth = bed.database.driver().depth(100_000).expect("answers");
        let begun = u64::from(bed.pace.begun.load(Ordering::SeqCst));
        assert_eq!((depth.ready.count + begun, depth.running.count), (20_000, 0));
    }
}
