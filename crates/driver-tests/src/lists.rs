use std::collections::BTreeSet;
use std::time::Duration;

use qudo::admin::{Cursor, ExceptionFilter, JobFilter, Paging, StatusFilter};
use qudo::driver::{JobCursor, JobScan, JobState, Place};
use qudo::{JobId, Manager, NewJob};
use uuid::Uuid;

use crate::abilities::{echo, give_up, noted, other_echo, stumble};
use crate::contract::{HOUR, beating, claim};
use crate::{Bed, run_all};

/// What a filter finds, in any order; all databases answer, and all in one page.
fn found(manager: &Manager, text: &str) -> BTreeSet<JobId> {
    let filter: JobFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let listing = manager.jobs(&filter, &Paging::default());
    assert!(listing.errors().next().is_none() && listing.next.is_none(), "{text}");
    listing.rows().map(|(_, job)| job.id).collect()
}

/// The jobs of all pages, each through the text of its cursor.
fn paged(manager: &Manager, text: &str, limit: u32) -> Vec<JobId> {
    let filter: JobFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let (mut ids, mut paging) = (Vec::new(), Paging::default().limit(limit));
    loop {
        let listing = manager.jobs(&filter, &paging);
        assert!(listing.errors().next().is_none(), "{text}");
        ids.extend(listing.rows().map(|(_, job)| job.id));
        let Some(next) = listing.next else { return ids };
        paging = paging.after(next.to_string().parse::<Cursor>().expect("is one"));
    }
}

fn stored<R>(manager: &Manager, job: NewJob<R>) -> JobId {
    manager.enqueue(job).expect("stored").id().expect("is new")
}

pub fn jobs_are_found_by_what_they_are_and_where_they_stand(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let at = bed.first();
    let plain = stored(&manager, echo::job("a b".to_owned()).database(at).meta("tenant", 7).tag("eu"));
    let later = echo::job("late".to_owned()).database(at).priority(-5);
    let later = stored(&manager, later.delay(Duration::from_secs(3_600)));
    let keyed = stored(&manager, echo::job("keyed".to_owned()).uniqkey("k ey"));
    let arg = serde_json::json!({ "to": { "name": "Bob", "ids": [4, 5] } });
    let other = stored(&manager, NewJob::named("sms", arg).queue("gl.accounting").database(at));
    for (text, ids) in [
        ("", vec![plain, later, keyed, other]),
        ("ability:echo", vec![plain, later, keyed]),
        ("ability:sms,echo queue:gl.*", vec![other]),
        ("queue:gl.accounting,nothing", vec![other]),
        ("state:ready", vec![plain, keyed, other]),
        ("state:scheduled due>now", vec![later]),
        ("state:running OR state:moving", vec![]),
        ("priority<0", vec![later]),
        ("attempt=0 age<1d", vec![plain, later, keyed, other]),
        ("meta.tenant=7 tag:eu", vec![plain]),
        ("key:\"k ey\"", vec![keyed]),
        ("ability:echo key:\"k ey\"", vec![keyed]),
        ("ability:sms key:\"k ey\"", vec![]),
        ("NOT key:* ability:echo", vec![plain, later]),
        ("arg.to.name:Bob arg.to.ids=5", vec![other]),
        ("arg~LATE", vec![later]),
        ("codec:msgpack", vec![]),
    ] {
        assert_eq!(found(&manager, text), ids.into_iter().collect(), "{text}");
    }
    let two = format!("id:{plain},{other} ability:sms");
    assert_eq!(found(&manager, &two), BTreeSet::from([other]));
    for job in [plain, later, other] {
        assert!(found(&manager, &format!("db:{at}")).contains(&job));
    }
    assert_eq!(manager.jobs(&"db:nowhere".parse().expect("is one"), &Paging::default()).pages.len(), 0);
    let lean = manager.jobs(&JobFilter::job(other), &Paging::default().without_arguments());
    let (_, lean) = lean.rows().next().expect("lives");
    assert!(lean.facts.arg.is_empty() && lean.facts.codec == "json" && lean.facts.queue == "gl.accounting");
}

pub fn a_running_job_is_found_by_its_worker(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let id = stored(&manager, NewJob::named("a", 1.into()).database(bed.first()));
    let driver = bed.driver();
    let worker = beating(&*driver);
    assert_eq!(claim(&*driver, &worker, HOUR).len(), 1);
    for text in [
        "state:running".to_owned(),
        "worker:it".to_owned(),
        format!("worker:{}", worker.id),
        "NOT worker:somebody attempt=1".to_owned(),
    ] {
        assert_eq!(found(&manager, &text), BTreeSet::from([id]), "{text}");
    }
    assert_eq!(found(&manager, "worker:somebody"), BTreeSet::new());
    let rows = driver.scan_jobs(&JobScan { place: Place::Leased, queue: None, after: None, limit: 9 });
    let row = rows.expect("reads").remove(0);
    assert_eq!((row.at.clone(), row.attempt), (JobCursor::Leased(id), 1));
    assert!(matches!(row.state, JobState::Running { worker: by, .. } if by == worker.id));
    let behind = JobScan { place: Place::Leased, queue: None, after: Some(&row.at), limit: 9 };
    assert!(driver.scan_jobs(&behind).expect("reads").is_empty());
}

pub fn pages_lead_through_all_jobs_each_once(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let mut all = BTreeSet::new();
    for n in 0..24_i32 {
        let job = NewJob::named("x", n.into()).queue(format!("q{}", n % 3)).priority(n % 2);
        let job = if n % 4 == 0 { job.delay(Duration::from_secs(3_600)) } else { job };
        all.insert(stored(&manager, job));
    }
    for (text, wanted) in [("", 24), ("queue:q0,q1,q2", 24), ("queue:q1", 8), ("state:scheduled", 6), ("arg>=12", 12)] {
        for limit in [1, 2, 5, 7, 24] {
            let ids = paged(&manager, text, limit);
            assert_eq!(ids.len(), wanted, "{text}, {limit} a page");
            assert!(ids.iter().collect::<BTreeSet<_>>().len() == wanted && all.is_superset(&ids.into_iter().collect()));
        }
    }
}

pub fn a_narrow_table_is_read_in_the_order_of_its_key(bed: &Bed) {
    let driver = bed.driver();
    let (manager, _) = bed.manager::<echo>();
    let at = bed.first();
    let enqueue = |queue: &'static str, priority: i32, delay: u64| {
        let job = NewJob::named("x", 1.into()).database(at).queue(queue).priority(priority);
        stored(&manager, if delay == 0 { job } else { job.delay(Duration::from_secs(delay)) })
    };
    let low = enqueue("b", 1, 0);
    let late = enqueue("a", 5, 7_200);
    let high = enqueue("b", 2, 0);
    let soon = enqueue("b", 0, 3_600);
    let other = enqueue("a", 0, 0);
    let scan = |place, queue, after: Option<&JobCursor>, limit| {
        let rows = driver.scan_jobs(&JobScan { place, queue, after, limit }).expect("reads");
        rows.into_iter().map(|row| row.at).collect::<Vec<_>>()
    };
    let ids = |rows: &[JobCursor]| rows.iter().map(JobCursor::id).collect::<Vec<_>>();
    let ready = scan(Place::Ready, None, None, 9);
    assert_eq!(ids(&ready), [other, high, low]);
    assert_eq!(ids(&scan(Place::Ready, Some("b"), None, 9)), [high, low]);
    assert_eq!(ids(&scan(Place::Ready, Some("b"), None, 1)), [high]);
    for (at, cursor) in ready.iter().enumerate() {
        assert_eq!(scan(Place::Ready, None, Some(cursor), 9), ready[at + 1..]);
    }
    assert_eq!(ids(&scan(Place::Ready, Some("b"), Some(&ready[1]), 9)), [low]);
    let scheduled = scan(Place::Scheduled, None, None, 9);
    assert_eq!(ids(&scheduled), [soon, late]);
    assert_eq!(scan(Place::Scheduled, None, Some(&scheduled[0]), 9), scheduled[1..]);
    // And what moves, from each side.
    let moving = driver.move_out("there", Uuid::now_v7(), Some(&[low, late, other]), 9).expect("leaves");
    assert_eq!(moving.len(), 3);
    let leaving = scan(Place::Leaving, None, None, 9);
    assert_eq!(leaving.len(), 3);
    assert_eq!(scan(Place::Leaving, None, Some(&leaving[0]), 9), leaving[1..]);
    assert!(scan(Place::Arriving, None, None, 9).is_empty() && scan(Place::Leased, None, None, 9).is_empty());
}

pub fn failures_are_found_newest_first_by_what_is_stored_of_them(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<stumble>().ability::<give_up>());
    let at = bed.first();
    let first = stored(&manager, stumble::job(9).database(at).tag("eu"));
    run_all(&manager);
    let second = stored(&manager, give_up::job().database(at));
    run_all(&manager);
    let found = |text: &str| {
        let filter: ExceptionFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let listing = manager.exceptions(&filter, &Paging::default());
        assert!(listing.errors().next().is_none() && listing.next.is_none(), "{text}");
        listing.rows().map(|(_, row)| row.message.clone()).collect::<Vec<_>>()
    };
    let all =
        ["no such user", "stumbled at attempt 3", "stumbled at attempt 2", "stumbled at attempt 1"];
    assert_eq!(found(""), all);
    assert_eq!(found("ability:give_up"), all[..1]);
    assert_eq!(found("discarded:yes redriven:no"), all[..2]);
    assert_eq!(found("error~ATTEMPT attempt<3"), all[2..]);
    assert_eq!(found("tag:eu kind:error age<1d failed>2020-01-01"), all[1..]);
    assert_eq!(found("arg=9 discarded:yes"), all[1..2]);
    assert_eq!(found(&format!("id:{first},{second} discarded:yes")), all[..2]);
    assert_eq!(found("NOT error~stumbled"), all[..1]);
    for text in ["", &format!("id:{first},{second}")] {
        let filter: ExceptionFilter = text.parse().expect("is one");
        let (mut told, mut paging) = (Vec::new(), Paging::default().limit(1));
        loop {
            let listing = manager.exceptions(&filter, &paging);
            told.extend(listing.rows().map(|(_, row)| row.message.clone()));
            let Some(next) = listing.next else { break };
            paging = paging.after(next);
        }
        assert_eq!(told, all, "{text}");
    }
    let rows = manager.exceptions(&ExceptionFilter::job(second), &Paging::default());
    let (_, row) = rows.rows().next().expect("failed");
    let one = manager.exceptions(&ExceptionFilter::exception(row.id), &Paging::default());
    assert_eq!(one.rows().count(), 1);
}

pub fn failures_are_grouped_by_what_failed_and_why(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<stumble>().ability::<give_up>());
    for _ in 0..2 {
        stored(&manager, stumble::job(9).database(bed.first()));
    }
    stored(&manager, give_up::job().database(bed.first()));
    run_all(&manager);
    let groups = |text: &str| {
        let filter: ExceptionFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let answers = manager.failures(&filter, 1_000).into_iter();
        let all = answers.flat_map(|on| on.answer.expect("answers").groups);
        let told = all.map(|one| (one.ability, one.class.unwrap_or_default(), one.count, one.open));
        told.collect::<Vec<_>>()
    };
    let stumbled = || ("stumble".to_owned(), "stumbled at attempt #".to_owned(), 6, 2);
    let gave_up = || ("give_up".to_owned(), "no such user".to_owned(), 1, 1);
    assert_eq!(groups(""), [stumbled(), gave_up()]);
    assert_eq!(groups("error:\"no such user\""), [gave_up()]);
    assert_eq!(groups("error:\"stumbled at attempt #\" attempt=1"), [("stumble".to_owned(), stumbled().1, 2, 0)]);
    let answers = manager.failures(&ExceptionFilter::all(), 3);
    let first = answers.into_iter().find(|on| on.database == bed.first()).expect("is there");
    let cut = first.answer.expect("answers");
    assert_eq!((cut.searched, cut.about), (3, Some(7)), "the newest");
    let row = manager.failures(&ExceptionFilter::all(), 1_000).remove(0).answer.expect("answers");
    assert!(row.groups.iter().all(|one| one.first <= one.last && one.sample.facts.arg.is_empty()));
}

pub fn what_became_of_runs_is_a_list_too(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<noted>().ability::<other_echo>());
    let jobs: Vec<_> = (0..5).map(|_| stored(&manager, noted::job().database(bed.first()))).collect();
    stored(&manager, other_echo::job("no history".to_owned()));
    run_all(&manager);
    let filter: StatusFilter = "status:completed took<1h finished>2020-01-01".parse().expect("is one");
    let (mut told, mut paging) = (Vec::new(), Paging::default().limit(2));
    loop {
        let listing = manager.job_statuses(&filter, &paging);
        told.extend(listing.rows().map(|(_, row)| row.job));
        let Some(next) = listing.next else { break };
        paging = paging.after(next);
    }
    assert_eq!((told.len(), told.iter().collect::<BTreeSet<_>>().len()), (5, 5));
    assert!(jobs.iter().all(|job| told.contains(job)));
    let one = manager.job_statuses(&StatusFilter::job(jobs[2]), &Paging::default());
    assert_eq!(one.rows().map(|(_, row)| row.job).collect::<Vec<_>>(), [jobs[2]]);
    let none = manager.job_statuses(&"status:failed".parse().expect("is one"), &Paging::default());
    assert_eq!(none.rows().count(), 0);
}

pub fn a_search_that_looked_at_enough_rows_says_how_many_and_goes_on(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder);
    let jobs = (0..250).map(|n: u32| NewJob::named("x", n.into()).database(bed.first()));
    manager.enqueue_many(jobs).expect("stored");
    let filter: JobFilter = format!("db:{} arg=249", bed.first()).parse().expect("is one");
    let (mut paging, mut searches) = (Paging::default().search(100), 0);
    loop {
        let listing = manager.jobs(&filter, &paging);
        searches += 1;
        let page = listing.pages[0].answer.as_ref().expect("answers");
        assert!(page.searched <= 100);
        if !page.rows.is_empty() {
            break;
        }
        assert_eq!((page.about, page.more), (Some(250), true));
        paging = paging.after(listing.next.expect("is not ended"));
    }
    assert_eq!(searches, 3);
}
