//! From what a caller wants to what is stored: hooks, checks, encoding.

use std::borrow::Cow;

use qudo_hooks::{Arg, Due, Hook, HookError, HookSet, JSON, JobDraft};

use crate::ability::{split_version, versioned};
use crate::backoff::LONGEST_DELAY;
use crate::driver::JobRecord;
use crate::error::Error;
use crate::names::{check_name, check_uniqkey};
use crate::new_job::NewJob;
use crate::program::Program;
use crate::tools::guard::guard;

/// Hooks and encoding for a job that is stored by other means than an enqueue; `None` when suppressed.
pub(crate) fn prepare(program: &Program, mut job: NewJob) -> Result<Option<JobRecord>, Error> {
    if !pass_hooks(program, &mut job, &program.hooks())? {
        return Ok(None);
    }
    encode(program, job).map(Some)
}

/// Runs the `pre_enqueue` hooks; `false` when the job is suppressed.
pub(super) fn pass_hooks(
    program: &Program,
    job: &mut NewJob,
    hooks: &HookSet,
) -> Result<bool, Error> {
    if hooks.is_empty() {
        return Ok(!job.fields.is_suppressed());
    }
    let refused = |hook: &str, source, job: &NewJob| Error::Refused {
        hook: hook.to_owned(),
        ability: job.ability.to_string(),
        source,
    };
    let ours = hooks_of(program, &job.ability, hooks).map_err(|(hook, panic)| {
        refused(&hook, HookError::new(format!("applies_to {panic}")), job)
    })?;
    for hook in ours {
        let mut draft = JobDraft::new(&job.ability, &mut job.fields);
        let passed = guard(|| hook.pre_enqueue(&mut draft))
            .unwrap_or_else(|panic| Err(HookError::new(panic)));
        passed.map_err(|source| refused(hook.name(), source, job))?;
    }
    Ok(!job.fields.is_suppressed())
}

/// The hooks for jobs of an ability, which may be named by an alias; or which of them panicked when
/// it was asked, and how.
pub(super) fn hooks_of<'h>(
    program: &Program,
    ability: &str,
    hooks: &'h HookSet,
) -> Result<Vec<&'h dyn Hook>, (String, String)> {
    let ability = program.abilities.get(ability).map_or(ability, |entry| &entry.name);
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

pub(super) fn encode(program: &Program, mut job: NewJob) -> Result<JobRecord, Error> {
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
    program.warn_once_of_unknown(&job.ability);
    let arg = encode_arg(program, &mut job)?;
    if arg.len() > program.options.max_arg_size {
        return Err(Error::ArgTooLarge {
            ability: job.ability.to_string(),
            size: arg.len(),
            limit: program.options.max_arg_size,
        });
    }
    let due = match job.fields.due() {
        Due::In(delay) if delay > LONGEST_DELAY => {
            return Err(Error::InvalidOption {
                option: "delay",
                reason: "a job cannot be delayed for more than a year".to_owned(),
            });
        }
        Due::In(delay) if delay.is_zero() => Due::Now,
        due => due,
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

fn encode_arg(program: &Program, job: &mut NewJob) -> Result<Vec<u8>, Error> {
    let arg = job.fields.take_arg();
    let (codec, _) = split_version(job.fields.codec());
    let codec = program.codecs.get(codec);
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
