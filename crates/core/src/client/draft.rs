//! From what a caller wants to what is stored: hooks, checks, encoding.

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, Utc};

use qudo_hooks::{
    Arg, Due, Hook, HookError, HookSet, JSON, JobDraft, JobView, encode as encode_with,
};

use crate::ability::{split_version, versioned};
use crate::backoff::MAX_DELAY;
use crate::driver::{JobFacts, JobRecord};
use crate::error::Error;
use crate::metadata;
use crate::names::{check_name, check_uniqkey};
use crate::new_job::{NewJob, Open};
use crate::program::Program;
use crate::tools::guard::guard;
use crate::tools::time::SystemTime;

/// Hooks and encoding for a job that is stored by other means than an enqueue; `None` when suppressed.
pub(crate) fn prepare(program: &Program, mut job: NewJob) -> Result<Option<JobRecord>, Error> {
    if !pass_hooks(program, &mut job, &program.hooks())? {
        return Ok(None);
    }
    encode(program, job).map(Some)
}

/// What the caller left open is as the ability says, if it is linked.
fn fill_in(program: &Program, job: &mut NewJob) {
    let open = std::mem::take(&mut job.open);
    if open == Open::default() {
        return;
    }
    let Some(entry) = program.abilities.get(&job.ability) else { return };
    if open.queue {
        job.fields.set_queue(entry.options.queue.clone());
    }
    if open.priority {
        job.fields.set_priority(entry.options.priority);
    }
    if open.codec {
        job.fields.set_codec(entry.options.codec.clone());
    }
}

/// Runs the `pre_enqueue` hooks; `false` when the job is suppressed.
pub(super) fn pass_hooks(
    program: &Program,
    job: &mut NewJob,
    hooks: &HookSet,
) -> Result<bool, Error> {
    fill_in(program, job);
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
        let draft = JobDraft::new(&job.ability, &mut job.fields);
        let mut draft = draft.with_plugins(&program.plugins);
        let passed = guard(|| hook.pre_enqueue(&mut draft))
            .unwrap_or_else(|panic| Err(HookError::new(panic)));
        passed.map_err(|source| refused(hook.name(), source, job))?;
    }
    Ok(!job.fields.is_suppressed())
}

/// The hooks for jobs of an ability, which may be named by an alias; or which of them panicked when
/// it was asked, and how.
pub(crate) fn hooks_of<'h>(
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

/// Runs the `post_enqueue` hooks of a job whose insert is committed.
pub(crate) fn call_post_enqueue(
    program: &Program,
    hooks: &HookSet,
    record: &JobRecord,
    database: &str,
) {
    tell_stored(program, hooks, record, database, |hook, job| hook.post_enqueue(job));
}

/// Runs the `post_enqueue_in` hooks of a job in a transaction whose commit is yet to come.
pub(crate) fn call_post_enqueue_in(program: &Program, record: &JobRecord, database: &str) {
    let hooks = program.hooks();
    tell_stored(program, &hooks, record, database, |hook, job| hook.post_enqueue_in(job));
}

fn tell_stored(
    program: &Program,
    hooks: &HookSet,
    record: &JobRecord,
    database: &str,
    tell: fn(&dyn Hook, &JobView<'_>),
) {
    if hooks.is_empty() {
        return;
    }
    let (id, facts) = (record.id, &record.facts);
    let view = JobView::new(id, &facts.ability, &facts.queue)
        .with_database(database)
        .with_uniqkey(facts.uniqkey.as_deref())
        .with_priority(facts.priority)
        .with_meta(facts.meta.as_deref())
        .with_arg(&facts.codec, &facts.arg)
        .with_plugins(&program.plugins);
    let ours = hooks_of(program, &facts.ability, hooks).unwrap_or_else(|(hook, panic)| {
        log::error!("the hook {hook:?}, applies_to, after job {id} was stored: {panic}");
        Vec::new()
    });
    for hook in ours {
        if let Err(panic) = guard(|| tell(hook, &view)) {
            let hook = hook.name();
            log::error!("the hook {hook:?} panicked after job {id} was stored: {panic}");
        }
    }
}

/// The `post_cancel` hooks of a job that ended so.
pub(crate) fn call_post_cancel(
    program: &Program,
    hooks: &HookSet,
    view: &JobView<'_>,
    reason: &str,
) {
    let id = view.id();
    let ours = hooks_of(program, view.ability(), hooks).unwrap_or_else(|(hook, panic)| {
        log::error!("the hook {hook:?}, applies_to, after job {id} was cancelled: {panic}");
        Vec::new()
    });
    for hook in ours {
        if let Err(panic) = guard(|| hook.post_cancel(view, reason)) {
            log::error!("the hook {:?} after job {id} was cancelled: {panic}", hook.name());
        }
    }
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
        Due::In(delay) if delay > MAX_DELAY => {
            return Err(Error::InvalidOption {
                option: "delay",
                reason: "a job cannot be delayed for more than a year".to_owned(),
            });
        }
        Due::At(at) if at > latest() => {
            return Err(Error::InvalidOption {
                option: "run_after",
                reason: "a job cannot be put off for more than a year".to_owned(),
            });
        }
        Due::In(delay) if delay.is_zero() => Due::Now,
        due => due,
    };
    let facts = JobFacts {
        meta: metadata::encode(job.fields.meta())?,
        uniqkey: job.fields.take_uniqkey(),
        // The stored rank is minus the priority, which the lowest number does not have.
        priority: job.fields.priority().max(-i32::MAX),
        ..JobFacts::new(job.ability, job.fields.take_queue(), codec, arg)
    };
    Ok(JobRecord { id: job.id, facts, due })
}

/// The last moment at which a job may become due, by this machine's clock. A day more than a delay may have, because
/// the database's clock counts.
fn latest() -> DateTime<Utc> {
    DateTime::<Utc>::from(SystemTime::now() + MAX_DELAY + Duration::from_secs(24 * 3_600))
}

fn encode_arg(program: &Program, job: &mut NewJob) -> Result<Vec<u8>, Error> {
    let arg = job.fields.take_arg();
    let (codec, _) = split_version(job.fields.codec());
    let codec = program.codecs.get(codec);
    let encoded = match arg {
        // Bytes come from the client as they are; a worker that cannot read them says so.
        Arg::Encoded(bytes) => Ok(bytes),
        Arg::Typed(value) => codec.and_then(|codec| encode_with(codec, &value)),
        Arg::Json(value) => codec.and_then(|codec| encode_with(codec, &value)),
    };
    encoded.map_err(|source| Error::Codec {
        what: format!("the argument of a job for {:?} cannot be stored", job.ability),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use qudo_hooks::SourceLocation;

    use super::*;
    use crate::ability::AbilitySet;
    use crate::fixture::{program, program_with};
    use crate::options::Options;

    fn job() -> NewJob {
        NewJob::named("mail", 1.into())
    }

    fn refusal(job: NewJob) -> String {
        match prepare(&program(), job) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it was accepted"),
        }
    }

    #[test]
    fn a_job_is_encoded_with_what_was_asked_for() {
        let asked = job().queue("post").priority(7).uniqkey("k").delay(Duration::from_secs(9));
        let id = asked.id();
        let record = prepare(&program(), asked).expect("valid").expect("not suppressed");
        assert_eq!((record.id, &*record.facts.queue, &*record.facts.codec), (id, "post", JSON));
        assert_eq!((record.facts.priority, record.facts.uniqkey.as_deref()), (7, Some("k")));
        assert_eq!((record.due, &*record.facts.arg), (Due::In(Duration::from_secs(9)), &b"1"[..]));
        let at_once = prepare(&program(), job().delay(Duration::ZERO)).expect("valid");
        assert_eq!(at_once.expect("not suppressed").due, Due::Now);
        let lowest = prepare(&program(), job().priority(i32::MIN)).expect("valid");
        assert_eq!(
            lowest.expect("not suppressed").facts.priority,
            -i32::MAX,
            "its rank has to fit"
        );
    }

    #[test]
    fn what_cannot_be_stored_is_refused_by_name() {
        assert!(refusal(NewJob::named("", 1.into())).contains("ability"));
        assert!(refusal(job().queue(" post")).contains("queue"));
        assert!(refusal(job().uniqkey("")).contains("unique key"));
        let unknown = prepare(&program(), job().codec("nobody's")).map(|_| ());
        assert!(matches!(unknown, Err(Error::Codec { .. })));
        assert!(refusal(job().delay(Duration::from_secs(400 * 86_400))).contains("a year"));
        let late = Utc::now() + Duration::from_secs(400 * 86_400);
        assert!(refusal(job().run_after(late)).contains("a year"));
        let options = Options { max_arg_size: 10, ..Options::default() };
        let small = program_with(AbilitySet::default(), HookSet::default(), options);
        let large = NewJob::named("mail", "x".repeat(11).into());
        let refused = prepare(&small, large).map(|_| ()).expect_err("it is too large");
        assert!(matches!(refused, Error::ArgTooLarge { size: 13, limit: 10, .. }), "{refused}");
    }

    struct Gate(fn(&mut JobDraft<'_>) -> Result<(), HookError>);

    impl Hook for Gate {
        fn name(&self) -> &'static str {
            "gate"
        }

        fn applies_to(&self, ability: &str) -> bool {
            assert_ne!(ability, "explosive", "on purpose");
            ability == "mail"
        }

        fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
            self.0(job)
        }
    }

    fn behind(
        gate: fn(&mut JobDraft<'_>) -> Result<(), HookError>,
        job: NewJob,
    ) -> Result<Option<JobRecord>, Error> {
        let mut hooks = HookSet::default();
        hooks.insert(Arc::new(Gate(gate)), SourceLocation::new("here", 1)).expect("is new");
        prepare(&program_with(AbilitySet::default(), hooks, Options::default()), job)
    }

    #[test]
    fn a_hook_may_change_suppress_or_refuse_a_job_of_its_ability() {
        let changed = behind(
            |job| {
                job.set_queue("elsewhere");
                Ok(())
            },
            job(),
        );
        assert_eq!(&*changed.expect("valid").expect("stays").facts.queue, "elsewhere");
        let suppressed = behind(
            |job| {
                job.suppress();
                Ok(())
            },
            job(),
        );
        assert!(suppressed.expect("no error").is_none());
        let refuse: fn(&mut JobDraft<'_>) -> Result<(), HookError> =
            |_| Err(HookError::new("not today"));
        let refused = behind(refuse, job()).map(|_| ()).expect_err("refused");
        assert!(matches!(&refused, Error::Refused { hook, .. } if hook == "gate"), "{refused}");
        assert!(behind(refuse, NewJob::named("other", 1.into())).is_ok(), "not its ability");
    }

    #[test]
    fn a_hook_that_panics_refuses_the_job() {
        let panics = behind(|_| panic!("oh no"), job()).map(|_| ()).expect_err("refused");
        assert!(matches!(panics, Error::Refused { .. }));
        let asked = behind(|_| Ok(()), NewJob::named("explosive", 1.into()));
        let error = asked.map(|_| ()).expect_err("refused");
        let Error::Refused { source, .. } = error else { panic!("another error") };
        assert!(source.to_string().contains("applies_to"), "{source}");
    }

    struct Known;

    impl crate::ability::Ability for Known {
        type Arg = u32;
        type Reply = ();
        const NAME: &'static str = "mail";

        fn options() -> crate::ability_options::AbilityOptions {
            crate::ability_options::AbilityOptions::default().queue("post").priority(3)
        }

        fn work(_: &crate::job::Job, _: u32) -> crate::job_error::JobResult {
            Ok(())
        }
    }

    #[test]
    fn what_a_named_job_leaves_open_is_as_the_ability_says_if_it_is_known() {
        let mut abilities = AbilitySet::default();
        abilities.insert::<Known>(SourceLocation::new("here", 1)).expect("is new");
        let knows = program_with(abilities, HookSet::default(), Options::default());
        let place = |program: &Program, job: NewJob| {
            let facts = prepare(program, job).expect("valid").expect("not suppressed").facts;
            (facts.queue.to_string(), facts.priority)
        };
        assert_eq!(place(&knows, job()), ("post".to_owned(), 3));
        assert_eq!(place(&knows, job().queue("own").priority(-1)), ("own".to_owned(), -1));
        assert_eq!(place(&program(), job()), ("default".to_owned(), 0));
    }
}
