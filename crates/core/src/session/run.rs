//! One run of one job: hooks, decode, ability, and what follows from how it ended.

use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{
    Decision, Failure, FailureKind, Hook, HookError, HookSet, JobView, Outcome, Veto,
};

use crate::ability::AbilityEntry;
use crate::backoff::LONGEST_DELAY;
use crate::driver::{
    ClaimedJob, Driver, ExceptionRecord, Extras, JobRecord, ReplyRecord, Settled, Settlement,
    StatusRecord, Verdict, WorkerId,
};
use crate::job::{Host, Job, Tenure};
use crate::job_error::{Unfinished, Wish};
use crate::observe::Event;
use crate::program::Program;
use crate::tools::causes::with_causes;
use crate::tools::guard::{guard, say};
use crate::tools::random::new_id;
use crate::tools::sync::Mutex;
use crate::tools::time::{Instant, SystemTime};

/// What a run needs to know of where it runs.
pub(crate) struct Context<'a> {
    pub(crate) program: &'a Program,
    pub(crate) host: &'a Arc<dyn Host>,
    pub(crate) database: &'a Arc<str>,
    pub(crate) driver: &'a Arc<dyn Driver>,
    pub(crate) worker: WorkerId,
}

/// What a run that completed leaves.
struct Done {
    reply: Option<ReplyRecord>,
    replacements: Vec<JobRecord>,
}

/// How the ability's part ended.
type End = Result<Done, Unfinished>;

/// The longest message kept, in bytes.
const LONGEST_MESSAGE: usize = 20_000;

/// A message that every engine can store: without NUL, which PostgreSQL refuses, and not endless.
fn storable(message: &str) -> String {
    let mut text = message.replace('\0', "\u{fffd}");
    if text.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Runs a claimed job to its settlement; `None` when the ability settled it in its own transaction.
pub(crate) fn run_job(
    context: &Context<'_>,
    tenure: Arc<dyn Tenure>,
    claimed: Box<ClaimedJob>,
) -> (Option<Settlement>, Outcome) {
    let Some(entry) = context.program.abilities.get(&claimed.ability) else {
        // The claim asks for our abilities only; one that appears all the same is left to others.
        let settlement = Settlement { job: claimed, verdict: Verdict::GiveBack, extras: None };
        return (Some(settlement), Outcome::Snoozed(Duration::ZERO));
    };
    let (begun, started) = (Instant::now(), SystemTime::now());
    let mut job = Job {
        claimed,
        database: Arc::clone(context.database),
        driver: Arc::clone(context.driver),
        worker: context.worker,
        host: Arc::clone(context.host),
        max_retries: entry.options.max_retries,
        reply_codec: entry.options.codec.clone(),
        tenure,
        lease: entry.options.grab_for.unwrap_or(context.program.options.grab_for),
        begun,
        begun_awake: crate::tools::awake::now(),
        keeps_status: entry.options.set_job_status,
        deadline: entry.options.time_limit.and_then(|limit| begun.checked_add(limit)),
        written: Mutex::default(),
    };
    let hooks = context.program.hooks();
    context.program.tell(|| Event::Started {
        worker: job.worker,
        database: &job.database,
        job: &job.claimed,
    });
    let end = if job.claimed.crashes.unsigned_abs() > entry.options.max_crashes {
        let message = format!(
            "the job outlived its worker or its lease {} times, more than max_crashes allows",
            job.claimed.crashes
        );
        Err(Unfinished::aborted(FailureKind::Crash, message))
    } else {
        perform(&job, entry, &hooks)
    };
    let end = if job.written().completed { Ok(committed(&job, end)) } else { end };
    let (outcome, verdict, mut extras) = conclude(&job, entry, &hooks, end);
    if !hooks.is_empty() {
        say(|| after(&job, entry, &hooks, &outcome));
    }
    if entry.options.set_job_status {
        extras.get_or_insert_default().status = Some(StatusRecord {
            status: outcome.as_str(),
            took: begun.elapsed(),
            message: outcome.failure().map(|failure| storable(failure.message())),
        });
    }
    let settled = job.written().completed;
    // The run ended, whatever becomes of the words about it.
    say(|| log_outcome(&job, &outcome));
    say(|| tell_end(context.program, &job, &outcome, settled));
    if settled && let Some(extras) = &extras {
        context.program.tell_replacements(&extras.replacements, &[], &job.database, started);
    }
    if verdict == Verdict::Complete && extras.is_none() {
        // Thousands of settlements may gather, and none of these needs its argument any more. One that
        // brings a reply may be refused, and its argument is then kept in the exception log.
        job.claimed.arg = Vec::new();
    }
    ((!settled).then_some(Settlement { job: job.claimed, verdict, extras }), outcome)
}

fn tell_end(program: &Program, job: &Job, outcome: &Outcome, settled: bool) {
    let (worker, database) = (job.worker, &*job.database);
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
fn committed(job: &Job, end: End) -> Done {
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
    let mut written = job.written();
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
    let reply = match (entry.run)(job, &entry.options, job.host.codecs()) {
        Ok(reply) => reply,
        Err(Unfinished { failure, wish: Wish::Fail })
            if failure.kind() == FailureKind::Error && job.is_overdue() =>
        {
            return Err(Unfinished::failed(FailureKind::Timeout, failure.message()));
        }
        Err(unfinished) => return Err(unfinished),
    };
    let replacements = job.take_replacements().map_err(|error| {
        let message = format!("a replacement cannot be enqueued: {}", with_causes(&error));
        Unfinished::failed(FailureKind::Error, message)
    })?;
    Ok(Done { reply, replacements })
}

type Conclusion = (Outcome, Verdict, Option<Box<Extras>>);

/// What follows from how the run ended, `on_failure` hooks included.
fn conclude(job: &Job, entry: &AbilityEntry, hooks: &HookSet, end: End) -> Conclusion {
    match end {
        Err(Unfinished { wish: Wish::Snooze(delay), .. }) => {
            let delay = delay.min(LONGEST_DELAY);
            (Outcome::Snoozed(delay), Verdict::Snooze(delay), None)
        }
        Ok(Done { reply, replacements }) => {
            let mut written = job.written.lock();
            let mut replies = std::mem::take(&mut written.replies);
            replies.extend(reply);
            let outcome = match replacements.len() {
                0 => Outcome::Completed,
                count => Outcome::Replaced(count),
            };
            let extras = (!replies.is_empty() || !replacements.is_empty())
                .then(|| Box::new(Extras { replies, replacements, ..Extras::default() }));
            (outcome, Verdict::Complete, extras)
        }
        Err(Unfinished { failure, wish }) => {
            let decision = decide(job, entry, hooks, &failure, wish);
            let exception = ExceptionRecord {
                id: new_id(),
                kind: failure.kind(),
                message: storable(failure.message()),
            };
            let extras = Some(Box::new(Extras { exception: Some(exception), ..Extras::default() }));
            match decision {
                Decision::Retry(delay) => {
                    let delay = delay.min(LONGEST_DELAY);
                    (Outcome::Retried(failure, delay), Verdict::Retry(delay), extras)
                }
                _ => (Outcome::Discarded(failure), Verdict::Discard, extras),
            }
        }
    }
}

/// The ability's rule first; hooks may change it. An abort is final.
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
    let mut decision = if runs > entry.options.max_retries {
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
        Outcome::Discarded(failure) => log::error!(
            "job {id} ({ability}) attempt {attempt} failed for good: {}",
            failure.message()
        ),
        other => log::trace!("job {id} ({ability}) attempt {attempt} {}", other.as_str()),
    }
}
