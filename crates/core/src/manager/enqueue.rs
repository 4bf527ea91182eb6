use crate::tools::guard::guard;
use crate::tools::random::jitter;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, SystemTime};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{Arg, Hook, HookSet, JSON, JobDraft, JobId, JobView, Schedule};
use serde::de::DeserializeOwned;

use super::Manager;
use super::batch::{Batch, Group, Way};
use super::database::Database;
use super::inserter::insert_limit;
use super::route::{DRAINING, Route};
use crate::ability::{split_version, versioned};
use crate::backoff::LONGEST_DELAY;
use crate::driver::{DriverError, Due, ErrorKind, Inserted, JobRecord};
use crate::error::DownReason;
use crate::names::{check_name, check_uniqkey};
use crate::observe::Event;
use crate::{Error, NewJob, Ticket};

/// What became of an enqueue.
#[derive(Debug, Clone)]
pub enum Enqueued {
    /// The job is stored; the ticket awaits its reply.
    New(Ticket),
    /// A live job holds the unique key; the ticket is for that one.
    Existing(Ticket),
    /// A hook or the caller suppressed the job; nothing is stored.
    Suppressed,
}

impl Enqueued {
    /// Whether a job was stored.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// The ticket of the new or the existing job.
    pub fn ticket(&self) -> Option<&Ticket> {
        match self {
            Self::New(ticket) | Self::Existing(ticket) => Some(ticket),
            Self::Suppressed => None,
        }
    }

    /// The id of the new or the existing job.
    pub fn id(&self) -> Option<JobId> {
        self.ticket().map(Ticket::id)
    }

    /// Waits for the reply; see [`Ticket::wait`]. A suppressed job has none.
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`].
    pub fn wait<T: DeserializeOwned + 'static>(&self, limit: Duration) -> Result<T, Error> {
        match self.ticket() {
            Some(ticket) => ticket.wait(limit),
            None => Err(Error::NoReply { job: JobId::from_uuid(uuid::Uuid::nil()) }),
        }
    }
}

/// A job that went through the hooks and is encoded, with where it may go.
struct Prepared {
    record: JobRecord,
    route: Route,
    /// When the time of its enqueue is over.
    until: Instant,
}

/// For so many jobs of a bulk enqueue room is made at once; the list grows for the others.
const MOST_EXPECTED: usize = 65_536;

/// The log warns of this many different names of abilities that are not linked.
const MOST_WARNINGS: usize = 1_000;

/// Where jobs were stored, one answer for each.
struct Stored {
    answers: Vec<Inserted>,
    database: Arc<Database>,
    /// Databases that may have stored them too, before they failed.
    doubtful: Vec<Arc<Database>>,
    key_may_double: bool,
    begun: SystemTime,
}

impl Manager {
    /// Stores a job durably and tells what became of it. Blocks for one round trip or two.
    ///
    /// # Errors
    ///
    /// A hook's refusal, an argument or name that cannot be stored, or no database that can take
    /// the job. After [`Error::Uncertain`] the job may be stored; repeating with the same
    /// [id](NewJob::with_id) is safe.
    pub fn enqueue(&self, job: NewJob) -> Result<Enqueued, Error> {
        let hooks = self.hooks();
        let Some(prepared) = self.prepare(job, &hooks)? else {
            return Ok(Enqueued::Suppressed);
        };
        let until = prepared.until;
        if let Some((holder, database)) =
            Self::held_at_former_home(&prepared.record, &prepared.route, until)?
        {
            return Ok(Enqueued::Existing(Ticket::new(self.clone(), holder, Some(database))));
        }
        let record = Arc::new(vec![prepared.record]);
        let stored = self.insert_somewhere(&record, &prepared.route, until)?;
        stored.database.ring_for(&record, self.options().delay);
        Ok(self.conclude(&record[0], stored.answers[0], &stored, &hooks))
    }

    /// Stores many jobs in few statements; answers one for one.
    ///
    /// Jobs that may go anywhere go to one database together. Per database it is all or nothing.
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue); before the first insert nothing is stored. When one of
    /// several databases fails after another stored its share: [`Error::PartlyEnqueued`].
    pub fn enqueue_many(
        &self,
        jobs: impl IntoIterator<Item = NewJob>,
    ) -> Result<Vec<Enqueued>, Error> {
        let hooks = self.hooks();
        let jobs = jobs.into_iter();
        // Of a hint that is wrong no more than this comes.
        let expected = jobs.size_hint().0.min(MOST_EXPECTED);
        let (mut answers, mut batch) = (Vec::with_capacity(expected), Batch::new(expected));
        let until = self.time_for(1);
        for (place, mut job) in jobs.enumerate() {
            answers.push(Enqueued::Suppressed);
            // The way depends on the unique key, which a hook may set: so hooks first.
            if !self.pass_hooks(&mut job, &hooks)? {
                continue;
            }
            // All of them share one limit, but the caller's iterator may take its time.
            let until = until.max(Instant::now() + self.options().call_limit / 10);
            let way = batch.way(self, &job, until)?;
            let record = self.encode_draft(job)?;
            if let Way::Own(route) = &way
                && let Some((holder, database)) = Self::held_at_former_home(&record, route, until)?
            {
                answers[place] =
                    Enqueued::Existing(Ticket::new(self.clone(), holder, Some(database)));
                continue;
            }
            batch.add(way, place, record);
        }
        let (mut sent, mut stored, total) = (false, 0, answers.len());
        let mut groups = batch.into_groups().into_iter();
        while let Some(Group { route, records, places }) = groups.next() {
            let records = Arc::new(records);
            let inserted = self.insert_somewhere(&records, &route, self.time_for(records.len()));
            let group = match inserted {
                Ok(group) => group,
                Err(source) if !sent => return Err(source),
                Err(source) => {
                    let unsent = groups.flat_map(|group| group.places);
                    let unsent: HashSet<usize> = places.into_iter().chain(unsent).collect();
                    let answers = answers.into_iter().enumerate();
                    let answers = answers.map(|(at, one)| (!unsent.contains(&at)).then_some(one));
                    let (answers, source) = (answers.collect(), Box::new(source));
                    return Err(Error::PartlyEnqueued { stored, total, answers, source });
                }
            };
            sent = true;
            stored += group.answers.iter().filter(|one| **one == Inserted::New).count();
            group.database.ring_for(&records, self.options().delay);
            for ((place, record), answer) in places.into_iter().zip(&*records).zip(&group.answers) {
                answers[place] = self.conclude(record, *answer, &group, &hooks);
            }
        }
        Ok(answers)
    }

    /// Hooks and encoding for a job that is stored by other means than [`enqueue`](Self::enqueue):
    /// in the caller's own transaction, or in place of a running job. `None` when suppressed.
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue), before the insert.
    pub fn prepare_record(&self, job: NewJob) -> Result<Option<JobRecord>, Error> {
        let hooks = self.hooks();
        self.encode(job, &hooks)
    }

    /// When an enqueue of so many jobs ends that begins now, however many databases do not answer.
    fn time_for(&self, jobs: usize) -> Instant {
        Instant::now() + insert_limit(self.options().call_limit, jobs)
    }

    fn prepare(&self, job: NewJob, hooks: &HookSet) -> Result<Option<Prepared>, Error> {
        // The route needs the unique key, which a hook may set: so hooks first.
        let mut job = job;
        if !self.pass_hooks(&mut job, hooks)? {
            return Ok(None);
        }
        // Hooks take their own time.
        let until = self.time_for(1);
        let route = self.route(&job, until)?;
        let record = self.encode_draft(job)?;
        Ok(Some(Prepared { record, route, until }))
    }

    fn encode(&self, mut job: NewJob, hooks: &HookSet) -> Result<Option<JobRecord>, Error> {
        if !self.pass_hooks(&mut job, hooks)? {
            return Ok(None);
        }
        self.encode_draft(job).map(Some)
    }

    /// Runs the `pre_enqueue` hooks; `false` when the job is suppressed.
    fn pass_hooks(&self, job: &mut NewJob, hooks: &HookSet) -> Result<bool, Error> {
        if hooks.is_empty() {
            return Ok(!job.fields.is_suppressed());
        }
        let refused = |hook: &str, source, job: &NewJob| Error::Refused {
            hook: hook.to_owned(),
            ability: job.ability.to_string(),
            source,
        };
        let ours = self.hooks_of(&job.ability, hooks).map_err(|(hook, panic)| {
            refused(&hook, qudo_hooks::HookError::new(format!("applies_to {panic}")), job)
        })?;
        for hook in ours {
            let mut draft = JobDraft::new(&job.ability, &mut job.fields);
            let passed = guard(|| hook.pre_enqueue(&mut draft))
                .unwrap_or_else(|panic| Err(qudo_hooks::HookError::new(panic)));
            passed.map_err(|source| refused(hook.name(), source, job))?;
        }
        Ok(!job.fields.is_suppressed())
    }

    /// The hooks for jobs of an ability, which may be named by an alias; or which of them panicked when
    /// it was asked, and how.
    fn hooks_of<'h>(
        &self,
        ability: &str,
        hooks: &'h HookSet,
    ) -> Result<Vec<&'h dyn Hook>, (String, String)> {
        let ability = self.inner.abilities.get(ability).map_or(ability, |entry| &entry.name);
        let mut ours = Vec::new();
        for hook in hooks.iter() {
            match guard(|| hook.applies_to(ability)) {
                Ok(true) => ours.push(hook),
                Ok(false) => {}
                Err(panic) => return Err((hook.name().to_owned(), panic)),
            }
        }
        Ok(ours)
    }

    fn encode_draft(&self, mut job: NewJob) -> Result<JobRecord, Error> {
        check_name("ability", &job.ability)?;
        check_name("queue", job.fields.queue())?;
        let codec = match versioned(job.fields.codec(), job.fields.version()) {
            Cow::Borrowed(JSON) => Cow::Borrowed(JSON),
            other => Cow::Owned(other.into_owned()),
        };
        check_name("codec", &codec)?;
        if let Some(key) = job.fields.uniqkey() {
            check_uniqkey(key)?;
        }
        self.warn_once_of_unknown(&job.ability);
        let arg = self.encode_arg(&mut job)?;
        if arg.len() > self.options().max_arg_size {
            return Err(Error::ArgTooLarge {
                ability: job.ability.to_string(),
                size: arg.len(),
                limit: self.options().max_arg_size,
            });
        }
        let due = match job.fields.schedule() {
            Schedule::At(at) => Due::At(at),
            Schedule::In(delay) if delay > LONGEST_DELAY => {
                return Err(Error::InvalidOption {
                    option: "delay",
                    reason: "a job cannot be delayed for more than a year".to_owned(),
                });
            }
            Schedule::In(delay) if !delay.is_zero() => Due::In(delay),
            _ => Due::Now,
        };
        Ok(JobRecord {
            id: job.id,
            queue: job.fields.take_queue(),
            codec,
            arg,
            uniqkey: job.fields.take_uniqkey(),
            // The stored rank is minus the priority, which the lowest number does not have.
            priority: job.fields.priority().max(-i32::MAX),
            due,
            ability: job.ability,
        })
    }

    fn encode_arg(&self, job: &mut NewJob) -> Result<Vec<u8>, Error> {
        let arg = job.fields.take_arg();
        let (codec, _) = split_version(job.fields.codec());
        let codec = self.codecs().get(codec);
        let encoded = match arg {
            // Bytes come from the client as they are; a worker that cannot read them says so.
            Arg::Encoded(bytes) => Ok(bytes),
            Arg::Typed(value) => codec.and_then(|codec| codec.encode(&value)),
            Arg::Json(value) => codec.and_then(|codec| codec.encode(&value)),
        };
        encoded.map_err(|source| Error::Codec {
            what: format!("the argument of a job for {:?} cannot be stored", job.ability),
            source,
        })
    }

    /// A client need not link the ability, but a typing error should not pass in silence.
    fn warn_once_of_unknown(&self, ability: &str) {
        if self.inner.abilities.is_empty() || self.can_do(ability) {
            return;
        }
        let mut warned = self.inner.unknown_abilities.lock();
        // A gateway may take the names from its requests.
        if warned.len() < MOST_WARNINGS && warned.insert(ability.to_owned()) {
            log::warn!("enqueuing jobs for {ability:?}, which is not linked in this program");
        }
    }

    /// A drained database may still hold the unique key; then nothing is stored elsewhere.
    fn held_at_former_home(
        job: &JobRecord,
        route: &Route,
        until: Instant,
    ) -> Result<Option<(JobId, Arc<Database>)>, Error> {
        let Some(key) = &job.uniqkey else { return Ok(None) };
        for database in &route.former_homes {
            let (ability, key) = (job.ability.clone(), key.clone());
            let asked =
                database.begin("look up a unique key", move |driver| driver.holder(&ability, &key));
            match asked.wait_at_most(time_left(until)) {
                Ok(None) => {}
                Ok(Some(holder)) => return Ok(Some((holder, Arc::clone(database)))),
                // With `UniqPolicy::Available` a key may live twice rather than not at all.
                Err(error) if error.is_down() && !route.home_only => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Tries the candidates in order until one stores the jobs.
    fn insert_somewhere(
        &self,
        jobs: &Arc<Vec<JobRecord>>,
        route: &Route,
        until: Instant,
    ) -> Result<Stored, Error> {
        let begun = SystemTime::now();
        let (mut reasons, mut doubtful) = (Vec::new(), Vec::new());
        let mut pass_over = |database: &Arc<Database>, reason: String| {
            reasons.push(DownReason { database: database.name.to_string(), reason });
        };
        if route.candidates.is_empty() {
            route.former_homes.iter().for_each(|one| pass_over(one, DRAINING.to_owned()));
        }
        let mut refused = Vec::new();
        let mut left = route.candidates.len();
        let budget = Budget::new(route, jobs.len(), until);
        for database in &route.candidates {
            left -= 1;
            if let Some(reason) = database.reason() {
                pass_over(database, reason);
                continue;
            }
            let Some(until) = budget.until(database, left) else {
                pass_over(database, "it owes an answer".to_owned());
                continue;
            };
            let (answer, repeated) = match database.control_within(time_left(until)) {
                Ok(control) if control.draining => {
                    pass_over(database, DRAINING.to_owned());
                    continue;
                }
                Ok(_) => insert_at(database, jobs, until),
                Err(error) => (Err(error), false),
            };
            if repeated {
                doubtful.push(Arc::clone(database));
            }
            match answer {
                Ok(answers) => {
                    let (database, key_may_double) = (Arc::clone(database), !route.home_only);
                    return Ok(Stored { answers, database, doubtful, key_may_double, begun });
                }
                // Nor is it tried elsewhere when the repetition met an error of another kind.
                Err(error)
                    if error.is_ambiguous()
                        && !(route.failover_when_uncertain && error.is_down()) =>
                {
                    for job in &**jobs {
                        let (job, database) = (job.id, &*database.name);
                        self.tell(|| Event::Uncertain { job, database });
                    }
                    return Err(Error::Uncertain {
                        database: database.name.to_string(),
                        job: jobs[0].id,
                        source: error,
                    });
                }
                Err(error) if error.is_down() => {
                    if error.is_ambiguous() && !repeated {
                        doubtful.push(Arc::clone(database));
                    }
                    pass_over(database, crate::tools::causes::with_causes(&error));
                }
                Err(error) if refuses(&error) => {
                    pass_over(database, crate::tools::causes::with_causes(&error));
                    refused.push(Error::database(&database.name, "store a job", error));
                }
                Err(error) => return Err(Error::database(&database.name, "store a job", error)),
            }
        }
        // None is merely away: whoever runs this has to mend something.
        if refused.len() == route.candidates.len()
            && let Some(first) = refused.into_iter().next()
        {
            return Err(first);
        }
        if !doubtful.is_empty() {
            for job in &**jobs {
                self.tell(|| Event::Uncertain { job: job.id, database: &doubtful[0].name });
            }
        }
        let (answers, database) = self.spool_jobs(jobs, route, Error::AllDatabasesDown(reasons))?;
        Ok(Stored { answers, database, doubtful, key_may_double: !route.home_only, begun })
    }

    fn conclude(
        &self,
        record: &JobRecord,
        inserted: Inserted,
        stored: &Stored,
        hooks: &HookSet,
    ) -> Enqueued {
        let database = &stored.database;
        let ticket = |id| Ticket::new(self.clone(), id, Some(Arc::clone(database)));
        let id = match inserted {
            Inserted::New => record.id,
            Inserted::Existing(id) => return Enqueued::Existing(ticket(id)),
        };
        let doubtful: Vec<_> = stored.doubtful.iter().map(|one| &*one.name).collect();
        self.tell(|| Event::Enqueued {
            job: record,
            database: &database.name,
            doubtful: &doubtful,
            key_may_double: stored.key_may_double,
            begun: stored.begun,
        });
        if !hooks.is_empty() {
            let view = JobView::new(id, &record.ability, &record.queue)
                .with_database(&database.name)
                .with_uniqkey(record.uniqkey.as_deref())
                .with_priority(record.priority)
                .with_arg(&record.codec, &record.arg);
            let ours = self.hooks_of(&record.ability, hooks).unwrap_or_else(|(hook, panic)| {
                log::error!("the hook {hook:?}, applies_to, after job {id} was stored: {panic}");
                Vec::new()
            });
            for hook in ours {
                if let Err(panic) = guard(|| hook.post_enqueue(&view)) {
                    let (hook, panic) = (hook.name(), panic);
                    log::error!("the hook {hook:?} panicked after job {id} was stored: {panic}");
                }
            }
        }
        Enqueued::New(ticket(id))
    }
}

/// The time of one enqueue: the limit of a call, however many databases do not answer. The first
/// that is asked gets most of it, because to leave a database that is merely slow risks that the
/// job is stored twice.
struct Budget {
    limit: Duration,
    until: Instant,
}

/// What is kept back for each of the other candidates: 1/5 of the limit, and never more than half of
/// what is left.
const OTHERS_SHARE: u32 = 5;

fn time_left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl Budget {
    fn new(route: &Route, jobs: usize, until: Instant) -> Self {
        let limit = route.candidates.first().map_or(Duration::ZERO, |one| one.limit());
        Self { limit: insert_limit(limit, jobs), until }
    }

    /// Until when this candidate may take when so many others come after it. One that owes no
    /// answer always gets its share: with a moment only it might store the job and nobody hear.
    fn until(&self, database: &Database, others: usize) -> Option<Instant> {
        let share = self.share(others);
        let least = self.limit / OTHERS_SHARE;
        if share < least && database.is_slow() {
            return (share > Duration::ZERO).then(|| Instant::now() + share);
        }
        Some(Instant::now() + share.max(least))
    }

    /// How long the next candidate may take when so many others come after it.
    fn share(&self, others: usize) -> Duration {
        let left = time_left(self.until);
        let kept = (self.limit / OTHERS_SHARE).saturating_mul(others as u32).min(left / 2);
        left.saturating_sub(kept)
    }
}

/// Whether the database is at fault and not the job: its tables are missing or of another version, or the
/// account lacks a right. Another database may take the job.
fn refuses(error: &DriverError) -> bool {
    matches!(error.kind(), ErrorKind::Schema | ErrorKind::Permission)
}

/// How soon an insert is repeated whose answer was lost.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// Inserts, and repeats by id when the answer was lost: nothing is stored twice while the job lives,
/// and it turns most uncertain answers into certain ones. The server may be restarting, so it is
/// repeated for as long as there is time: stored elsewhere too soon, the job would run twice. A
/// database that hangs is not asked a second time. Tells whether it repeated: should the first have
/// been stored, and the job have run and ended before the second, it runs again.
fn insert_at(
    database: &Arc<Database>,
    jobs: &Arc<Vec<JobRecord>>,
    until: Instant,
) -> (Result<Vec<Inserted>, DriverError>, bool) {
    let epoch = database.epoch();
    let mut answer = database.insert(jobs, time_left(until));
    let is_unknown =
        |error: &DriverError| error.is_ambiguous() && error.is_down() && !error.is_hung();
    let repeated = answer.as_ref().is_err_and(is_unknown);
    if repeated {
        log::info!("database {:?} broke off an insert; repeating it by id", &*database.name);
    }
    let mut pause = Duration::ZERO;
    while repeated
        && answer.as_ref().is_err_and(|error| error.is_down() && !error.is_hung())
        // A repetition without the time for an answer would only look like a server that hangs.
        && time_left(until) > pause + 2 * REPEAT_AFTER
    {
        sleep(jitter(pause));
        pause = REPEAT_AFTER;
        // Whatever becomes of the repetition, the first attempt may have been committed.
        answer = database.insert(jobs, time_left(until)).map_err(|again| again.ambiguous(true));
    }
    if let Err(error) = &answer {
        database.note_error(error, epoch);
    }
    (answer, repeated)
}
