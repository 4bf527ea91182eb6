//! The rules.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fmt;
use std::time::Duration;

use crate::event::{Answer, Micros};
use crate::history::{Claim, Enqueue, History, Life, Remains, Run};

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A client was told that the job is stored; it neither ended nor is it anywhere.
    Lost {
        /// The job.
        job: String,
    },
    /// A run began while another, whose end was then accepted, was not over.
    Overlap {
        /// The job.
        job: String,
        /// The worker of the earlier run.
        first: String,
        /// The worker of the later run.
        second: String,
    },
    /// A run began although the job had ended before.
    RanAfterEnd {
        /// The job.
        job: String,
        /// Who ran it again.
        worker: String,
    },
    /// A worker began a run that it had begun before and not settled.
    StartedTwice {
        /// The job.
        job: String,
        /// The worker.
        worker: String,
    },
    /// Two runs both ended the job.
    EndedTwice {
        /// The job.
        job: String,
    },
    /// Two jobs held a unique key at the same time.
    KeyLivedTwice {
        /// The key, with its ability.
        key: String,
        /// The job that held it.
        first: String,
        /// The job that was stored all the same.
        second: String,
    },
    /// A client read a reply that the run which ended the job did not write.
    ForeignReply {
        /// The job.
        job: String,
        /// The run that the reply names.
        attempt: i32,
    },
    /// A claim took a job although one of a higher priority had been waiting for long.
    PriorityInversion {
        /// The job that was passed over.
        job: String,
        /// The one that was claimed.
        instead: String,
    },
}

impl Fault {
    /// The job that it befell; of two that met over a key, the one that came later.
    pub fn job(&self) -> &str {
        match self {
            Self::Lost { job }
            | Self::Overlap { job, .. }
            | Self::RanAfterEnd { job, .. }
            | Self::StartedTwice { job, .. }
            | Self::EndedTwice { job }
            | Self::KeyLivedTwice { second: job, .. }
            | Self::ForeignReply { job, .. }
            | Self::PriorityInversion { job, .. } => job,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { job } => write!(f, "job {job} was lost"),
            Self::Overlap { job, first, second } => {
                write!(f, "job {job} ran at worker {second} before its run at {first} was over")
            }
            Self::RanAfterEnd { job, worker } => {
                write!(f, "job {job} had ended and ran again at worker {worker}")
            }
            Self::StartedTwice { job, worker } => {
                write!(f, "worker {worker} began a run of job {job} twice")
            }
            Self::EndedTwice { job } => write!(f, "job {job} was ended by two runs"),
            Self::KeyLivedTwice { key, first, second } => {
                write!(f, "job {second} got the unique key {key} while job {first} held it")
            }
            Self::ForeignReply { job, attempt } => {
                write!(f, "a client read the reply of run {attempt} of job {job}, not of its last")
            }
            Self::PriorityInversion { job, instead } => {
                write!(f, "job {job} waited while job {instead} of a lower priority was claimed")
            }
        }
    }
}

/// How strictly a history is judged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Rules {
    /// How long a job must have waited before it may not be passed over. Claims look at the start
    /// of a queue at least every 100 ms and at most every twentieth of the time that takes.
    pub priority_slack: Duration,
    /// Times in which a claim may have been lost with its process or its connection, and held jobs
    /// although nobody noted it, or with its server, which forgot it. Priorities are not judged for
    /// jobs that waited then, and a worker may begin a run again that it claimed again.
    pub disturbances: Vec<(Micros, Micros)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { priority_slack: Duration::from_secs(3), disturbances: Vec::new() }
    }
}

impl Rules {
    /// Other slack for priorities.
    #[must_use]
    pub fn with_priority_slack(mut self, slack: Duration) -> Self {
        self.priority_slack = slack;
        self
    }

    /// Adds a time in which claims may have been lost.
    #[must_use]
    pub fn with_disturbance(mut self, from: Micros, until: Micros) -> Self {
        self.disturbances.push((from, until));
        self
    }

    /// All faults of a history, in the order of the jobs.
    ///
    /// What a killed process did not live to write is given the benefit of the doubt: a run that
    /// ended but whose settlement nobody noted may have ended the job. A job that a failed database
    /// may hold beside the one that took it over may run in both, as the enqueue's documentation
    /// says.
    pub fn check(&self, history: &History, remains: &Remains) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (id, life) in &history.jobs {
            lost(id, life, remains, &mut faults);
            self.begun_twice(id, life, &mut faults);
            if !life.may_be_double() {
                overlaps(id, life, &mut faults);
            }
            replies(id, life, &mut faults);
        }
        keys(history, remains, &mut faults);
        self.priorities(history, &mut faults);
        faults
    }
}

/// Checks a history by the default [`Rules`].
pub fn check(history: &History, remains: &Remains) -> Vec<Fault> {
    Rules::default().check(history, remains)
}

impl Run {
    /// Whether the job surely left the queue with this run.
    fn ended_it(&self) -> bool {
        self.settled.is_some_and(|settle| settle.last && settle.answer == Answer::Done)
    }

    /// Whether the job may have left the queue with this run: nobody lived to note the answer.
    fn may_have_ended_it(&self) -> bool {
        let last = |outcome: &str| matches!(outcome, "completed" | "replaced" | "failed");
        match self.settled {
            Some(settle) => settle.last && settle.answer != Answer::LeaseLost,
            None => self.finished.as_ref().is_some_and(|(_, outcome)| last(outcome)),
        }
    }

    /// Whether the database surely accepted how this run ended.
    fn was_accepted(&self) -> bool {
        self.settled.is_some_and(|settle| settle.answer == Answer::Done)
    }
}

impl History {
    /// Jobs that ended in two databases, because the answer of an enqueue was lost and the job stored
    /// elsewhere too. That is at least once; a late write that is not refused shows here.
    pub fn ended_in_two(&self) -> usize {
        let ends_in_two = |life: &&Life| {
            let ends = life.runs.iter().filter(|run| run.ended_it());
            let mut databases: Vec<_> = ends.map(|run| &run.database).collect();
            databases.sort_unstable();
            databases.dedup();
            life.may_be_double() && databases.len() > 1
        };
        self.jobs.values().filter(ends_in_two).count()
    }
}

impl Life {
    fn may_be_double(&self) -> bool {
        self.uncertain || self.enqueued.iter().any(|one| one.doubtful)
    }

    /// The earliest instant at which the job may have ended; `None` while it lives.
    fn end(&self) -> Option<Micros> {
        let ends = self.runs.iter().filter(|run| run.may_have_ended_it());
        let ended = ends.map(|run| run.finished.as_ref().map_or(run.started, |(at, _)| *at));
        ended.chain(self.dropped).min()
    }
}

fn lost(id: &str, life: &Life, remains: &Remains, faults: &mut Vec<Fault>) {
    let known = remains.live.contains(id) || remains.failed.contains(id);
    let ended = life.runs.iter().any(Run::may_have_ended_it);
    if !life.enqueued.is_empty() && !known && !ended && life.dropped.is_none() {
        faults.push(Fault::Lost { job: id.to_owned() });
    }
}

fn overlaps(id: &str, life: &Life, faults: &mut Vec<Fault>) {
    let job = || id.to_owned();
    for (at, first) in life.runs.iter().enumerate() {
        for second in &life.runs[at + 1..] {
            let over = first.finished.as_ref().map(|(at, _)| *at);
            // A run whose end was not accepted had lost its lease; one that was never settled
            // belonged to a process that died.
            if first.was_accepted() && over.is_some_and(|over| second.started < over) {
                let (first, second) = (first.worker.clone(), second.worker.clone());
                faults.push(Fault::Overlap { job: job(), first, second });
            } else if first.ended_it()
                && first.settled.is_some_and(|settle| second.started > settle.at)
            {
                faults.push(Fault::RanAfterEnd { job: job(), worker: second.worker.clone() });
            }
        }
    }
    if life.runs.iter().filter(|run| run.ended_it()).count() > 1 {
        faults.push(Fault::EndedTwice { job: job() });
    }
}

fn replies(id: &str, life: &Life, faults: &mut Vec<Fault>) {
    for attempt in &life.replies {
        let writer = |run: &&Run| run.attempt == *attempt && run.may_have_ended_it();
        if !life.runs.iter().any(|run| writer(&run)) {
            faults.push(Fault::ForeignReply { job: id.to_owned(), attempt: *attempt });
        }
    }
}

/// A job with a key, how it got it, and when it may have ended.
type Holding<'a> = (&'a str, &'a Enqueue, Option<Micros>);

fn keys(history: &History, remains: &Remains, faults: &mut Vec<Fault>) {
    let mut holders: BTreeMap<(&str, &str), Vec<Holding<'_>>> = BTreeMap::new();
    for (id, life) in &history.jobs {
        for enqueue in life.enqueued.iter().filter(|one| !one.key_may_double && !one.doubtful) {
            let Some(key) = &enqueue.key else { continue };
            let end = life.end();
            // A job without a known end that is nowhere any more may have ended at any time.
            if end.is_none() && !remains.live.contains(id) {
                continue;
            }
            holders.entry((&enqueue.ability, key)).or_default().push((id, enqueue, end));
        }
    }
    for ((ability, key), mut jobs) in holders {
        jobs.sort_by_key(|(_, enqueue, _)| enqueue.at);
        for (at, (first, held, end)) in jobs.iter().enumerate() {
            for (second, taken, _) in &jobs[at + 1..] {
                // Surely held from the answer of the first enqueue to the end of its run.
                let during = taken.begun > held.at && end.is_none_or(|end| taken.at < end);
                if first != second && during {
                    faults.push(Fault::KeyLivedTwice {
                        key: format!("{ability}/{key}"),
                        first: (*first).to_owned(),
                        second: (*second).to_owned(),
                    });
                }
            }
        }
    }
}

/// A job that waits, ordered by priority.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting<'a> {
    priority: i32,
    claimed: Micros,
    job: &'a str,
}

type Place<'a> = (&'a str, &'a str);

impl Rules {
    /// A claim does not wait for the disk: a server that is killed may have forgotten it, and gives
    /// the job out again, perhaps to the same worker.
    fn begun_twice(&self, id: &str, life: &Life, faults: &mut Vec<Fault>) {
        let disturbed =
            |at| self.disturbances.iter().any(|(from, until)| *from <= at && at <= *until);
        for twice in &life.twice {
            let forgotten = !twice.elsewhere && twice.claimed_anew.is_some_and(disturbed);
            let double = twice.elsewhere && life.may_be_double();
            if !(forgotten || double) {
                let (job, worker) = (id.to_owned(), twice.worker.clone());
                faults.push(Fault::StartedTwice { job, worker });
            }
        }
    }

    fn priorities(&self, history: &History, faults: &mut Vec<Fault>) {
        let slack = u64::try_from(self.priority_slack.as_micros()).unwrap_or(u64::MAX);
        let mut first_claims: HashMap<&str, &Claim> = HashMap::new();
        let mut claims: BTreeMap<Place<'_>, Vec<&Claim>> = BTreeMap::new();
        for claim in &history.claims {
            claims.entry((&claim.database, &claim.queue)).or_default().push(claim);
            for (job, _) in &claim.jobs {
                first_claims.entry(job).or_insert(claim);
            }
        }
        let mut jobs: BTreeMap<Place<'_>, Vec<(Micros, Waiting<'_>)>> = BTreeMap::new();
        for (id, life) in &history.jobs {
            // Only a job that is ready from its enqueue to its first claim surely could be taken.
            let [enqueue] = &life.enqueued[..] else { continue };
            let Some(claim) = first_claims.get(&**id) else { continue };
            let disturbed =
                |(from, until): &(Micros, Micros)| *from < claim.at && enqueue.at < *until;
            if enqueue.delayed
                || claim.database != enqueue.database
                || self.disturbances.iter().any(disturbed)
            {
                continue;
            }
            let waiting = Waiting { priority: enqueue.priority, claimed: claim.begun, job: id };
            let due = enqueue.at.saturating_add(slack);
            jobs.entry((&enqueue.database, &enqueue.queue)).or_default().push((due, waiting));
        }
        for (place, claims) in claims {
            let mut coming = jobs.remove(&place).unwrap_or_default();
            coming.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            passed_over(&claims, coming, faults);
        }
    }
}

fn passed_over<'a>(
    claims: &[&'a Claim],
    mut coming: Vec<(Micros, Waiting<'a>)>,
    faults: &mut Vec<Fault>,
) {
    let mut waiting: BinaryHeap<Waiting<'_>> = BinaryHeap::new();
    for claim in claims {
        while coming.last().is_some_and(|(due, _)| *due < claim.begun) {
            waiting.extend(coming.pop().map(|(_, job)| job));
        }
        let Some((instead, lowest)) = claim.jobs.iter().min_by_key(|(_, priority)| *priority)
        else {
            continue;
        };
        let mut busy = Vec::new();
        while let Some(job) = waiting.pop() {
            if job.claimed <= claim.begun {
                continue;
            }
            // A claim at the same time may have locked it.
            if job.claimed <= claim.at {
                busy.push(job);
                continue;
            }
            if job.priority > *lowest {
                let (job, instead) = (job.job.to_owned(), instead.clone());
                faults.push(Fault::PriorityInversion { job, instead });
            }
            busy.push(job);
            break;
        }
        waiting.extend(busy);
    }
}
