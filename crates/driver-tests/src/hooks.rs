use std::time::Duration;

use qudo::hook::{Decision, Failure, FailureKind, Hook, HookError, JobDraft, JobView};
use qudo::{Error, Outcome};
use serde_json::json;

use crate::abilities::{double, echo, stumble};
use crate::{Bed, DEADLINE, Log, run_all, eventually};
use crate::work::exceptions;

/// A hook made of closures, one per point.
#[derive(Default)]
struct Points {
    name: &'static str,
    order: i32,
    #[expect(clippy::type_complexity, reason = "it says what the trait says")]
    pre_enqueue: Option<Box<dyn Fn(&mut JobDraft<'_>) -> Result<(), HookError> + Send + Sync>>,
    #[expect(clippy::type_complexity, reason = "it says what the trait says")]
    pre_work: Option<fn(&JobView<'_>) -> Result<(), HookError>>,
    on_failure: Option<fn(&Failure, &mut Decision)>,
    log: Log,
}

impl Points {
    fn note(&self, point: &str, job: &JobView<'_>, more: &str) {
        self.log.add(format!("{} {point} {}{more}", self.name, job.ability()));
    }
}

impl Hook for Points {
    fn name(&self) -> &str {
        self.name
    }
    fn order(&self) -> i32 {
        self.order
    }
    fn applies_to(&self, ability: &str) -> bool {
        ability != "double"
    }
    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        self.pre_enqueue.as_ref().map_or(Ok(()), |act| act(job))
    }
    fn post_enqueue(&self, job: &JobView<'_>) {
        self.note("post_enqueue", job, "");
    }
    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        self.note("pre_work", job, "");
        self.pre_work.map_or(Ok(()), |act| act(job))
    }
    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        self.note("before", job, "");
        next();
        self.note("after", job, "");
    }
    fn on_failure(
        &self,
        job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        self.note("on_failure", job, &format!(" {}", failure.kind()));
        if let Some(act) = self.on_failure {
            act(failure, decision);
        }
        Ok(())
    }
    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        self.note("post_work", job, &format!(" {}", outcome.as_str()));
    }
}

pub fn pre_enqueue_may_change_the_draft(bed: &Bed) {
    let change = |job: &mut JobDraft<'_>| {
        let old = job.arg_json().map_err(|error| HookError::new("no json").with_source(error))?;
        job.set_arg_json(json!(format!("{} changed", old.as_str().unwrap_or_default())));
        job.set_priority(9);
        job.set_uniqkey(Some("from the hook".to_owned()));
        Ok(())
    };
    let hook = Points { name: "h", pre_enqueue: Some(Box::new(change)), ..Points::default() };
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().hook(hook));
    let job = manager.enqueue(echo::job("arg".to_owned())).expect("stored").id().expect("id");
    let found = manager.lookup(job).expect("answers").expect("lives").1;
    assert_eq!((found.facts.priority, found.facts.uniqkey.as_deref()), (9, Some("from the hook")));
    run_all(&manager);
    assert_eq!(log.lines(), ["arg changed"]);
}

pub fn pre_enqueue_may_veto(bed: &Bed) {
    let veto = |job: &mut JobDraft<'_>| match job.arg_json() {
        Ok(value) if value == json!("bad") => Err(HookError::new("bad arguments are not allowed")),
        Ok(value) if value == json!("quiet") => {
            job.suppress();
            Ok(())
        }
        _ => Ok(()),
    };
    let hook = Points { name: "judge", pre_enqueue: Some(Box::new(veto)), ..Points::default() };
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().hook(hook));
    let error = manager.enqueue(echo::job("bad".to_owned())).expect_err("refused");
    assert!(matches!(&error, Error::Refused { hook, .. } if hook == "judge"), "{error}");
    assert!(manager.enqueue(echo::job("quiet".to_owned())).expect("no error").id().is_none());
    assert!(manager.enqueue(echo::job("good".to_owned())).expect("stored").is_new());
    run_all(&manager);
    assert_eq!(log.lines(), ["good"]);
}

pub fn post_enqueue_sees_the_stored_job(bed: &Bed) {
    let log = Log::default();
    let hook = Points { name: "h", log: log.clone(), ..Points::default() };
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().ability::<double>().hook(hook));
    assert!(manager.enqueue(echo::job("x".to_owned()).uniqkey("k")).expect("stored").is_new());
    assert!(!manager.enqueue(echo::job("x".to_owned()).uniqkey("k")).expect("held").is_new());
    // The hook does not apply to this one.
    assert!(manager.enqueue(double::job(1)).expect("stored").is_new());
    assert_eq!(log.lines(), ["h post_enqueue echo"]);
}

pub fn pre_work_may_abort_and_snooze(bed: &Bed) {
    let judge: fn(&JobView<'_>) -> Result<(), HookError> = |job| match job.arg() {
        b"\"abort\"" => Err(HookError::abort("not this one")),
        b"\"snooze\"" => Err(HookError::snooze(Duration::from_secs(3600), "not now")),
        b"\"fail\"" => Err(HookError::new("no luck")),
        _ => Ok(()),
    };
    let hook = Points { name: "h", pre_work: Some(judge), ..Points::default() };
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().hook(hook));
    let sent: Vec<_> = ["abort", "snooze", "fail", "run"]
        .map(|arg| manager.enqueue(echo::job(arg.to_owned()).database(bed.first())))
        .into_iter()
        .map(|answer| answer.expect("stored").id().expect("id"))
        .collect();
    assert_eq!(run_all(&manager), 4);
    assert_eq!(log.lines(), ["run"]);
    let mut kinds: Vec<_> = exceptions(&manager).iter().map(|row| (row.job, row.kind)).collect();
    kinds.sort_by_key(|(job, _)| *job);
    assert_eq!(kinds, [(sent[0], FailureKind::Abort), (sent[2], FailureKind::Hook)]);
    let snoozed = manager.lookup(sent[1]).expect("answers").expect("lives").1;
    assert_eq!(snoozed.attempt, 0, "no attempt spent");
}

pub fn around_work_surrounds_the_ability(bed: &Bed) {
    struct Outer(Log);
    impl Hook for Outer {
        fn name(&self) -> &'static str {
            "outer"
        }
        fn around_work(&self, _: &JobView<'_>, next: &mut dyn FnMut()) {
            self.0.add("outer in");
            next();
            self.0.add("outer out");
        }
    }
    struct Inner(Log, bool);
    impl Hook for Inner {
        fn name(&self) -> &'static str {
            "inner"
        }
        fn order(&self) -> i32 {
            1
        }
        fn around_work(&self, _: &JobView<'_>, next: &mut dyn FnMut()) {
            self.0.add("inner");
            if self.1 {
                next();
            }
        }
    }
    let build = |lets_run| {
        let (manager, log) = bed.with(ManagerWith::echo);
        manager.register_hook(Inner(log.clone(), lets_run)).expect("new name");
        manager.register_hook(Outer(log.clone())).expect("new name");
        (manager, log)
    };
    let (manager, log) = build(true);
    assert!(manager.enqueue(echo::job("work".to_owned())).expect("stored").is_new());
    run_all(&manager);
    assert_eq!(log.lines(), ["outer in", "inner", "work", "outer out"]);
    // A hook that does not let the job run fails it.
    let (manager, _) = build(false);
    assert!(manager.enqueue(echo::job("work".to_owned())).expect("stored").is_new());
    run_all(&manager);
    assert_eq!(exceptions(&manager)[0].kind, FailureKind::Hook);
}

struct ManagerWith;

impl ManagerWith {
    fn echo(builder: qudo::ManagerBuilder) -> qudo::ManagerBuilder {
        builder.ability::<echo>()
    }
}

pub fn on_failure_may_change_the_decision(bed: &Bed) {
    let never: fn(&Failure, &mut Decision) = |_, decision| *decision = Decision::Discard;
    let hook = Points { name: "h", on_failure: Some(never), ..Points::default() };
    let (manager, log) = bed.with(|builder| builder.ability::<stumble>().hook(hook));
    assert!(manager.enqueue(stumble::job(9)).expect("stored").is_new());
    run_all(&manager);
    assert_eq!(log.lines(), ["attempt 1"], "the rule would have tried three times");
    assert!(manager.unregister_hook("h"));
    let more: fn(&Failure, &mut Decision) = |failure, decision| {
        if !failure.message().contains("attempt 5") {
            *decision = Decision::Retry(Duration::ZERO);
        }
    };
    manager
        .register_hook(Points { name: "h", on_failure: Some(more), ..Points::default() })
        .expect("free again");
    assert!(manager.enqueue(stumble::job(9)).expect("stored").is_new());
    assert_eq!(run_all(&manager), 5);
}

pub fn post_work_sees_every_outcome(bed: &Bed) {
    let log = Log::default();
    let hook = Points { name: "h", log: log.clone(), ..Points::default() };
    let (manager, _) = bed.with(|builder| builder.ability::<stumble>().hook(hook));
    assert!(manager.enqueue(stumble::job(1)).expect("stored").is_new());
    run_all(&manager);
    let run = |end: &[&str]| {
        let mut lines = vec!["h pre_work stumble", "h before stumble", "h after stumble"];
        lines.extend(end);
        lines.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut expected = vec!["h post_enqueue stumble".to_owned()];
    expected.extend(run(&["h on_failure stumble error", "h post_work stumble retried"]));
    expected.extend(run(&["h post_work stumble completed"]));
    assert_eq!(log.lines(), expected);
}

pub fn a_hook_that_panics_has_one_effect_and_stops_nothing(bed: &Bed) {
    struct Bomb(&'static str);
    impl Bomb {
        fn at(&self, point: &str) {
            assert!(point != self.0, "bomb at {point}");
        }
    }
    impl Hook for Bomb {
        fn name(&self) -> &'static str {
            "bomb"
        }
        fn pre_enqueue(&self, _: &mut JobDraft<'_>) -> Result<(), HookError> {
            self.at("pre_enqueue");
            Ok(())
        }
        fn post_enqueue(&self, _: &JobView<'_>) {
            self.at("post_enqueue");
        }
        fn pre_work(&self, _: &JobView<'_>) -> Result<(), HookError> {
            self.at("pre_work");
            Ok(())
        }
        fn around_work(&self, _: &JobView<'_>, next: &mut dyn FnMut()) {
            next();
            self.at("around_work");
        }
        fn post_work(&self, _: &JobView<'_>, _: &Outcome) {
            self.at("post_work");
        }
    }
    for (point, stored, worked, failures) in [
        ("pre_enqueue", false, 0, 0),
        ("post_enqueue", true, 1, 0),
        ("pre_work", true, 0, 1),
        ("around_work", true, 1, 0),
        ("post_work", true, 1, 0),
    ] {
        let bed_log = bed.with(|builder| builder.ability::<echo>().hook(Bomb(point)));
        let (manager, log) = bed_log;
        let before = exceptions(&manager).len();
        let answer = manager.enqueue(echo::job("x".to_owned()));
        assert_eq!(answer.is_ok(), stored, "{point}");
        run_all(&manager);
        assert_eq!(log.lines().len(), worked, "{point}");
        assert_eq!(exceptions(&manager).len() - before, failures, "{point}");
    }
}

pub fn hooks_run_in_order_and_can_be_unregistered(bed: &Bed) {
    let log = Log::default();
    let hook = |name, order| Points { name, order, log: log.clone(), ..Points::default() };
    let (manager, _) =
        bed.with(|builder| builder.ability::<echo>().hook(hook("z", 0)).hook(hook("b", 0)));
    manager.register_hook(hook("m", -1)).expect("new name");
    let taken = manager.register_hook(hook("m", 5)).expect_err("taken");
    assert!(taken.to_string().contains("hooks.rs"), "both places: {taken}");
    assert!(manager.enqueue(echo::job("x".to_owned())).expect("stored").is_new());
    assert_eq!(log.lines(), ["m post_enqueue echo", "b post_enqueue echo", "z post_enqueue echo"]);
    for name in ["m", "b", "z"] {
        assert!(manager.unregister_hook(name));
    }
    assert!(!manager.unregister_hook("z"));
    run_all(&manager);
    assert_eq!(log.lines().len(), 3, "no hook saw the work");
}

#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("an error that cannot be told")
    }
}

impl std::error::Error for Unspeakable {}

#[qudo::ability(max_retries = 0)]
fn unspeakable(_text: String) -> std::result::Result<(), Unspeakable> {
    Err(Unspeakable)
}

/// Panics where hooks and errors are only looked at.
struct Sly(&'static str);

impl Hook for Sly {
    fn name(&self) -> &'static str {
        "sly"
    }
    fn applies_to(&self, ability: &str) -> bool {
        assert!(self.0 != "applies_to" || ability != "stumble", "sly applies_to");
        true
    }
    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        if self.0 == "pre_work" && job.ability() == "stumble" {
            return Err(HookError::new("no").with_source(Unspeakable));
        }
        Ok(())
    }
}

pub fn a_panic_where_an_error_is_told_or_a_hook_is_chosen_fails_the_attempt_alone(bed: &Bed) {
    for sly in ["nothing", "applies_to", "pre_work"] {
        let (manager, log) = bed.with(|builder| {
            let builder = builder.ability::<echo>().ability::<stumble>().ability::<unspeakable>();
            builder.hook(Sly(sly)).workers(1)
        });
        // Enqueued by another, whose hooks do not panic.
        let (client, _) = bed.with(|builder| builder.ability::<echo>());
        let discarded = || exceptions(&client).iter().filter(|one| one.discarded).count();
        let before = discarded();
        assert!(client.enqueue(stumble::job(9)).expect("stored").is_new());
        assert!(client.enqueue(unspeakable::job("x".to_owned())).expect("stored").is_new());
        let working = manager.start().expect("starts");
        eventually("both failed", || discarded() == before + 2);
        let echoed = client.enqueue(echo::job("alive".to_owned())).expect("stored");
        echoed.wait_as::<String>(DEADLINE).expect("the one thread lives");
        working.stop();
        assert_eq!(log.lines().last().map(String::as_str), Some("alive"));
        let told: Vec<_> =
            exceptions(&client).into_iter().map(|one| (one.facts.ability, one.kind)).collect();
        assert!(sly == "nothing" || told.contains(&("stumble".into(), FailureKind::Panic)));
        assert!(told.contains(&("unspeakable".into(), FailureKind::Panic)), "{told:?}");
    }
}
