//! Settles what ended, and waits out whatever stands in the way: the results exist only here.

use crate::tools::random::new_id;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, SystemTime};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qudo_hooks::{FailureKind, JobId};

use super::lane::Lane;
use super::loops::{Kind, supervise};
use super::session::Session;
use super::settle_queue::{Taken, weight};
use crate::Driver;
use crate::driver::{
    DriverError, ErrorKind, ExceptionRecord, Extras, Settled, Settlement, Verdict,
};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::guard::say;
use crate::tools::random::jitter;

/// While the database is away, it is looked again whether it is back this often.
const AWAY: Duration = Duration::from_millis(50);

/// A group that the database refuses is tried so often before it is taken apart.
const MOST_REFUSALS: u32 = 3;

/// A group without an answer in time is tried so often before it is taken apart: one of its rows may
/// be locked by somebody's open transaction for longer than a call may take.
const MOST_SILENCES: u32 = 2;

/// Alone, a settlement is waited for so long: the lock that it needs is free, or it is not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A settlement that waits for somebody's lock is tried again after so long, later ever less often.
const FIRST_PARK: Duration = Duration::from_secs(1);
const LONGEST_PARK: Duration = Duration::from_secs(30);

/// After one that still waits, others that were put aside are left for so long: each try leaves a
/// connection behind until the server gives up waiting.
const QUIET: Duration = Duration::from_secs(3);

/// So many members of a group are found to wait before the rest of it is put aside untried.
const MOST_WAITING: usize = 3;

/// A group whose settlement panics so often is given up.
const MOST_PANICS: u32 = 3;

/// How often a settler that has nothing to do shows that it lives.
const LOOK_UP: Duration = Duration::from_secs(5);

type Group = Arc<Vec<Settlement>>;

/// One settlement of a group, alone.
struct One {
    group: Group,
    at: usize,
    /// An earlier try got no answer, so the end may have been settled then.
    repeated: bool,
}

/// A settlement that cannot be made while somebody else's transaction holds one of its rows, most
/// likely its unique key. The others go on meanwhile.
struct Parked {
    one: One,
    pause: Duration,
    again: Instant,
}

/// How the settlement of one run ended.
enum Ended {
    Settled(One),
    Contended(One),
    Refused(One, DriverError),
}

/// A group, or one that was parked.
struct Current {
    group: Group,
    /// Those of it that were noted as settled, or parked; kept only where it is taken apart.
    concluded: HashSet<(JobId, i64)>,
    /// All of it was.
    all: bool,
    panics: u32,
}

fn key(settlement: &Settlement) -> (JobId, i64) {
    (settlement.job.id, settlement.job.claim)
}

struct Settler<'a> {
    session: &'a Session,
    lane: &'a Lane,
    parked: Vec<Parked>,
    /// What is settled now, should a panic come.
    current: Option<Current>,
    /// Until then none of those is tried.
    quiet_until: Instant,
}

/// Settles for one database until the session's last run ended, then removes the worker's row.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    let (parked, current) = (Vec::new(), None);
    let mut settler = Settler { session, lane, parked, current, quiet_until: Instant::now() };
    supervise(session, lane, Kind::Settle, || settler.settle_on());
    // While a job of ours still runs, our row must stay: removing it would free its lease.
    let done = session.workers_done() || lane.is_empty();
    let joining = lane.leaving.load(Ordering::Acquire).then(|| session.joining.lock());
    if done && lane.database.is_up() && !session.works_elsewhere(lane) {
        let worker = session.worker.id;
        let mut may_beat = lane.may_beat.lock();
        *may_beat = false;
        match lane.database.ask(move |driver| driver.remove_worker(worker)) {
            Ok(0) => {}
            Ok(jobs) => log::info!("{jobs} jobs given back to {:?}", &*lane.database.name),
            Err(error) => log::warn!("cannot remove the row of this worker process: {error}"),
        }
    }
    drop(joining);
    // The heartbeats waited for the last end.
    lane.heartbeat_bell.ring();
}

impl Settler<'_> {
    /// Settles until nothing more can come.
    fn settle_on(&mut self) {
        self.settle_after_panic();
        loop {
            let due = self.parked.iter().map(|one| one.again).min();
            let due = due.map(|due| due.max(self.quiet_until));
            let look = Instant::now() + LOOK_UP;
            match self.lane.settle.take(Some(due.map_or(look, |due| due.min(look)))) {
                Taken::Group(group) => {
                    let group = Arc::new(group);
                    self.begin(&group, 0);
                    self.settle_group(&group, false);
                    self.current = None;
                }
                Taken::Nothing => {}
                Taken::Closed if self.parked.is_empty() => break,
                Taken::Closed => {
                    self.try_all_parked();
                    continue;
                }
            }
            if self.parked.is_empty()
                && self.lane.settle.is_empty()
                && self.lane.database.is_trusted()
            {
                self.lane.pulses.beat(Kind::Settle);
            }
            self.try_parked();
        }
    }

    fn begin(&mut self, group: &Group, panics: u32) {
        let (group, concluded) = (Arc::clone(group), HashSet::new());
        self.current = Some(Current { group, concluded, all: false, panics });
    }

    /// What a panic left of a group is settled again, which harms nobody. A group that panics again and
    /// again is given up: its jobs run again when their leases end.
    fn settle_after_panic(&mut self) {
        let Some(current) = self.current.take().filter(|current| !current.all) else { return };
        let is_left = |one: &&Settlement| !current.concluded.contains(&key(one));
        let left: Group = Arc::new(current.group.iter().filter(is_left).cloned().collect());
        self.begin(&left, current.panics + 1);
        if current.panics < MOST_PANICS {
            self.settle_group(&left, true);
        } else {
            let count = left.len();
            say(|| {
                log::error!(
                    "{count} runs cannot be settled and will run again when their leases end"
                );
            });
            self.note_settled(&left);
        }
        self.current = None;
    }

    /// Counts off runs that are settled or given up; each once, also if a panic comes in between.
    fn note_settled(&mut self, runs: &[Settlement]) {
        let count = self.conclude_each(runs);
        self.lane.note_settled(self.session, count);
    }

    /// How many of these were not concluded before.
    fn conclude_each(&mut self, runs: &[Settlement]) -> usize {
        match &mut self.current {
            Some(current) if current.all => 0,
            Some(current) if current.concluded.is_empty() && runs.len() == current.group.len() => {
                current.all = true;
                runs.len()
            }
            Some(current) => runs.iter().filter(|one| current.concluded.insert(key(one))).count(),
            None => runs.len(),
        }
    }

    /// It keeps no more than itself: the others of its group are settled.
    fn park(&mut self, mut parked: Parked) {
        let one = parked.one.group[parked.one.at].clone();
        self.conclude_each(std::slice::from_ref(&one));
        self.lane.settle.note_parked(weight(&one) as isize);
        parked.one.group = Arc::new(vec![one]);
        parked.one.at = 0;
        self.parked.push(parked);
    }

    fn unpark(&mut self, at: usize) -> Parked {
        let parked = self.parked.remove(at);
        self.lane.settle.note_parked(-(weight(&parked.one.group[0]) as isize));
        self.begin(&parked.one.group, 0);
        parked
    }

    fn is_given_up(&self) -> bool {
        // After a stop whose time is over nobody looks any more; what is left is given up when others may
        // hold the jobs.
        self.lane.given_up.load(Ordering::Acquire)
            || (self.session.is_overdue() && !self.lane.holds_leases())
    }

    fn ask(&self, group: &Group) -> Result<Vec<Settled>, DriverError> {
        let (worker, group) = (self.session.worker.id, Arc::clone(group));
        self.lane.database.ask(move |driver| driver.settle(worker, &group))
    }

    /// Whoever was put aside must not hold up the others again, so its answer is waited for only
    /// shortly, and that none comes says nothing of the database.
    fn ask_one(&self, one: &One, patience: Duration) -> Result<Vec<Settled>, DriverError> {
        let (worker, group, at) = (self.session.worker.id, Arc::clone(&one.group), one.at);
        let database = &self.lane.database;
        let epoch = database.epoch();
        let ask = move |driver: &dyn Driver| driver.settle(worker, &group[at..=at]);
        let answer = database.calls.begin(ask, Box::new(|_, _| {})).wait(patience);
        if let Err(error) = &answer
            && !(error.is_hung() && patience < database.limit())
        {
            database.note_error(error, epoch);
        }
        answer
    }

    /// Settles a group, or takes it apart where one of its members is in the way of the others.
    fn settle_group(&mut self, group: &Group, mut repeated: bool) {
        let (mut refusals, mut silences) = (0, 0);
        let has_keys = group.iter().any(|one| one.job.uniqkey.is_some());
        let begun = SystemTime::now();
        while !self.is_given_up() {
            if !self.lane.database.is_trusted() {
                if !self.lane.database.is_up() {
                    silences = 0;
                }
                sleep(AWAY);
                if !self.lane.database.is_second_name() {
                    continue;
                }
            }
            let error = match self.ask(group) {
                Ok(answers) => {
                    self.note_answers(group, &answers, repeated, begun);
                    return self.note_settled(group);
                }
                Err(error) => error,
            };
            // The answer may have been lost on its way: the settlement may be done already.
            repeated |= error.is_ambiguous();
            silences += u32::from(error.is_hung());
            refusals += u32::from(error.kind() != ErrorKind::Down);
            match error.kind() {
                ErrorKind::Down if silences < if has_keys { 1 } else { MOST_SILENCES } => {}
                ErrorKind::Down | ErrorKind::Contention => {
                    return self.settle_apart(group, repeated, &error);
                }
                _ if refusals == MOST_REFUSALS => {
                    return self.settle_apart(group, repeated, &error);
                }
                // It does not mend itself at once; the probe finds out when it has.
                ErrorKind::Schema => self.lane.database.mark_down(&error),
                ErrorKind::Other | ErrorKind::Permission => {
                    let (name, error) = (&*self.lane.database.name, with_causes(&error));
                    log::warn!("database {name:?} could not settle: {error}");
                    sleep(jitter(Duration::from_millis(100 << refusals)));
                }
            }
        }
        self.note_settled(group);
    }

    /// One settlement that the database refuses, or that waits for a lock, must not hold up the
    /// others. It is most likely one with a unique key: those without go together first.
    fn settle_apart(&mut self, group: &Group, repeated: bool, error: &DriverError) {
        log::warn!(
            "database {:?} cannot settle a group of {}: {}; settling it in parts",
            &*self.lane.database.name,
            group.len(),
            with_causes(error)
        );
        let all = 0..group.len();
        let (keyed, plain): (Vec<_>, Vec<_>) = all.partition(|at| group[*at].job.uniqkey.is_some());
        let together = !keyed.is_empty() && plain.len() > 1;
        if together {
            let plain = plain.iter().map(|at| group[*at].clone()).collect();
            self.settle_group(&Arc::new(plain), repeated);
        }
        let mut waiting = 0;
        let rest = keyed.iter().chain(plain.iter().filter(|_| !together));
        for at in rest.copied() {
            let one = One { group: Arc::clone(group), at, repeated };
            let ended = if waiting < MOST_WAITING {
                self.settle_one(one, PATIENCE)
            } else {
                Ended::Contended(one)
            };
            waiting += usize::from(matches!(ended, Ended::Contended(_)));
            self.conclude(ended, FIRST_PARK);
        }
    }

    fn settle_one(&self, mut one: One, patience: Duration) -> Ended {
        let begun = SystemTime::now();
        while !self.is_given_up() {
            if !self.lane.database.is_trusted() {
                sleep(AWAY);
                if !self.lane.database.is_second_name() {
                    continue;
                }
            }
            let error = match self.ask_one(&one, patience) {
                Ok(answers) => {
                    let settlement = std::slice::from_ref(&one.group[one.at]);
                    self.note_answers(settlement, &answers, one.repeated, begun);
                    return Ended::Settled(one);
                }
                Err(error) => error,
            };
            one.repeated |= error.is_ambiguous();
            match error.kind() {
                ErrorKind::Down if !error.is_hung() => {}
                // Missing rights or tables that only this one needs are waited for like a lock.
                ErrorKind::Down
                | ErrorKind::Contention
                | ErrorKind::Schema
                | ErrorKind::Permission => return Ended::Contended(one),
                ErrorKind::Other => return Ended::Refused(one, error),
            }
        }
        Ended::Settled(one)
    }

    /// What follows for one settlement. One that is refused with what it brings is discarded instead,
    /// so that its work is not done over and over. If even that is refused it keeps its lease until
    /// that ends, is rescued then, and runs again: at least once, never lost.
    fn conclude(&mut self, ended: Ended, pause: Duration) {
        match ended {
            Ended::Settled(one) => self.note_settled(&one.group[one.at..=one.at]),
            Ended::Contended(one) => {
                let again = Instant::now() + jitter(pause);
                self.park(Parked { one, pause, again });
            }
            Ended::Refused(one, error) => {
                let settlement = &one.group[one.at];
                if let Some(discarded) = discarded(settlement, &error) {
                    let group = Arc::new(vec![discarded]);
                    let one = One { group, at: 0, repeated: one.repeated };
                    let ended = self.settle_one(one, self.lane.database.limit());
                    return self.conclude(ended, pause);
                }
                log::error!(
                    "job {} ({}) cannot be settled and will run again when its lease ends: {}",
                    settlement.job.id,
                    settlement.job.ability,
                    with_causes(&error)
                );
                self.note_settled(&one.group[one.at..=one.at]);
            }
        }
    }

    /// Tries the one that has waited longest.
    fn try_parked(&mut self) {
        let Some(at) = (0..self.parked.len()).min_by_key(|at| self.parked[*at].again) else {
            return;
        };
        if self.parked[at].again.max(self.quiet_until) <= Instant::now() {
            let Parked { one, pause, .. } = self.unpark(at);
            let ended = self.settle_one(one, PATIENCE);
            if matches!(ended, Ended::Contended(_)) {
                self.quiet_until = Instant::now() + QUIET;
            }
            self.conclude(ended, (pause * 2).min(LONGEST_PARK));
            self.current = None;
        }
    }

    /// Before the end: all, now and again, because there may be no later.
    fn try_all_parked(&mut self) {
        let mut waiting = 0;
        for _ in 0..self.parked.len() {
            // One at a time, so that a panic leaves the others where they are.
            let Parked { one, pause, .. } = self.unpark(0);
            let ended = if waiting < MOST_WAITING {
                self.settle_one(one, PATIENCE)
            } else {
                Ended::Contended(one)
            };
            waiting += usize::from(matches!(ended, Ended::Contended(_)));
            self.conclude(ended, pause);
            self.current = None;
        }
        // Those that were not tried come first the next time.
        let tried = waiting.min(MOST_WAITING).min(self.parked.len());
        self.parked.rotate_left(tried);
        if !self.parked.is_empty() {
            sleep(AWAY);
        }
    }

    fn note_answers(
        &self,
        group: &[Settlement],
        answers: &[Settled],
        repeated: bool,
        begun: SystemTime,
    ) {
        let (session, lane) = (self.session, self.lane);
        lane.pulses.beat(Kind::Settle);
        let mut soon = false;
        for (settlement, answer) in group.iter().zip(answers) {
            let lost = !answer.is_done();
            // After a lost answer it cannot be told whether the lease was lost or our own first try
            // ended it.
            let answer = (!repeated || !lost).then_some(answer);
            session.manager.tell(|| Event::Settled {
                worker: session.worker.id,
                database: &lane.database.name,
                job: settlement.job.id,
                attempt: settlement.job.attempt,
                verdict: settlement.verdict,
                answer: answer.cloned(),
            });
            if !lost && let Some(extras) = &settlement.extras {
                let without = answer.map_or(&[][..], Settled::without);
                let name = &lane.database.name;
                session.manager.tell_replacements(&extras.replacements, without, name, begun);
            }
            soon |= !lost && brings_work(settlement, session.manager.options().delay);
            if lost && !repeated && settlement.verdict != Verdict::GiveBack {
                lane.lost_leases.fetch_add(1, Ordering::Relaxed);
                log::warn!(
                    "job {} ({}) attempt {}: the lease was lost, so its end changed nothing",
                    settlement.job.id,
                    settlement.job.ability,
                    settlement.job.attempt
                );
            }
        }
        let last = |one: &&Settlement| matches!(one.verdict, Verdict::Complete | Verdict::Discard);
        session.manager.inner.waiters.note(group.iter().filter(last).map(|one| one.job.id));
        if soon {
            // The fetcher may sleep until a due time that it heard of before.
            lane.database.bell.ring();
        }
    }
}

/// Whether a settlement leaves work that comes before the next regular look.
fn brings_work(settlement: &Settlement, delay: Duration) -> bool {
    match settlement.verdict {
        Verdict::Retry(after) | Verdict::Snooze(after) => after < delay,
        _ => settlement.extras.as_ref().is_some_and(|extras| !extras.replacements.is_empty()),
    }
}

/// The job as one that failed for good, because its end is refused with what it brings, such as a reply
/// that is too large; `None` when it brings nothing.
pub(super) fn discarded(settlement: &Settlement, error: &DriverError) -> Option<Settlement> {
    let brought = settlement.extras.as_ref()?;
    if brought.replies.is_empty() && brought.replacements.is_empty() {
        return None;
    }
    let message = format!("the end of the run cannot be stored: {}", with_causes(error));
    log::error!("job {} ({}): {message}", settlement.job.id, settlement.job.ability);
    let exception = ExceptionRecord { id: new_id(), kind: FailureKind::Error, message };
    let extras = Extras { exception: Some(exception), ..Extras::default() };
    Some(Settlement {
        job: settlement.job.clone(),
        verdict: Verdict::Discard,
        extras: Some(Box::new(extras)),
    })
}
