use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use qudo_core::{Error, Manager};
use qudo_core::{ExceptionFilter, JobFilter, Paging};

use crate::event::{Answer, Line, Micros, Step};

/// Rows of one page when the databases are read.
const PAGE: u32 = 1_000;

/// What was recorded, by job.
#[derive(Debug, Default)]
pub struct History {
    pub(crate) jobs: BTreeMap<String, Life>,
    pub(crate) claims: Vec<Claim>,
    /// Lines that a process was writing when it was killed.
    pub(crate) torn: usize,
    /// Which workers recorded into which file.
    files: HashMap<String, Vec<String>>,
}

/// One job's steps.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) enqueued: Vec<Enqueue>,
    pub(crate) uncertain: bool,
    pub(crate) dropped: Option<Micros>,
    /// By worker and number: a run that was given back unstarted has the same number again.
    pub(crate) runs: Vec<Run>,
    pub(crate) replies: Vec<i32>,
    /// Runs that a worker began a second time before the first was settled.
    pub(crate) twice: Vec<Twice>,
    /// By worker and database, when it was claimed.
    claimed: Vec<(String, String, Micros)>,
}

/// A run that a worker began although it had begun it before.
#[derive(Debug)]
pub(crate) struct Twice {
    pub(crate) worker: String,
    /// Whether the first was in another database.
    pub(crate) elsewhere: bool,
    /// When the worker claimed the job again after it began the first.
    pub(crate) claimed_anew: Option<Micros>,
}

#[derive(Debug, Clone)]
pub(crate) struct Enqueue {
    pub(crate) database: String,
    pub(crate) queue: String,
    pub(crate) ability: String,
    pub(crate) key: Option<String>,
    pub(crate) key_may_double: bool,
    pub(crate) priority: i32,
    pub(crate) delayed: bool,
    pub(crate) doubtful: bool,
    pub(crate) begun: Micros,
    pub(crate) at: Micros,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) worker: String,
    pub(crate) database: String,
    pub(crate) attempt: i32,
    pub(crate) started: Micros,
    pub(crate) finished: Option<(Micros, String)>,
    pub(crate) settled: Option<Settle>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settle {
    pub(crate) at: Micros,
    pub(crate) last: bool,
    pub(crate) answer: Answer,
}

#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) database: String,
    pub(crate) queue: String,
    pub(crate) jobs: Vec<(String, i32)>,
    pub(crate) begun: Micros,
    pub(crate) at: Micros,
}

impl History {
    /// Reads all files of a directory. A last line without its end is what a killed process was
    /// writing.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or a whole line is none of ours.
    pub fn read(directory: impl AsRef<Path>) -> io::Result<Self> {
        let mut lines: Vec<Line> = Vec::new();
        let mut files: HashMap<String, Vec<String>> = HashMap::new();
        let torn = each_line(directory.as_ref(), |file, line| {
            let workers = files.entry(file.to_owned()).or_default();
            if let Step::Started { worker, .. } = &line.step
                && !workers.contains(worker)
            {
                workers.push(worker.clone());
            }
            lines.push(line);
        })?;
        Ok(Self { torn, files, ..Self::from_lines(lines) })
    }

    /// All lines about one job in the files of a directory, in order: what to look at after a
    /// [`Fault`](crate::Fault).
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn story(directory: impl AsRef<Path>, job: &str) -> io::Result<Vec<Line>> {
        let mut story = Vec::new();
        each_line(directory.as_ref(), |_, line| {
            if line.step.concerns(job) {
                story.push(line);
            }
        })?;
        story.sort_by_key(|line| line.at);
        Ok(story)
    }

    /// A history from its lines, in any order.
    pub fn from_lines(mut lines: Vec<Line>) -> Self {
        // The order of one process is kept for lines of one microsecond.
        lines.sort_by_key(|line| line.at);
        let mut history = Self::default();
        for line in lines {
            history.add(line);
        }
        history.claims.sort_by_key(|claim| claim.begun);
        history
    }

    /// How many jobs the history knows.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// How many lines a killed process left unfinished.
    pub fn torn(&self) -> usize {
        self.torn
    }

    /// How many runs began.
    pub fn runs(&self) -> usize {
        self.jobs.values().map(|life| life.runs.len()).sum()
    }

    /// When each run of a job began, with the process that ran it, in order.
    pub fn starts(&self, job: &str) -> Vec<(Micros, &str)> {
        let runs = self.jobs.get(job).map(|life| &life.runs[..]).unwrap_or_default();
        runs.iter().map(|run| (run.started, &*run.worker)).collect()
    }

    /// The ids of all jobs.
    pub fn jobs(&self) -> impl Iterator<Item = &str> {
        self.jobs.keys().map(String::as_str)
    }

    /// How many runs ended since then.
    pub fn finished_since(&self, since: Micros) -> usize {
        let runs = self.jobs.values().flat_map(|life| &life.runs);
        runs.filter(|run| run.finished.as_ref().is_some_and(|(at, _)| *at >= since)).count()
    }

    /// How many runs of this worker ended since then.
    pub fn finished_by(&self, worker: &str, since: Micros) -> usize {
        let runs =
            self.jobs.values().flat_map(|life| &life.runs).filter(|run| run.worker == worker);
        runs.filter(|run| run.finished.as_ref().is_some_and(|(at, _)| *at >= since)).count()
    }

    /// How many runs of a job began whose end was never settled.
    pub fn lost_runs(&self, job: &str) -> usize {
        let runs = self.jobs.get(job).map(|life| &life.runs[..]).unwrap_or_default();
        runs.iter().filter(|run| run.settled.is_none()).count()
    }

    /// The workers that recorded into the file of this name, without its ending.
    pub fn workers_of(&self, file: &str) -> &[String] {
        self.files.get(file).map(Vec::as_slice).unwrap_or_default()
    }

    /// How long after its death the jobs that a worker was running ran again, for those that did.
    pub fn rescues(&self, worker: &str, died: Micros) -> Vec<Micros> {
        let mut rescues = Vec::new();
        for life in self.jobs.values() {
            let lost =
                |run: &Run| run.worker == worker && run.started <= died && run.settled.is_none();
            if let Some(at) = life.runs.iter().position(lost)
                && let Some(next) = life.runs.get(at + 1)
            {
                rescues.push(next.started.saturating_sub(died));
            }
        }
        rescues
    }

    /// As [`rescues`](Self::rescues), for the worker that recorded into this file.
    pub fn rescues_of_file(&self, file: &str, died: Micros) -> Vec<Micros> {
        let workers = self.workers_of(file).iter();
        workers.flat_map(|worker| self.rescues(worker, died)).collect()
    }

    fn add(&mut self, line: Line) {
        let at = line.at;
        match line.step {
            Step::Enqueued {
                job,
                database,
                queue,
                ability,
                key,
                key_may_double,
                priority,
                delayed,
                doubtful,
                begun,
            } => {
                let doubtful = !doubtful.is_empty();
                self.life(job).enqueued.push(Enqueue {
                    database,
                    queue,
                    ability,
                    key,
                    key_may_double,
                    priority,
                    delayed,
                    doubtful,
                    begun,
                    at,
                });
            }
            Step::Uncertain { job } => self.life(job).uncertain = true,
            Step::Dropped { job } => self.life(job).dropped = Some(at),
            Step::Claimed { worker, database, queue, jobs, begun } => {
                for (job, _) in &jobs {
                    let claimed = (worker.clone(), database.clone(), at);
                    self.life(job.clone()).claimed.push(claimed);
                }
                self.claims.push(Claim { database, queue, jobs, begun, at });
            }
            Step::Started { worker, database, job, attempt } => {
                let steps = self.life(job);
                if let Some(twice) = steps.begun_before(&worker, &database, attempt) {
                    steps.twice.push(twice);
                }
                let (finished, settled) = (None, None);
                steps.runs.push(Run { worker, database, attempt, started: at, finished, settled });
            }
            Step::Finished { worker, database, job, attempt, outcome } => {
                if let Some(run) = self.life(job).run(&worker, &database, attempt) {
                    run.finished = Some((at, outcome));
                }
            }
            Step::Settled { worker, database, job, attempt, last, given_back, answer } => {
                // One that was given back unstarted is no run.
                if !given_back && let Some(run) = self.life(job).run(&worker, &database, attempt) {
                    run.settled = Some(Settle { at, last, answer });
                }
            }
            Step::Replied { job, attempt } => self.life(job).replies.push(attempt),
        }
    }

    fn life(&mut self, job: String) -> &mut Life {
        self.jobs.entry(job).or_default()
    }
}

/// Reads all files of a directory: each whole line, with the name of its file. Returns how many
/// were torn.
fn each_line(directory: &Path, mut take: impl FnMut(&str, Line)) -> io::Result<usize> {
    let mut torn = 0;
    for file in std::fs::read_dir(directory)? {
        let path = file?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&path)?;
        for line in text.split_inclusive('\n') {
            match serde_json::from_str::<Line>(line) {
                Ok(line) => take(&name, line),
                Err(_) if !line.ends_with('\n') => torn += 1,
                Err(error) => return Err(io::Error::other(format!("{line:?}: {error}"))),
            }
        }
    }
    Ok(torn)
}

impl Life {
    /// Whether a worker has begun this run before and not settled it, here or in another database.
    fn begun_before(&mut self, worker: &str, database: &str, attempt: i32) -> Option<Twice> {
        let here = self.run(worker, database, attempt).filter(|run| run.settled.is_none());
        let here = here.map(|run| run.started);
        let elsewhere = |run: &&Run| {
            run.worker == worker
                && run.database != database
                && run.attempt == attempt
                && run.settled.is_none()
        };
        let first = here.or_else(|| self.runs.iter().find(elsewhere).map(|run| run.started))?;
        let anew = self
            .claimed
            .iter()
            .filter(|(by, from, at)| by == worker && from == database && *at > first);
        Some(Twice {
            worker: worker.to_owned(),
            elsewhere: here.is_none(),
            claimed_anew: anew.map(|(.., at)| *at).max(),
        })
    }

    /// The latest run of this number at a worker. Of a job that may be double each database has
    /// its own, and one worker may run both.
    fn run(&mut self, worker: &str, database: &str, attempt: i32) -> Option<&mut Run> {
        let ours = |run: &&mut Run| {
            run.worker == worker && run.database == database && run.attempt == attempt
        };
        self.runs.iter_mut().rev().find(ours)
    }
}

/// Where jobs are at the end, as the databases say.
#[derive(Debug, Default)]
pub struct Remains {
    /// Jobs that live.
    pub live: HashSet<String>,
    /// Jobs that left the queue into the exception log.
    pub failed: HashSet<String>,
}

impl Remains {
    /// Reads all databases of a manager.
    ///
    /// # Errors
    ///
    /// When one of them does not answer: a proof needs all of them.
    pub fn of(manager: &Manager) -> Result<Self, Error> {
        let mut remains = Self::default();
        let mut live: HashMap<String, u32> = HashMap::new();
        let mut paging = Paging::default().limit(PAGE).without_arguments();
        loop {
            let listing = manager.jobs(&JobFilter::all(), &paging);
            let next = listing.next.clone();
            for on in listing {
                for job in on.answer? {
                    *live.entry(job.id.to_string()).or_default() += 1;
                }
            }
            let Some(next) = next else { break };
            paging = paging.after(next);
        }
        remains.live = live.into_keys().collect();
        let mut paging = Paging::default().limit(PAGE).without_arguments();
        loop {
            let listing = manager.exceptions(&ExceptionFilter::discarded(), &paging);
            let next = listing.next.clone();
            for on in listing {
                remains.failed.extend(on.answer?.into_iter().map(|row| row.job.to_string()));
            }
            let Some(next) = next else { break };
            paging = paging.after(next);
        }
        Ok(remains)
    }
}
