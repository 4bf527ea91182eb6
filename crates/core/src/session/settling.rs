//! Settles runs at one database and tells whoever has to know. What a settler does with many of them, and a single
//! run with its own, is theirs.

use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{FailureKind, JobId};

use super::aftermath;
use crate::client::Client;
use crate::database::Database;
use crate::driver::{
    Driver, DriverError, ErrorKind, Extras, Settled, Settlement, Verdict, WorkerInfo,
};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::threads::sleep;
use crate::tools::time::SystemTime;

/// While the database is away, it is looked again whether it is back this often.
pub(super) const AWAY: Duration = Duration::from_millis(50);

/// Runs that are settled together.
pub(super) type Group = Arc<Vec<Settlement>>;

/// One settlement of a group, alone.
pub(super) struct One {
    pub(super) group: Group,
    pub(super) at: usize,
    /// An earlier try got no answer, so the end may have been settled then.
    pub(super) repeated: bool,
}

impl One {
    pub(super) fn alone(settlement: Settlement, repeated: bool) -> Self {
        Self { group: Arc::new(vec![settlement]), at: 0, repeated }
    }

    pub(super) fn settlement(&self) -> &Settlement {
        &self.group[self.at]
    }
}

/// How the settlement of one run ended.
pub(super) enum Ended {
    /// With this answer; `None` of one that nobody waits for any more.
    Settled(One, Option<Answered>),
    /// Something else holds what it needs.
    Contended(One, Option<DriverError>),
    Refused(One, DriverError),
}

/// What the answers to settlements say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// So many leases were lost, and those ends changed nothing.
    pub(super) lost: usize,
    /// There is work that comes before the next regular look at the database.
    pub(super) brings_work: bool,
    /// The last of them is done.
    pub(super) is_done: bool,
}

/// Who settles, and where.
pub(super) struct Settling<'a> {
    pub(super) client: &'a Client,
    pub(super) worker: &'a WorkerInfo,
    pub(super) database: &'a Arc<Database>,
    /// Also while the database counts as down: whoever settles a single run may have no time to wait for a probe.
    pub(super) asks_anyway: bool,
}

/// The jobs that are gone with these settlements.
pub(super) fn gone(group: &[Settlement]) -> impl Iterator<Item = JobId> + '_ {
    let last = |one: &&Settlement| matches!(one.verdict, Verdict::Complete | Verdict::Discard);
    group.iter().filter(last).map(|one| one.job.id)
}

impl Settling<'_> {
    pub(super) fn ask(&self, group: &Group) -> Result<Vec<Settled>, DriverError> {
        let (worker, group) = (self.worker.id, Arc::clone(group));
        self.database.ask(move |driver| driver.settle(worker, &group))
    }

    /// Whoever was put aside must not hold up the others again, so its answer is waited for only
    /// shortly, and that none comes says nothing of the database.
    fn ask_one(&self, one: &One, patience: Duration) -> Result<Vec<Settled>, DriverError> {
        let (worker, group, at) = (self.worker.id, Arc::clone(&one.group), one.at);
        let settle = move |driver: &dyn Driver| driver.settle(worker, &group[at..=at]);
        self.database.ask_shortly(patience, settle)
    }

    /// Settles one run, and waits out the database's absence until `is_given_up`.
    pub(super) fn settle_one(
        &self,
        mut one: One,
        patience: Duration,
        is_given_up: &dyn Fn() -> bool,
    ) -> Ended {
        let begun = SystemTime::now();
        while !is_given_up() {
            if !self.asks_anyway && !self.database.is_trusted() {
                sleep(AWAY);
                if !self.database.is_second_name() {
                    continue;
                }
            }
            let error = match self.ask_one(&one, patience) {
                Ok(answers) => {
                    let settlement = std::slice::from_ref(one.settlement());
                    let answered = self.note_answers(settlement, &answers, one.repeated, begun);
                    self.tell_hooks(settlement, &answers);
                    return Ended::Settled(one, Some(answered));
                }
                Err(error) => error,
            };
            one.repeated |= error.is_ambiguous();
            match error.kind() {
                ErrorKind::Down if !error.is_hung() && !self.asks_anyway => {}
                // Missing rights or tables that only this one needs are waited for like a lock.
                ErrorKind::Down
                | ErrorKind::Contention
                | ErrorKind::Schema
                | ErrorKind::Permission => return Ended::Contended(one, Some(error)),
                ErrorKind::Other => return Ended::Refused(one, error),
            }
        }
        Ended::Settled(one, None)
    }

    /// Tells the observer, the log and those who wait for the jobs.
    pub(super) fn note_answers(
        &self,
        group: &[Settlement],
        answers: &[Settled],
        repeated: bool,
        begun: SystemTime,
    ) -> Answered {
        let (program, name) = (&self.client.program, &self.database.name);
        let mut answered = Answered::default();
        for (settlement, answer) in group.iter().zip(answers) {
            let lost = !answer.is_done();
            // After a lost answer it cannot be told whether the lease was lost or our own first try
            // ended it.
            let answer = (!repeated || !lost).then_some(answer);
            program.tell(|| Event::Settled {
                worker: self.worker.id,
                database: name,
                job: settlement.job.id,
                attempt: settlement.job.attempt,
                verdict: settlement.verdict,
                answer: answer.cloned(),
            });
            if !lost && let Some(extras) = &settlement.extras {
                let without = answer.map_or(&[][..], Settled::without);
                program.tell_replacements(&extras.replacements, without, name, begun);
            }
            answered.is_done = !lost;
            answered.brings_work |= !lost && brings_work(settlement, program.options.delay);
            if lost && !repeated && settlement.verdict != Verdict::GiveBack {
                answered.lost += 1;
                log::warn!(
                    "job {} ({}) attempt {}: the lease was lost, so its end changed nothing",
                    settlement.job.id,
                    settlement.job.facts.ability,
                    settlement.job.attempt
                );
            }
        }
        self.client.waiters.note(gone(group));
        if answered.brings_work {
            // The fetcher may sleep until a due time that it heard of before.
            self.database.bell.ring();
        }
        answered
    }

    /// Tells hooks of committed settlements: after all else, because hooks may take long.
    pub(super) fn tell_hooks(&self, group: &[Settlement], answers: &[Settled]) {
        let (program, name) = (&self.client.program, &self.database.name);
        let hooks = program.hooks();
        if hooks.is_empty() {
            return;
        }
        for (settlement, answer) in group.iter().zip(answers).filter(|(_, one)| one.is_done()) {
            aftermath::settled(program, &hooks, settlement, answer.without(), name);
        }
    }

    /// The job as one that failed for good, because its end is refused with what it brings, such as a reply
    /// that is too large; `None` when it brings nothing.
    pub(super) fn discarded(
        &self,
        settlement: &Settlement,
        error: &DriverError,
    ) -> Option<Settlement> {
        let brought = settlement.extras.as_ref()?;
        if brought.replies.is_empty() && brought.replacements.is_empty() {
            return None;
        }
        let message = format!("the end of the run cannot be stored: {}", with_causes(error));
        log::error!("job {} ({}): {message}", settlement.job.id, settlement.job.facts.ability);
        let exception = self.worker.failed(FailureKind::Error, message);
        let extras = Extras { exception: Some(exception), ..Extras::default() };
        Some(Settlement {
            job: settlement.job.clone(),
            verdict: Verdict::Discard,
            extras: Some(Box::new(extras)),
        })
    }
}

/// Whether a settlement leaves work that comes before the next regular look.
fn brings_work(settlement: &Settlement, delay: Duration) -> bool {
    match settlement.verdict {
        Verdict::Retry(after) | Verdict::Snooze(after) => after < delay,
        _ => settlement.extras.as_ref().is_some_and(|extras| !extras.replacements.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::driver::{ReplyRecord, WorkerInfo};
    use crate::fixture::{self, SOON, client, database, databases, memory, records, worker};
    use crate::testing::FaultyDriver;

    struct Bed {
        client: Arc<Client>,
        database: Arc<Database>,
        worker: WorkerInfo,
    }

    impl Bed {
        fn with(fault: impl Fn(&str) -> Result<(), DriverError> + Send + Sync + 'static) -> Self {
            let driver = FaultyDriver::new(memory()).with_fault(fault);
            let client = client(databases(&["other"]));
            Self { client, database: database("one", Arc::new(driver)), worker: worker() }
        }

        /// Refuses to settle with this, so often.
        fn refusing(kind: ErrorKind, times: u32) -> Self {
            let left = std::sync::Mutex::new(times);
            Self::with(move |call| {
                let mut left = left.lock().expect("no panic");
                if call == "settle" && *left > 0 {
                    *left -= 1;
                    return Err(DriverError::new(kind, "no").ambiguous(kind == ErrorKind::Down));
                }
                Ok(())
            })
        }

        fn settling(&self) -> Settling<'_> {
            Settling {
                client: &self.client,
                worker: &self.worker,
                database: &self.database,
                asks_anyway: false,
            }
        }

        /// Runs of so many claimed jobs.
        fn runs(&self, count: usize, verdict: Verdict) -> Vec<Settlement> {
            let driver = &**self.database.driver();
            let deadline = crate::driver::Deadline::NONE;
            driver.insert(&records(count), deadline).expect("stored");
            let jobs = fixture::claim(driver, &self.worker, 1);
            assert_eq!(jobs.len(), count);
            let settlement = |job| Settlement { job: Box::new(job), verdict, extras: None };
            jobs.into_iter().map(settlement).collect()
        }

        fn settle(&self, settlement: Settlement) -> Ended {
            self.settling().settle_one(One::alone(settlement, false), SOON, &|| false)
        }

        fn one(&self, verdict: Verdict) -> Settlement {
            self.runs(1, verdict).pop().expect("there is one")
        }

        fn live(&self) -> u64 {
            let rows = self.database.driver().count().expect("answers");
            rows.iter().map(|row| row.count).sum()
        }
    }

    fn answered(ended: Ended) -> Answered {
        match ended {
            Ended::Settled(_, Some(answered)) => answered,
            Ended::Settled(_, None) => panic!("given up"),
            Ended::Contended(_, error) => panic!("contended: {error:?}"),
            Ended::Refused(_, error) => panic!("refused: {error}"),
        }
    }

    #[test]
    fn a_run_is_settled_and_its_job_is_gone() {
        let bed = Bed::with(|_| Ok(()));
        let watch = bed.one(Verdict::Complete);
        let answered = answered(bed.settle(watch));
        assert_eq!(answered, Answered { lost: 0, brings_work: false, is_done: true });
        assert_eq!(bed.live(), 0);
    }

    #[test]
    fn an_end_after_the_lease_was_lost_changes_nothing_and_is_counted() {
        let bed = Bed::with(|_| Ok(()));
        let settlement = bed.one(Verdict::Complete);
        bed.database.driver().remove_worker(bed.worker.id).expect("gives back");
        let late = answered(bed.settle(settlement));
        assert_eq!(late, Answered { lost: 1, brings_work: false, is_done: false });
        assert_eq!(bed.live(), 1, "it runs again");
    }

    #[test]
    fn after_a_lost_answer_nobody_says_that_the_lease_was_lost() {
        let bed = Bed::with(|_| Ok(()));
        let settlement = bed.one(Verdict::Complete);
        answered(bed.settle(settlement.clone()));
        let again = One::alone(settlement, true);
        let again = answered(bed.settling().settle_one(again, SOON, &|| false));
        assert_eq!(again.lost, 0);
    }

    #[test]
    fn work_that_comes_soon_wakes_the_fetcher() {
        let bed = Bed::with(|_| Ok(()));
        let delay = bed.client.program.options.delay;
        for (verdict, soon) in [
            (Verdict::Retry(delay / 2), true),
            (Verdict::Snooze(Duration::ZERO), true),
            (Verdict::Retry(delay * 2), false),
            (Verdict::Complete, false),
        ] {
            bed.database.bell.wait(Duration::ZERO);
            let settlement = bed.one(verdict);
            assert_eq!(answered(bed.settle(settlement)).brings_work, soon, "{verdict:?}");
            assert_eq!(bed.database.bell.wait(Duration::ZERO), soon, "{verdict:?}");
            bed.database.driver().remove_worker(bed.worker.id).expect("answers");
            let nobody = qudo_hooks::JobId::from_uuid(uuid::Uuid::nil());
            let waits = bed.database.driver().traces(nobody, 100);
            for job in waits.expect("answers") {
                bed.database.driver().dequeue(job.id, None).expect("answers");
            }
        }
    }

    #[test]
    fn whoever_waits_for_the_end_is_woken_by_it() {
        let bed = Bed::with(|_| Ok(()));
        let settlement = bed.one(Verdict::Complete);
        let mut watch = bed.client.waiters.watch(settlement.job.id);
        answered(bed.settle(settlement));
        let begun = std::time::Instant::now();
        watch.wait(SOON);
        assert!(begun.elapsed() < SOON / 2);
    }

    #[test]
    fn what_stands_in_the_way_is_told_apart() {
        for kind in [ErrorKind::Contention, ErrorKind::Permission, ErrorKind::Schema] {
            let bed = Bed::refusing(kind, 1);
            let settlement = bed.one(Verdict::Complete);
            let Ended::Contended(one, Some(error)) = bed.settle(settlement) else {
                panic!("{kind:?} is waited for")
            };
            assert_eq!(error.kind(), kind);
            let left = bed.settling().settle_one(one, SOON, &|| false);
            answered(left);
        }
        let bed = Bed::refusing(ErrorKind::Other, 1);
        let settlement = bed.one(Verdict::Complete);
        assert!(matches!(bed.settle(settlement), Ended::Refused(_, _)));
    }

    #[test]
    fn the_absence_of_the_database_is_waited_out() {
        let bed = Bed::refusing(ErrorKind::Down, 1);
        let settlement = bed.one(Verdict::Complete);
        let settled = answered(bed.settle(settlement));
        assert!(settled.is_done && bed.live() == 0);
    }

    #[test]
    fn what_nobody_waits_for_is_given_up() {
        let bed = Bed::with(|_| Ok(()));
        let settlement = bed.one(Verdict::Complete);
        bed.database.mark_down(&DriverError::new(ErrorKind::Down, "away"));
        let given_up = AtomicBool::new(true);
        let is_given_up = || given_up.load(Ordering::Relaxed);
        let one = One::alone(settlement, false);
        let ended = bed.settling().settle_one(one, SOON, &is_given_up);
        assert!(matches!(ended, Ended::Settled(_, None)));
        assert_eq!(bed.live(), 1);
    }

    #[test]
    fn a_group_is_answered_one_for_one() {
        let bed = Bed::with(|_| Ok(()));
        let group: Group = Arc::new(bed.runs(3, Verdict::Complete));
        bed.database.driver().release_claim(bed.worker.id, 1).expect("gives back");
        let begun = SystemTime::now();
        let answers = bed.settling().ask(&group).expect("answers");
        assert_eq!(answers, [Settled::LeaseLost, Settled::LeaseLost, Settled::LeaseLost]);
        assert_eq!(bed.settling().note_answers(&group, &answers, false, begun).lost, 3);
        let mixed = [Settled::LeaseLost, Settled::Done, Settled::Done];
        let answered = bed.settling().note_answers(&group, &mixed, false, begun);
        assert_eq!(answered, Answered { lost: 1, brings_work: false, is_done: true });
    }

    #[test]
    fn an_end_that_is_refused_with_what_it_brings_is_discarded_without() {
        let bed = Bed::with(|_| Ok(()));
        let mut settlement = bed.one(Verdict::Complete);
        let error = DriverError::new(ErrorKind::Other, "too large");
        assert!(bed.settling().discarded(&settlement, &error).is_none(), "it brings nothing");
        let reply = ReplyRecord { codec: "json".into(), body: b"7".to_vec() };
        let extras = Extras { replies: vec![reply], ..Extras::default() };
        settlement.extras = Some(Box::new(extras));
        let discarded = bed.settling().discarded(&settlement, &error).expect("it brings a reply");
        assert_eq!(discarded.verdict, Verdict::Discard);
        let extras = discarded.extras.as_ref().expect("says why");
        assert!(extras.replies.is_empty());
        let exception = extras.exception.as_ref().expect("says why");
        assert!(exception.message.contains("too large"), "{}", exception.message);
        answered(bed.settle(discarded));
        let log = bed.database.driver().scan_exceptions(&crate::driver::ExceptionScan::all(30));
        assert_eq!(log.expect("answers").len(), 1);
    }
}
