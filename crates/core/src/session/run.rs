//! One run of one job: hooks, decode, ability, and what follows from how it ended.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use qudo_hooks::{
    Decision, Failure, FailureKind, Hook, HookError, HookSet, JobView, Outcome, Veto,
};

use super::aftermath;
use crate::ability::AbilityEntry;
use crate::backoff::MAX_DELAY;
use crate::driver::{
    ClaimedJob, ExceptionRecord, Extras, JobRecord, ReplyRecord, Settled, Settlement, StatusRecord,
    Verdict, WorkerInfo,
};
use crate::error_class;
use crate::job::{Job, Post};
use crate::job_error::{Unfinished, Wish};
use crate::observe::Event;
use crate::program::Program;
use crate::spans::Span;
use crate::tools::awake;
use crate::tools::causes::with_causes;
use crate::tools::guard::{guard, say};
use crate::tools::sync::Mutex;
use crate::tools::time::{Instant, SystemTime};

/// What a run needs to know beside where it runs.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    /// Those of the program when it began.
    pub(crate) hooks: &'a HookSet,
    pub(crate) worker: &'a WorkerInfo,
}

/// When a run began, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) at: Instant,
    /// By [`awake::now`], which goes on while the machine sleeps.
    pub(crate) awake: Duration,
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), awake: awake::now() }
    }
}

/// How a run ended.
pub(crate) struct Ran {
    /// `None` when the ability settled it in its own transaction.
    pub(crate) settlement: Option<Settlement>,
    pub(crate) outcome: Outcome,
    /// For the next.
    pub(crate) post: Arc<Post>,
}

/// What a run that completed leaves.
struct Done {
    reply: Option<ReplyRecord>,
    replacements: Vec<JobRecord>,
}

/// How the ability's part ended.
type End = Result<Done, Unfinished>;

/// The longest message kept, in bytes.
const MAX_MESSAGE: usize = 20_000;

/// The longest name of an error's type kept, in bytes.
const MAX_CLASS: usize = 200;

/// A message that every engine can store: without NUL, which PostgreSQL refuses, and not endless.
fn storable(message: &str, longest: usize) -> String {
    let mut text = message.replace('\0', "\u{fffd}");
    if text.len() > longest {
        let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Runs a claimed job to its settlement.
pub(crate) fn run_job(
    context: &Context<'_>,
    post: Arc<Post>,
    claimed: Box<ClaimedJob>,
    begun: Begun,
) -> Ran {
    let (program, hooks) = (context.program, context.hooks);
    let Some(entry) = program.abilities.get(&claimed.facts.ability) else {
        // The claim asks for our abilities only; one that appears all the same is left to others.
        let settlement = Settlement { job: claimed, verdict: Verdict::GiveBack, extras: None };
        let outcome = Outcome::Snoozed(Duration::ZERO);
        return Ran { settlement: Some(settlement), outcome, post };
    };
    // Nobody but an observer hears of it.
    let started = program.is_observed().then(SystemTime::now);
    let mut job = Job {
        claimed,
        post,
        max_retries: entry.options.max_retries,
        reply_codec: entry.options.codec.clone(),
        lease: entry.options.grab_for.unwrap_or(program.options.grab_for),
        begun: begun.at,
        begun_awake: begun.awake,
        keeps_status: entry.options.job_status,
        deadline: entry.options.time_limit.and_then(|limit| begun.at.checked_add(limit)),
        written: Mutex::default(),
        progress: OnceLock::new(),
        next_sent: Arc::default(),
    };
    let span = Span::of_run(&job);
    let (worker, database) = (job.post.worker, &*job.post.database);
    program.tell(|| Event::Started { worker, database, job: &job.claimed });
    let end = if job.claimed.crashes.unsigned_abs() > entry.options.max_crashes {
        let message = format!(
            "the job outlived its worker or its lease {} times, more than max_crashes allows",
            job.claimed.crashes
        );
        Err(Unfinished::aborted(FailureKind::Crash, message))
    } else {
        match job.cancel_reason() {
            // Before it began.
            Some(reason) => Err(Unfinished::cancelled(&reason)),
            None => cancelled(&job, perform(&job, entry, hooks)),
        }
    };
    let end = if job.written.get_mut().completed { Ok(committed(&mut job, end)) } else { end };
    let (outcome, verdict, mut extras) = conclude(context, &mut job, entry, end);
    span.note_outcome(outcome.as_str());
    if !hooks.is_empty() {
        say(|| after(&job, entry, hooks, &outcome));
    }
    if entry.options.job_status {
        extras.get_or_insert_default().status = Some(StatusRecord {
            status: outcome.as_str(),
            took: begun.at.elapsed(),
            message: outcome.message().map(|message| storable(message, MAX_MESSAGE)),
        });
    }
    let settled = job.written.get_mut().completed;
    // The run ended, whatever becomes of the words about it.
    say(|| log_outcome(&job, &outcome));
    say(|| tell_end(program, &job, &outcome, settled));
    if let (true, Some(extras), Some(started)) = (settled, &extras, started) {
        program.tell_replacements(&extras.replacements, &[], &job.post.database, started);
    }
    if settled && !hooks.is_empty() {
        say(|| {
            if let Some(extras) = &extras {
                aftermath::enqueued(program, hooks, &extras.replacements, &[], &job.post.database);
            }
            aftermath::ended(program, hooks, job.view(), &outcome);
        });
    }
    if verdict == Verdict::Complete && extras.is_none() {
        // Thousands of settlements may gather, and none of these needs its argument any more. One that
        // brings a reply may be refused, and its argument is then kept in the exception log.
        job.claimed.facts.arg = Vec::new();
    }
    let Job { claimed, post, .. } = job;
    let settlement = (!settled).then_some(Settlement { job: claimed, verdict, extras });
    Ran { settlement, outcome, post }
}

/// A run that was cancelled and did not do its work is cancelled, whatever else it says of its end.
fn cancelled(job: &Job, end: End) -> End {
    match (end, job.cancel_reason()) {
        (Err(unfinished), Some(reason)) => {
            let (id, message) = (job.id(), unfinished.failure.message());
            log::debug!("job {id} was cancelled, and its run ended with: {message}");
            Err(Unfinished::cancelled(&reason))
        }
        (end, _) => end,
    }
}

fn tell_end(program: &Program, job: &Job, outcome: &Outcome, settled: bool) {
    let (worker, database) = (job.post.worker, &*job.post.database);
    let (id, attempt) = (job.id(), job.claimed.attempt);
    program.tell(|| Event::Finished {
        worker,
        database,
        job: id,
        attempt,
        outcome: outcome.as_str(),
    });
    if settled {
        let (verdict, answer) = (Verdict::Complete, Some(Settled::Done));
        program.tell(|| Event::Settled { worker, database, job: id, attempt, verdict, answer });
    }
}

/// The job's own transaction is committed: whatever the ability did afterwards, the job is done.
fn committed(job: &mut Job, end: End) -> Done {
    let id = job.id();
    match end {
        Err(Unfinished { failure, wish }) if !matches!(wish, Wish::Snooze(_)) => {
            log::error!("job {id} failed after it was completed: {}", failure.message());
        }
        Ok(done) if !done.replacements.is_empty() => {
            log::error!("job {id} was replaced after it was completed, so that nothing was stored");
        }
        _ => {}
    }
    let written = job.written.get_mut();
    written.replies.clear();
    Done { reply: None, replacements: std::mem::take(&mut written.stored) }
}

/// `pre_work` hooks, then the ability inside its `around_work` hooks.
///
/// The user's code is also called where it does not look so, by the `applies_to` of a hook and the
/// `Display` of an error. Whatever of it panics, the attempt fails and the thread lives.
fn perform(job: &Job, entry: &AbilityEntry, hooks: &HookSet) -> End {
    if hooks.is_empty() {
        return run_ability(job, entry);
    }
    guard(|| perform_inside(job, entry, hooks)).unwrap_or_else(panicked)
}

fn panicked(panic: String) -> End {
    Err(Unfinished::failed(FailureKind::Panic, panic))
}

fn perform_inside(job: &Job, entry: &AbilityEntry, hooks: &HookSet) -> End {
    let view = job.view();
    for hook in hooks.of(&entry.name) {
        let passed =
            guard(|| hook.pre_work(&view)).unwrap_or_else(|panic| Err(HookError::new(panic)));
        if let Err(error) = passed {
            return Err(refused(hook, &error));
        }
    }
    let mut ended = None;
    let around: Vec<_> = hooks.of(&entry.name).collect();
    let wrapped = guard(|| {
        wrap(&around, &view, &mut || {
            if ended.is_none() {
                ended = Some(run_ability(job, entry));
            }
        });
    });
    if let Err(panic) = &wrapped {
        // The ability may have done its work: its own result counts more than an observer's panic.
        log::error!("a hook around job {} {}", job.id(), panic);
    }
    ended.unwrap_or_else(|| {
        let message = "an around_work hook did not let the job run";
        Err(Unfinished::failed(FailureKind::Hook, message))
    })
}

fn wrap(hooks: &[&dyn Hook], view: &JobView<'_>, run: &mut dyn FnMut()) {
    match hooks.split_first() {
        None => run(),
        Some((first, rest)) => first.around_work(view, &mut || wrap(rest, view, run)),
    }
}

fn refused(hook: &dyn Hook, error: &HookError) -> Unfinished {
    let message = format!("hook {:?}: {}", hook.name(), with_causes(error));
    match error.veto() {
        Some(Veto::Snooze(delay)) => Unfinished::snoozed(delay),
        Some(Veto::Abort) => Unfinished::aborted(FailureKind::Abort, message),
        _ => Unfinished::failed(FailureKind::Hook, message),
    }
}

fn run_ability(job: &Job, entry: &AbilityEntry) -> End {
    guard(|| run_to_end(job, entry)).unwrap_or_else(panicked)
}

fn run_to_end(job: &Job, entry: &AbilityEntry) -> End {
    let reply = (entry.run)(job, &entry.options, job.post.host.codecs())?;
    let replacements = job.take_replacements().map_err(|error| {
        let message = format!("a replacement cannot be enqueued: {}", with_causes(&error));
        Unfinished::failed(FailureKind::Error, message)
    })?;
    Ok(Done { reply, replacements })
}

type Conclusion = (Outcome, Verdict, Option<Box<Extras>>);

/// What follows from how the run ended, `on_failure` hooks included.
fn conclude(context: &Context<'_>, job: &mut Job, entry: &AbilityEntry, end: End) -> Conclusion {
    match end {
        Err(Unfinished { wish: Wish::Snooze(delay), .. }) => {
            let delay = delay.min(MAX_DELAY);
            (Outcome::Snoozed(delay), Verdict::Snooze(delay), None)
        }
        Ok(Done { reply, replacements }) => {
            let mut replies = std::mem::take(&mut job.written.get_mut().replies);
            replies.extend(reply);
            let outcome = match replacements.len() {
                0 => Outcome::Completed,
                count => Outcome::Replaced(count),
            };
            let extras = (!replies.is_empty() || !replacements.is_empty())
                .then(|| Box::new(Extras { replies, replacements, ..Extras::default() }));
            (outcome, Verdict::Complete, extras)
        }
        Err(Unfinished { failure, .. }) if failure.kind() == FailureKind::Cancelled => {
            let reason = storable(failure.message(), MAX_MESSAGE);
            let exception = context.worker.failed(FailureKind::Cancelled, reason.clone());
            let extras = Extras { exception: Some(exception), ..Extras::default() };
            (Outcome::Cancelled(reason), Verdict::Discard, Some(Box::new(extras)))
        }
        Err(Unfinished { failure, wish }) => {
            let decision = decide(job, entry, context.hooks, &failure, wish);
            let message = storable(failure.message(), MAX_MESSAGE);
            let class = match failure.class() {
                Some(class) => storable(class, MAX_CLASS),
                None => storable(&error_class::of_message(&message), MAX_CLASS),
            };
            let exception = ExceptionRecord {
                class: Some(class.into()),
                ..context.worker.failed(failure.kind(), message)
            };
            let extras = Some(Box::new(Extras { exception: Some(exception), ..Extras::default() }));
            match decision {
                Decision::Retry(delay) => {
                    let delay = delay.min(MAX_DELAY);
                    (Outcome::Retried(failure, delay), Verdict::Retry(delay), extras)
                }
                _ => (Outcome::Discarded(failure), Verdict::Discard, extras),
            }
        }
    }
}

/// The ability's rule first; hooks may change it. An abort is final. An argument that nobody can read is discarded
/// by that rule.
fn decide(
    job: &Job,
    entry: &AbilityEntry,
    hooks: &HookSet,
    failure: &Failure,
    wish: Wish,
) -> Decision {
    if wish == Wish::Abort {
        return Decision::Discard;
    }
    // Crashes have a limit of their own and use up no retry.
    let runs = job.attempt().saturating_sub(job.claimed.crashes.unsigned_abs());
    let view = job.view();
    let mut decision = if wish == Wish::Final || runs > entry.options.max_retries {
        Decision::Discard
    } else if let Wish::RetryAfter(delay) = wish {
        Decision::Retry(delay)
    } else {
        let delay = guard(|| entry.options.retry_delay.delay(&view));
        Decision::Retry(delay.unwrap_or_else(|panic| {
            log::error!("the retry_delay of {:?} {}", entry.name, panic);
            Duration::ZERO
        }))
    };
    let asked = guard(|| {
        for hook in hooks.of(&entry.name) {
            let before = decision;
            let changed = guard(|| hook.on_failure(&view, failure, &mut decision))
                .unwrap_or_else(|panic| Err(HookError::new(panic)));
            if let Err(error) = changed {
                decision = before;
                let (hook, id) = (hook.name(), job.id());
                log::error!("hook {hook:?}, on_failure of job {id}: {}", with_causes(&error));
            }
        }
    });
    if let Err(panic) = asked {
        log::error!("a hook, on_failure of job {}: {}", job.id(), panic);
    }
    decision
}

fn after(job: &Job, entry: &AbilityEntry, hooks: &HookSet, outcome: &Outcome) {
    let (view, id) = (job.view(), job.id());
    let told = guard(|| {
        for hook in hooks.of(&entry.name) {
            if let Err(panic) = guard(|| hook.post_work(&view, outcome)) {
                let (hook, panic) = (hook.name(), panic);
                log::error!("hook {hook:?}, post_work of job {id}: {panic}");
            }
        }
    });
    if let Err(panic) = told {
        log::error!("a hook, post_work of job {id}: {panic}");
    }
}

fn log_outcome(job: &Job, outcome: &Outcome) {
    let (id, ability, attempt) = (job.id(), job.ability(), job.attempt());
    match outcome {
        Outcome::Retried(failure, delay) => log::warn!(
            "job {id} ({ability}) attempt {attempt} failed, next in {:.1} s: {}",
            delay.as_secs_f32(),
            failure.message()
        ),
        Outcome::Cancelled(reason) => {
            log::info!("job {id} ({ability}) attempt {attempt} was cancelled: {reason}");
        }
        Outcome::Discarded(failure) => log::error!(
            "job {id} ({ability}) attempt {attempt} failed for good: {}",
            failure.message()
        ),
        other => log::trace!("job {id} ({ability}) attempt {attempt} {}", other.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::atomic::{AtomicU32, Ordering};

    use qudo_hooks::{CodecSet, JobId, PluginSet, SourceLocation};

    use super::*;
    use crate::ability::{Ability, AbilitySet};
    use crate::ability_options::AbilityOptions;
    use crate::client::draft;
    use crate::driver::Deadline;
    use crate::driver::{LeaseKey, Sending, SentRecord};
    use crate::error::Error;
    use crate::fixture::{self, SOON, memory, program_with, worker};
    use crate::job::{Host, Store, Tenure};
    use crate::job_error::{JobError, JobResult, abort, snooze};
    use crate::new_job::NewJob;
    use crate::options::Options;
    use crate::progress::ProgressCell;
    use crate::tools::front::Front;

    /// What one run does, by the argument of its job.
    struct Mail;

    impl Ability for Mail {
        const NAME: &'static str = "mail";
        const VERSION: u32 = 2;
        type Arg = String;
        type Reply = Option<u32>;

        fn options() -> AbilityOptions {
            AbilityOptions::default().max_retries(1).retry_delay(SOON).job_status(true)
        }

        fn upgrade(_: u32, arg: serde_json::Value) -> JobResult<serde_json::Value> {
            match arg.as_str() {
                Some("no way up") => Err(abort("too old")),
                Some("not yet") => Err(snooze(SOON)),
                Some("odd") => Ok(7.into()),
                _ => Ok(arg),
            }
        }

        fn work(job: &Job, what: String) -> JobResult<Option<u32>> {
            match &*what {
                "reply" => job.reply(&1)?,
                "replace" => job.replace(NewJob::named("mail", "reply".into())),
                "replace badly" => job.replace(NewJob::named("", 1.into())),
                "fail" => return Err(JobError::fail("no\0such\0box")),
                "fail at length" => return Err(JobError::fail("ä".repeat(20_000))),
                "abort" => return Err(abort("never")),
                "snooze" => return Err(snooze(SOON * 1_000_000_000)),
                "later" => return Err(JobError::retry_after(SOON / 2, "later")),
                "panic" => panic!("oh no"),
                _ => {}
            }
            Ok(Some(2))
        }
    }

    struct Home {
        program: Program,
        codecs: CodecSet,
        plugins: PluginSet,
    }

    impl Host for Home {
        fn codecs(&self) -> &CodecSet {
            &self.codecs
        }

        fn plugins(&self) -> &PluginSet {
            &self.plugins
        }

        fn prepare(&self, job: NewJob) -> std::result::Result<Option<JobRecord>, Error> {
            draft::prepare(&self.program, job)
        }

        fn tell_replacements(&self, _: &[JobRecord], _: &[JobId], _: &str) {}

        fn register_progress(&self, _: &Arc<ProgressCell>) {}

        fn note_news(&self, _: JobId) {}

        fn front(&self) -> Arc<Front> {
            Arc::default()
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    struct Alone;

    impl Tenure for Alone {
        fn is_stopping(&self) -> bool {
            false
        }

        fn may_have_lost(&self, _: Duration) -> bool {
            false
        }

        fn cancelled(&self, _: JobId, _: i64) -> Option<Arc<str>> {
            None
        }

        fn tell_news(&self, _: JobId) {}

        fn watch_cancel(&self, _: JobId, _: u64, _: Option<&std::task::Waker>) {}
    }

    impl Store for Alone {
        fn send(&self, _: LeaseKey, _: &Arc<SentRecord>) -> std::result::Result<Sending, Error> {
            Ok(Sending::Stored)
        }

        fn last_sent(&self, _: JobId) -> std::result::Result<Option<i32>, Error> {
            Ok(None)
        }
    }

    fn program(hooks: HookSet) -> Program {
        let mut abilities = AbilitySet::default();
        abilities.insert::<Mail>(SourceLocation::new("here", 1)).expect("is new");
        program_with(abilities, hooks, Options::default())
    }

    fn claimed(what: &str) -> Box<ClaimedJob> {
        let (driver, worker) = (memory(), worker());
        let mut job = fixture::record();
        job.facts.codec = "json@2".into();
        job.facts.arg = format!("{what:?}").into_bytes();
        driver.insert(&[job], Deadline::NONE).expect("stored");
        Box::new(fixture::claim(&*driver, &worker, 1).pop().expect("is there"))
    }

    fn run(hooks: &HookSet, job: Box<ClaimedJob>) -> (Settlement, Outcome) {
        let program = program(HookSet::default());
        let home = Home {
            program: self::program(HookSet::default()),
            codecs: CodecSet::default(),
            plugins: PluginSet::default(),
        };
        let worker = worker();
        let post = Post {
            host: Arc::new(home),
            database: Arc::from("one"),
            driver: memory(),
            worker: worker.id,
            tenure: Arc::new(Alone),
            store: Arc::new(Alone),
        };
        let context = Context { program: &program, hooks, worker: &worker };
        let ran = run_job(&context, Arc::new(post), job, Begun::now());
        (ran.settlement.expect("nobody else settled it"), ran.outcome)
    }

    fn plain(what: &str) -> (Settlement, Outcome) {
        run(&HookSet::default(), claimed(what))
    }

    fn extras(settlement: &Settlement) -> &Extras {
        settlement.extras.as_deref().expect("brings something")
    }

    #[test]
    fn what_was_sent_and_what_is_returned_are_replies_in_this_order() {
        let (settlement, outcome) = plain("reply");
        assert!(matches!(outcome, Outcome::Completed));
        assert_eq!(settlement.verdict, Verdict::Complete);
        let bodies: Vec<_> = extras(&settlement).replies.iter().map(|one| &*one.body).collect();
        assert_eq!(bodies, [b"1", b"2"]);
        let status = extras(&settlement).status.as_ref().expect("was asked for");
        assert_eq!((status.status, status.message.as_deref()), ("completed", None));
    }

    #[test]
    fn a_replacement_goes_with_the_end_and_one_that_cannot_be_stored_fails_the_run() {
        let (settlement, outcome) = plain("replace");
        assert!(matches!(outcome, Outcome::Replaced(1)));
        assert_eq!(extras(&settlement).replacements.len(), 1);
        let (settlement, outcome) = plain("replace badly");
        let failure = outcome.failure().expect("failed");
        assert!(failure.message().contains("replacement"), "{}", failure.message());
        assert!(extras(&settlement).replacements.is_empty());
    }

    #[test]
    fn a_failure_is_retried_by_the_rule_until_that_is_used_up() {
        let (settlement, outcome) = plain("fail");
        assert!(matches!(outcome, Outcome::Retried(_, delay) if delay == SOON));
        assert_eq!(settlement.verdict, Verdict::Retry(SOON));
        let exception = extras(&settlement).exception.as_ref().expect("is told");
        assert_eq!(exception.message, "no\u{fffd}such\u{fffd}box", "as every engine can store it");
        let mut last = claimed("fail");
        last.attempt = 2;
        let (settlement, outcome) = run(&HookSet::default(), last);
        assert!(matches!(outcome, Outcome::Discarded(_)));
        assert_eq!(settlement.verdict, Verdict::Discard);
        let mut crashed = claimed("fail");
        (crashed.attempt, crashed.crashes) = (2, 1);
        let (settlement, _) = run(&HookSet::default(), crashed);
        assert_eq!(settlement.verdict, Verdict::Retry(SOON), "a crash uses up no retry");
    }

    #[test]
    fn the_ability_may_say_what_becomes_of_its_job() {
        let (settlement, outcome) = plain("abort");
        assert_eq!(settlement.verdict, Verdict::Discard);
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Abort));
        let (settlement, _) = plain("later");
        assert_eq!(settlement.verdict, Verdict::Retry(SOON / 2));
        let (settlement, outcome) = plain("snooze");
        assert_eq!(settlement.verdict, Verdict::Snooze(MAX_DELAY), "dates can be reckoned with");
        assert!(outcome.failure().is_none());
    }

    #[test]
    fn a_panic_is_a_failure_and_a_long_message_is_cut_at_a_letter() {
        let (settlement, outcome) = plain("panic");
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Panic));
        assert_eq!(settlement.verdict, Verdict::Retry(SOON));
        let (settlement, _) = plain("fail at length");
        let exception = extras(&settlement).exception.as_ref().expect("is told");
        assert!(exception.message.len() <= MAX_MESSAGE + "…".len());
        assert!(exception.message.ends_with("ä…"));
    }

    #[test]
    fn an_argument_of_another_shape_fails_and_one_of_a_newer_program_waits() {
        let mut odd = claimed("reply");
        odd.facts.arg = b"7".to_vec();
        let (settlement, outcome) = run(&HookSet::default(), odd);
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Decode));
        assert_eq!(settlement.verdict, Verdict::Discard, "the bytes stay the same");
        let mut strange = claimed("reply");
        strange.facts.codec = "strange@2".into();
        let (settlement, outcome) = run(&HookSet::default(), strange);
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Decode));
        assert_eq!(settlement.verdict, Verdict::Retry(SOON), "another program may have that codec");
        let mut newer = claimed("reply");
        newer.facts.codec = "json@3".into();
        let (settlement, outcome) = run(&HookSet::default(), newer);
        assert!(matches!(outcome, Outcome::Snoozed(_)));
        assert!(matches!(settlement.verdict, Verdict::Snooze(_)));
        let mut older = claimed("reply");
        older.facts.codec = "json".into();
        let (settlement, _) = run(&HookSet::default(), older);
        assert_eq!(settlement.verdict, Verdict::Complete);
    }

    #[test]
    fn an_argument_of_an_older_version_that_cannot_be_brought_up_is_not_lost_to_older_programs() {
        let old = |what: &str, bytes: Option<&[u8]>| {
            let mut job = claimed(what);
            job.facts.codec = "json".into();
            if let Some(bytes) = bytes {
                job.facts.arg = bytes.to_vec();
            }
            let (settlement, outcome) = run(&HookSet::default(), job);
            (settlement.verdict, outcome.failure().map(Failure::kind))
        };
        let retried = (Verdict::Retry(SOON), Some(FailureKind::Decode));
        assert_eq!(old("odd", None), retried, "the new shape does not fit");
        assert_eq!(old("", Some(b"\xff")), retried, "it has no form as JSON");
        // What the ability wishes counts here too.
        assert_eq!(old("no way up", None), (Verdict::Discard, Some(FailureKind::Abort)));
        assert_eq!(old("not yet", None), (Verdict::Snooze(SOON), None));
    }

    #[test]
    fn a_job_that_crashed_too_often_is_not_run_again() {
        let mut job = claimed("reply");
        (job.attempt, job.crashes) = (7, 6);
        let (settlement, outcome) = run(&HookSet::default(), job);
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Crash));
        assert_eq!(settlement.verdict, Verdict::Discard);
    }

    #[test]
    fn a_job_of_an_ability_that_is_not_here_goes_back() {
        let mut job = claimed("reply");
        job.facts.ability = "other".into();
        let (settlement, _) = run(&HookSet::default(), job);
        assert_eq!(settlement.verdict, Verdict::GiveBack);
        assert!(!settlement.job.facts.arg.is_empty());
    }

    /// Does at each point what its name says.
    struct Meddler(&'static str, Arc<AtomicU32>);

    impl Hook for Meddler {
        fn name(&self) -> &'static str {
            self.0
        }

        fn pre_work(&self, _: &JobView<'_>) -> std::result::Result<(), HookError> {
            match self.0 {
                "refuses" => Err(HookError::new("no")),
                "aborts" => Err(HookError::abort("no")),
                "snoozes" => Err(HookError::snooze(SOON, "no")),
                "panics before" => panic!("oh no"),
                _ => Ok(()),
            }
        }

        fn around_work(&self, _: &JobView<'_>, run: &mut dyn FnMut()) {
            match self.0 {
                "keeps" => {}
                "twice" => {
                    run();
                    run();
                }
                "panics after" => {
                    run();
                    panic!("oh no");
                }
                _ => run(),
            }
        }

        fn on_failure(
            &self,
            _: &JobView<'_>,
            _: &Failure,
            decision: &mut Decision,
        ) -> std::result::Result<(), HookError> {
            *decision = Decision::Discard;
            if self.0 == "fails to decide" { Err(HookError::new("no")) } else { Ok(()) }
        }

        fn post_work(&self, _: &JobView<'_>, _: &Outcome) {
            self.1.fetch_add(1, Ordering::Relaxed);
            assert_ne!(self.0, "panics at the end", "on purpose");
        }
    }

    fn meddle(name: &'static str, what: &str) -> (Verdict, Outcome, u32) {
        let (mut hooks, seen) = (HookSet::default(), Arc::default());
        let hook = Arc::new(Meddler(name, Arc::clone(&seen)));
        hooks.insert(hook, SourceLocation::new("here", 1)).expect("is new");
        let (settlement, outcome) = run(&hooks, claimed(what));
        (settlement.verdict, outcome, seen.load(Ordering::Relaxed))
    }

    #[test]
    fn a_hook_before_the_work_may_keep_it_from_running() {
        let (verdict, outcome, seen) = meddle("refuses", "reply");
        // The same hook then decides that it is not retried.
        assert_eq!((verdict, seen), (Verdict::Discard, 1));
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Hook));
        let (verdict, outcome, _) = meddle("aborts", "reply");
        assert_eq!(verdict, Verdict::Discard);
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Abort));
        assert_eq!(meddle("snoozes", "reply").0, Verdict::Snooze(SOON));
        let (_, outcome, _) = meddle("panics before", "reply");
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Hook));
        let (_, outcome, _) = meddle("keeps", "reply");
        assert!(outcome.failure().is_some_and(|failure| failure.kind() == FailureKind::Hook));
    }

    #[test]
    fn a_hook_around_or_after_the_work_takes_nothing_from_its_result() {
        for name in ["twice", "panics after", "panics at the end"] {
            let (verdict, outcome, seen) = meddle(name, "reply");
            assert_eq!((verdict, seen), (Verdict::Complete, 1), "{name}");
            assert!(matches!(outcome, Outcome::Completed), "{name}");
        }
    }

    #[test]
    fn a_hook_that_fails_to_decide_has_not_decided() {
        assert_eq!(meddle("decides", "fail").0, Verdict::Discard);
        assert_eq!(meddle("fails to decide", "fail").0, Verdict::Retry(SOON));
    }
}
