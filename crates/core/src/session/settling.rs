//! Settles runs at one database and tells whoever has to know. What a settler does with many of them, and a single
//! run with its own, is theirs.

use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::FailureKind;

use crate::client::Client;
use crate::database::Database;
use crate::driver::{
    Driver, DriverError, ErrorKind, ExceptionRecord, Extras, Settled, Settlement, Verdict, WorkerId,
};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::random::new_id;
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
    pub(super) worker: WorkerId,
    pub(super) database: &'a Arc<Database>,
}

impl Settling<'_> {
    pub(super) fn ask(&self, group: &Group) -> Result<Vec<Settled>, DriverError> {
        let (worker, group) = (self.worker, Arc::clone(group));
        self.database.ask(move |driver| driver.settle(worker, &group))
    }

    /// Whoever was put aside must not hold up the others again, so its answer is waited for only
    /// shortly, and that none comes says nothing of the database.
    fn ask_one(&self, one: &One, patience: Duration) -> Result<Vec<Settled>, DriverError> {
        let (worker, group, at) = (self.worker, Arc::clone(&one.group), one.at);
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
            if !self.database.is_trusted() {
                sleep(AWAY);
                if !self.database.is_second_name() {
                    continue;
                }
            }
            let error = match self.ask_one(&one, patience) {
                Ok(answers) => {
                    let settlement = std::slice::from_ref(one.settlement());
                    let answered = self.note_answers(settlement, &answers, one.repeated, begun);
                    return Ended::Settled(one, Some(answered));
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
                worker: self.worker,
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
                    settlement.job.ability,
                    settlement.job.attempt
                );
            }
        }
        let last = |one: &&Settlement| matches!(one.verdict, Verdict::Complete | Verdict::Discard);
        self.client.waiters.note(group.iter().filter(last).map(|one| one.job.id));
        if answered.brings_work {
            // The fetcher may sleep until a due time that it heard of before.
            self.database.bell.ring();
        }
        answered
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
