//! Settles what ended, and waits out whatever stands in the way: the results exist only here.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use qudo_hooks::JobId;

use super::Session;
use super::janitor::report_runs;
use super::lane::Lane;
use super::loops::supervise;
use super::pulses::Kind;
use super::settle_queue::Taken;
use super::settling::{AWAY, Answered, Ended, Group, One, Settling, gone};
use super::weight::weight;
use crate::driver::{DriverError, ErrorKind, Settlement};
use crate::tools::causes::with_causes;
use crate::tools::guard::say;
use crate::tools::random::jitter;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, SystemTime};

/// A group that the database refuses is tried so often before it is taken apart.
const MAX_REFUSALS: u32 = 3;

/// A group without an answer in time is tried so often before it is taken apart: one of its rows may
/// be locked by somebody's open transaction for longer than a call may take.
const MAX_SILENCES: u32 = 2;

/// Alone, a settlement is waited for so long: the lock that it needs is free, or it is not.
const PATIENCE: Duration = Duration::from_secs(1);

/// A settlement that waits for somebody's lock is tried again after so long, later ever less often.
const FIRST_PARK: Duration = Duration::from_secs(1);
const MAX_PARK: Duration = Duration::from_secs(30);

/// After one that still waits, others that were put aside are left for so long: each try leaves a
/// connection behind until the server gives up waiting.
const QUIET: Duration = Duration::from_secs(3);

/// So many members of a group are found to wait before the rest of it is put aside untried.
const MAX_WAITING: usize = 3;

/// A group whose settlement panics so often is given up.
const MAX_PANICS: u32 = 3;

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
    let (client, worker, database) = (&*session.client, &session.worker, &lane.database);
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
    // After the row is removed, for which others may wait; and not when nobody waits any more. An earlier report that was not answered comes first.
    if lane.database.is_up()
        && !session.stop.is_overdue()
        && !(report_runs(lane) && report_runs(lane))
    {
        let name = &*lane.database.name;
        log::info!("database {name:?}: numbers of the last runs are lost");
    }
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
        if current.panics < MAX_PANICS {
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
        let has_keys = group.iter().any(|one| one.job.facts.uniqkey.is_some());
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
                    self.lane.tell_ends(gone(group));
                    self.note_settled(group);
                    return self.settling.tell_hooks(group, &answers);
                }
                Err(error) => error,
            };
            // The answer may have been lost on its way: the settlement may be done already.
            repeated |= error.is_ambiguous();
            silences += u32::from(error.is_hung());
            refusals += u32::from(error.kind() != ErrorKind::Down);
            match error.kind() {
                ErrorKind::Down if silences < if has_keys { 1 } else { MAX_SILENCES } => {}
                ErrorKind::Down | ErrorKind::Contention => {
                    return self.settle_apart(group, repeated, &error);
                }
                _ if refusals == MAX_REFUSALS => {
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
        let (keyed, plain): (Vec<_>, Vec<_>) =
            all.partition(|at| group[*at].job.facts.uniqkey.is_some());
        let together = !keyed.is_empty() && plain.len() > 1;
        if together {
            let plain = plain.iter().map(|at| group[*at].clone()).collect();
            self.settle_group(&Arc::new(plain), repeated);
        }
        let mut waiting = 0;
        let rest = keyed.iter().chain(plain.iter().filter(|_| !together));
        for at in rest.copied() {
            let one = One { group: Arc::clone(group), at, repeated };
            let ended = if waiting < MAX_WAITING {
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
                    self.lane.tell_ends(gone(std::slice::from_ref(one.settlement())));
                }
                self.note_settled(std::slice::from_ref(one.settlement()));
            }
            Ended::Contended(one, _) => {
                let again = Instant::now() + jitter(pause);
                self.park(Parked { one, pause, again });
            }
            Ended::Refused(one, error) => {
                let settlement = one.settlement();
                if let Some(discarded) = self.settling.discarded(settlement, &error) {
                    let one = One::alone(discarded, one.repeated);
                    let ended = self.settle_one(one, self.lane.database.limit());
                    return self.conclude(ended, pause);
                }
                log::error!(
                    "job {} ({}) cannot be settled and will run again when its lease ends: {}",
                    settlement.job.id,
                    settlement.job.facts.ability,
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
            self.conclude(ended, (pause * 2).min(MAX_PARK));
            self.current = None;
        }
    }

    /// Before the end: all, now and again, because there may be no later.
    fn try_all_parked(&mut self) {
        let mut waiting = 0;
        for _ in 0..self.parked.len() {
            // One at a time, so that a panic leaves the others where they are.
            let Parked { one, pause, .. } = self.unpark(0);
            let ended = if waiting < MAX_WAITING {
                self.settle_one(one, PATIENCE)
            } else {
                Ended::Contended(one, None)
            };
            waiting += usize::from(matches!(ended, Ended::Contended(..)));
            self.conclude(ended, pause);
            self.current = None;
        }
        // Those that were not tried come first the next time.
        let tried = waiting.min(MAX_WAITING).min(self.parked.len());
        self.parked.rotate_left(tried);
        if !self.parked.is_empty() {
            sleep(AWAY);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::client::Client;
    use crate::database::Database;
    use crate::driver::{Deadline, Extras, ReplyRecord, Verdict, WorkerInfo};
    use crate::fixture::{self, SOON, client, database, databases, memory, records, worker};
    use crate::testing::FaultyDriver;

    /// What the next settlements are answered with, from the last to the first; then they are made.
    type Script = Arc<Mutex<Vec<Option<ErrorKind>>>>;

    struct Bed {
        client: Arc<Client>,
        database: Arc<Database>,
        lane: Lane,
        worker: WorkerInfo,
        script: Script,
    }

    impl Bed {
        fn new(answers: &[Option<ErrorKind>]) -> Self {
            let script: Script = Arc::new(Mutex::new(answers.iter().rev().copied().collect()));
            let reads = Arc::clone(&script);
            let driver = FaultyDriver::new(memory()).with_fault(move |call| {
                if call != "settle" {
                    return Ok(());
                }
                match reads.lock().expect("no panic").pop().flatten() {
                    Some(kind) => Err(DriverError::new(kind, "no")),
                    None => Ok(()),
                }
            });
            let database = database("one", Arc::new(driver));
            let lane = Lane::new(0, Arc::clone(&database), SOON, Arc::default(), &Arc::default());
            Self { client: client(databases(&["other"])), database, lane, worker: worker(), script }
        }

        fn settler(&self) -> Settler<'_> {
            let (client, worker, database) = (&*self.client, &self.worker, &self.database);
            let settling = Settling { client, worker, database, asks_anyway: false };
            let (parked, current) = (Vec::new(), None);
            Settler { settling, lane: &self.lane, parked, current, quiet_until: Instant::now() }
        }

        /// Runs of claimed jobs, in flight.
        fn runs(&self, count: usize) -> Vec<Settlement> {
            let driver = self.database.driver();
            driver.insert(&records(count), Deadline::NONE).expect("stored");
            let jobs = fixture::claim(&**driver, &self.worker, 1);
            self.lane.in_flight.fetch_add(count, Ordering::SeqCst);
            let verdict = Verdict::Complete;
            let run = |job| Settlement { job: Box::new(job), verdict, extras: None };
            jobs.into_iter().map(run).collect()
        }

        /// Jobs that are live, and runs that are in flight.
        fn left(&self) -> (u64, usize) {
            let rows = self.database.driver().count().expect("answers");
            let live = rows.iter().map(|row| row.count).sum();
            (live, self.lane.in_flight.load(Ordering::SeqCst))
        }

        fn asked_for(&self) -> usize {
            self.script.lock().expect("no panic").len()
        }
    }

    fn settle(settler: &mut Settler<'_>, runs: Vec<Settlement>) {
        let group = Arc::new(runs);
        settler.begin(&group, 0);
        settler.settle_group(&group, false);
        settler.current = None;
    }

    const REFUSED: Option<ErrorKind> = Some(ErrorKind::Other);
    const LOCKED: Option<ErrorKind> = Some(ErrorKind::Contention);

    #[test]
    fn a_group_is_settled_in_one_call() {
        let bed = Bed::new(&[None, REFUSED]);
        let mut settler = bed.settler();
        let runs = bed.runs(5);
        settle(&mut settler, runs);
        assert_eq!((bed.left(), bed.asked_for()), ((0, 0), 1));
    }

    #[test]
    fn what_is_refused_now_and_then_is_tried_again_together() {
        let bed = Bed::new(&[REFUSED, REFUSED, None]);
        let mut settler = bed.settler();
        let runs = bed.runs(3);
        settle(&mut settler, runs);
        assert_eq!((bed.left(), bed.asked_for()), ((0, 0), 0));
        assert!(settler.parked.is_empty());
    }

    #[test]
    fn one_that_waits_for_a_lock_is_put_aside_and_holds_up_no_other() {
        let bed = Bed::new(&[LOCKED, None, LOCKED, None]);
        let mut settler = bed.settler();
        let runs = bed.runs(3);
        settle(&mut settler, runs);
        // The group, then one after the other.
        assert_eq!((bed.left(), settler.parked.len()), ((1, 1), 1));
        assert!(bed.lane.settle.bytes() > 0, "it counts");
        assert!(bed.lane.has_leases(), "its lease is kept alive");
        settler.try_parked();
        assert_eq!(settler.parked.len(), 1, "its time has not come");
        settler.parked[0].again = Instant::now();
        settler.try_parked();
        assert_eq!((bed.left(), settler.parked.len(), bed.lane.settle.bytes()), ((0, 0), 0, 0));
    }

    #[test]
    fn one_that_still_waits_is_tried_ever_less_often_and_the_others_with_it() {
        let bed = Bed::new(&[LOCKED, LOCKED, LOCKED]);
        let mut settler = bed.settler();
        let runs = bed.runs(1);
        settle(&mut settler, runs);
        let pause = settler.parked[0].pause;
        settler.parked[0].again = Instant::now();
        settler.try_parked();
        assert_eq!(settler.parked[0].pause, pause * 2);
        assert!(settler.quiet_until > Instant::now());
        settler.parked[0].again = Instant::now();
        settler.try_parked();
        assert_eq!(bed.left(), (1, 1), "it is quiet");
    }

    #[test]
    fn of_many_that_wait_the_rest_is_put_aside_untried() {
        let locked = [LOCKED; 1 + MAX_WAITING + 1];
        let bed = Bed::new(&locked);
        let mut settler = bed.settler();
        let runs = bed.runs(10);
        settle(&mut settler, runs);
        assert_eq!((settler.parked.len(), bed.asked_for()), (10, 1));
        bed.script.lock().expect("no panic").clear();
        bed.lane.settle.close();
        settler.settle_on();
        assert_eq!((bed.left(), settler.parked.len()), ((0, 0), 0), "all before the end");
    }

    #[test]
    fn one_that_is_refused_for_good_keeps_its_lease_and_holds_up_no_other() {
        let refused = [REFUSED, REFUSED, REFUSED, REFUSED];
        let bed = Bed::new(&refused);
        let mut settler = bed.settler();
        let runs = bed.runs(3);
        settle(&mut settler, runs);
        // Three tries of the group, then the first alone; the others are settled.
        assert_eq!((bed.left(), settler.parked.len()), ((1, 0), 0));
    }

    #[test]
    fn one_that_is_refused_with_what_it_brings_is_discarded_without() {
        let bed = Bed::new(&[REFUSED, REFUSED, REFUSED, REFUSED]);
        let mut settler = bed.settler();
        let mut runs = bed.runs(1);
        let reply = ReplyRecord { codec: "json".into(), body: vec![1] };
        runs[0].extras = Some(Box::new(Extras { replies: vec![reply], ..Extras::default() }));
        settle(&mut settler, runs);
        assert_eq!(bed.left(), (0, 0));
        let all = crate::driver::ExceptionScan::all(30);
        let log = bed.database.driver().scan_exceptions(&all).expect("answers");
        assert!(log.len() == 1 && log[0].discarded, "{log:?}");
    }

    #[test]
    fn what_a_panic_left_is_settled_once_each_and_given_up_after_some() {
        let bed = Bed::new(&[]);
        let mut settler = bed.settler();
        let runs: Group = Arc::new(bed.runs(4));
        settler.begin(&runs, 0);
        settler.note_settled(&runs[..1]);
        assert_eq!(bed.left().1, 3);
        settler.settle_after_panic();
        assert_eq!(bed.left(), (1, 0), "the first was settled by somebody else");
        let again: Group = Arc::new(bed.runs(2));
        settler.begin(&again, MAX_PANICS);
        settler.settle_after_panic();
        assert_eq!(bed.left(), (3, 0), "these run again when their leases end");
    }

    #[test]
    fn what_nobody_waits_for_is_counted_off() {
        let bed = Bed::new(&[]);
        let mut settler = bed.settler();
        let runs = bed.runs(2);
        bed.lane.give_up();
        settle(&mut settler, runs);
        assert_eq!(bed.left(), (2, 0));
    }
}
