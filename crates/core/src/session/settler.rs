//! Settles what ended, and waits out whatever stands in the way: the results exist only here.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qudo_hooks::JobId;

use super::Session;
use super::lane::Lane;
use super::loops::supervise;
use super::pulses::Kind;
use super::settle_queue::{Taken, weight};
use super::settling::{AWAY, Answered, Ended, Group, One, Settling, discarded};
use crate::driver::{DriverError, ErrorKind, Settlement};
use crate::tools::causes::with_causes;
use crate::tools::guard::say;
use crate::tools::random::jitter;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, SystemTime};

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

/// A settlement that cannot be made while somebody else's transaction holds one of its rows, most
/// likely its unique key. The others go on meanwhile.
struct Parked {
    one: One,
    pause: Duration,
    again: Instant,
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
    settling: Settling<'a>,
    lane: &'a Lane,
    parked: Vec<Parked>,
    /// What is settled now, should a panic come.
    current: Option<Current>,
    /// Until then none of those is tried.
    quiet_until: Instant,
}

/// Settles for one database until the session's last run ended, then removes the worker's row.
pub(crate) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    let (parked, current) = (Vec::new(), None);
    let (client, worker, database) = (&*session.client, session.worker.id, &lane.database);
    let settling = Settling { client, worker, database, asks_anyway: false };
    let mut settler = Settler { settling, lane, parked, current, quiet_until: Instant::now() };
    supervise(lane, Kind::Settle, || settler.settle_on());
    // While a job of ours still runs, our row must stay: removing it would free its lease.
    let done = session.stop.workers() == 0 || lane.is_empty();
    let joining = lane.is_leaving().then(|| session.joining.lock());
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
        self.lane.note_settled(count);
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
        let one = parked.one.settlement().clone();
        self.conclude_each(std::slice::from_ref(&one));
        self.lane.settle.note_parked(weight(&one) as isize);
        parked.one = One::alone(one, parked.one.repeated);
        self.parked.push(parked);
    }

    fn unpark(&mut self, at: usize) -> Parked {
        let parked = self.parked.remove(at);
        self.lane.settle.note_parked(-(weight(&parked.one.group[0]) as isize));
        self.begin(&parked.one.group, 0);
        parked
    }

    /// Settles a group, or takes it apart where one of its members is in the way of the others.
    fn settle_group(&mut self, group: &Group, mut repeated: bool) {
        let (mut refusals, mut silences) = (0, 0);
        let has_keys = group.iter().any(|one| one.job.uniqkey.is_some());
        let begun = SystemTime::now();
        while !self.lane.is_given_up() {
            if !self.lane.database.is_trusted() {
                if !self.lane.database.is_up() {
                    silences = 0;
                }
                sleep(AWAY);
                if !self.lane.database.is_second_name() {
                    continue;
                }
            }
            let error = match self.settling.ask(group) {
                Ok(answers) => {
                    self.note(self.settling.note_answers(group, &answers, repeated, begun));
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
                Ended::Contended(one, None)
            };
            waiting += usize::from(matches!(ended, Ended::Contended(..)));
            self.conclude(ended, FIRST_PARK);
        }
    }

    fn settle_one(&self, one: One, patience: Duration) -> Ended {
        self.settling.settle_one(one, patience, &|| self.lane.is_given_up())
    }

    fn note(&self, answered: Answered) {
        self.lane.pulses.beat(Kind::Settle);
        self.lane.lost_leases.fetch_add(answered.lost as u64, Ordering::Relaxed);
    }

    /// What follows for one settlement. One that is refused with what it brings is discarded instead,
    /// so that its work is not done over and over. If even that is refused it keeps its lease until
    /// that ends, is rescued then, and runs again: at least once, never lost.
    fn conclude(&mut self, ended: Ended, pause: Duration) {
        match ended {
            Ended::Settled(one, answered) => {
                if let Some(answered) = answered {
                    self.note(answered);
                }
                self.note_settled(std::slice::from_ref(one.settlement()));
            }
            Ended::Contended(one, _) => {
                let again = Instant::now() + jitter(pause);
                self.park(Parked { one, pause, again });
            }
            Ended::Refused(one, error) => {
                let settlement = one.settlement();
                if let Some(discarded) = discarded(settlement, &error) {
                    let one = One::alone(discarded, one.repeated);
                    let ended = self.settle_one(one, self.lane.database.limit());
                    return self.conclude(ended, pause);
                }
                log::error!(
                    "job {} ({}) cannot be settled and will run again when its lease ends: {}",
                    settlement.job.id,
                    settlement.job.ability,
                    with_causes(&error)
                );
                self.note_settled(std::slice::from_ref(one.settlement()));
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
            if matches!(ended, Ended::Contended(..)) {
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
                Ended::Contended(one, None)
            };
            waiting += usize::from(matches!(ended, Ended::Contended(..)));
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
}
