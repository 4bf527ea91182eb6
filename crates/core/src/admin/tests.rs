//! Lists over the memory driver: pages, cursors, what is read and what is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qudo_hooks::JobId;

use crate::ability::Ability;
use crate::admin::page::{Cursor, Paging};
use crate::driver::{DriverError, ErrorKind};
use crate::filter::{ExceptionFilter, JobFilter, StatusFilter};
use crate::fixture::{SOON, memory};
use crate::inside::ManagerInside;
use crate::job::Job;
use crate::job_error::{JobError, JobResult};
use crate::manager::Manager;
use crate::new_job::NewJob;
use crate::testing::FaultyDriver;

struct Mail;

impl Ability for Mail {
    const NAME: &'static str = "mail";
    type Arg = u32;
    type Reply = ();

    fn options() -> crate::ability_options::AbilityOptions {
        crate::ability_options::AbilityOptions::default().job_status(true)
    }

    fn work(_: &Job, number: u32) -> JobResult<()> {
        if number.is_multiple_of(2) { Ok(()) } else { Err(JobError::fail(format!("no {number}"))) }
    }
}

fn manager() -> Manager {
    let builder = Manager::builder().linked(false).ability::<Mail>();
    builder.driver("one", memory()).driver("two", memory()).build().expect("valid")
}

fn stored<R>(manager: &Manager, job: NewJob<R>) -> JobId {
    manager.enqueue(job).expect("stored").id().expect("is new")
}

fn parsed(text: &str) -> JobFilter {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn found(manager: &Manager, text: &str) -> BTreeSet<JobId> {
    let listing = manager.jobs(&parsed(text), &Paging::default());
    assert!(listing.next.is_none() && listing.errors().next().is_none(), "{text}");
    listing.rows().map(|(_, job)| job.id).collect()
}

/// All pages, each through the text of its cursor.
fn pages(manager: &Manager, text: &str, limit: u32) -> Vec<JobId> {
    let (mut ids, mut paging) = (Vec::new(), Paging::default().limit(limit));
    loop {
        let listing = manager.jobs(&parsed(text), &paging);
        for on in &listing.pages {
            assert!(on.answer.as_ref().expect("answers").rows.len() <= limit as usize);
        }
        ids.extend(listing.rows().map(|(_, job)| job.id));
        let Some(next) = listing.next else { return ids };
        let next: Cursor = next.to_string().parse().expect("is one");
        paging = paging.after(next);
    }
}

#[test]
fn a_filter_finds_jobs_by_what_they_are_and_where_they_stand() {
    let manager = manager();
    let one = stored(&manager, Mail::job(1).database("one").meta("tenant", 7).tag("eu"));
    let late = stored(&manager, Mail::job(2).database("two").delay(SOON * 100).priority(3));
    let keyed = stored(&manager, Mail::job(3).database("two").uniqkey("k"));
    let other =
        stored(&manager, NewJob::named("sms", serde_json::json!({ "to": ["x", 5] })).queue("gl.x"));
    for (text, ids) in [
        ("", vec![one, late, keyed, other]),
        ("ability:mail", vec![one, late, keyed]),
        ("state:scheduled", vec![late]),
        ("state:ready ability:mail", vec![one, keyed]),
        ("db:two ability:mail", vec![late, keyed]),
        ("queue:gl.*", vec![other]),
        ("queue:gl.x", vec![other]),
        ("meta.tenant=7", vec![one]),
        ("tag:eu", vec![one]),
        ("NOT tag:eu ability:mail", vec![late, keyed]),
        ("key:*", vec![keyed]),
        ("ability:mail key:k", vec![keyed]),
        ("ability:mail key:nobody", vec![]),
        ("arg=2", vec![late]),
        ("arg>1 ability:mail", vec![late, keyed]),
        ("arg.to=5", vec![other]),
        ("arg.to.0:x", vec![other]),
        ("priority>=3", vec![late]),
        ("due>now", vec![late]),
        ("due<2000-01-01", vec![]),
        ("age<1h attempt=0", vec![one, late, keyed, other]),
        ("age>1h", vec![]),
        ("enqueued>2000-01-01", vec![one, late, keyed, other]),
        ("codec:json", vec![one, late, keyed, other]),
        ("state:running", vec![]),
    ] {
        assert_eq!(found(&manager, text), ids.into_iter().collect(), "{text}");
    }
    let by_ids = format!("id:{one},{late} state:scheduled");
    assert_eq!(found(&manager, &by_ids), BTreeSet::from([late]));
    let names: Vec<_> = manager.jobs(&parsed("db:two"), &Paging::default()).pages;
    assert_eq!(names.iter().map(|on| &*on.database).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn pages_follow_each_other_through_every_table_without_a_gap() {
    let manager = manager();
    let mut all = BTreeSet::new();
    for n in 0..20 {
        let database = if n % 3 == 0 { "one" } else { "two" };
        let job = NewJob::named("x", n.into()).database(database).queue(format!("q{}", n % 4));
        let job = job.priority(n % 2);
        all.insert(stored(&manager, if n < 8 { job.delay(SOON * 100) } else { job }));
    }
    for limit in 1..9 {
        for text in
            ["", "ability:x", "queue:q0,q1,q2,q3", "arg>=0", "state:ready OR state:scheduled"]
        {
            let ids = pages(&manager, text, limit);
            assert_eq!(ids.len(), 20, "{text}, {limit} a page: each once");
            assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all, "{text}");
        }
        assert_eq!(pages(&manager, "queue:q3,q1,q3 state:ready", limit).len(), 6);
        let ids: Vec<_> = all.iter().map(ToString::to_string).collect();
        let named = format!("id:{},{} ability:x", ids.join(","), ids[0]);
        let found = pages(&manager, &named, limit);
        assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (20, all.clone()));
        assert!(pages(&manager, "ability:y", limit).is_empty());
    }
}

#[test]
fn ready_jobs_are_listed_in_the_order_in_which_they_are_claimed() {
    let manager = manager();
    let low = stored(&manager, Mail::job(0).database("one"));
    let high = stored(&manager, Mail::job(0).database("one").priority(1));
    let late = stored(&manager, Mail::job(0).database("one").delay(SOON * 100));
    assert_eq!(pages(&manager, "", 10), [high, low, late]);
}

#[test]
fn a_search_that_is_not_ended_says_so_and_goes_on() {
    let manager = manager();
    let needle = |n| if n == 290 { "needle" } else { "hay" };
    for n in 0..300 {
        stored(&manager, NewJob::named("x", needle(n).into()).database("one"));
    }
    let filter = parsed("arg:needle db:one");
    let mut paging = Paging::default().search(100);
    let mut looks = 0;
    let row = loop {
        looks += 1;
        let listing = manager.jobs(&filter, &paging);
        let page = listing.pages[0].answer.as_ref().expect("answers");
        assert!(page.searched <= 100);
        if let Some(row) = page.rows.first() {
            break row.clone();
        }
        assert_eq!((page.more, page.about), (true, Some(300)));
        paging = paging.after(listing.next.expect("is not ended"));
    };
    assert_eq!((looks, &*row.facts.arg), (3, &b"\"needle\""[..]));
}

#[test]
fn no_argument_is_read_for_a_filter_that_does_not_ask_for_it() {
    let manager = manager();
    stored(&manager, Mail::job(7));
    let paging = Paging::default().without_arguments();
    for (text, found) in [("ability:mail", 1), ("arg=7", 1), ("arg=8", 0)] {
        let listing = manager.jobs(&parsed(text), &paging);
        assert_eq!(listing.rows().count(), found, "{text}");
        assert!(listing.rows().all(|(_, job)| job.facts.arg.is_empty()), "{text}");
    }
    assert!(
        manager
            .jobs(&parsed("arg=7"), &Paging::default())
            .rows()
            .all(|(_, job)| job.facts.arg == b"7")
    );
}

#[test]
fn an_argument_that_cannot_be_read_meets_neither_a_term_nor_its_opposite_and_is_counted() {
    let manager = manager();
    stored(&manager, Mail::job(7).database("one"));
    let mut record =
        manager.prepare_record(NewJob::named("mail", 7.into())).expect("valid").expect("is one");
    record.facts.codec = "sealed".into();
    let one = manager.set().find("one").expect("is there");
    one.driver().insert(&[record], crate::driver::Deadline::NONE).expect("stored");
    for (text, rows) in [("arg=7", 1), ("NOT arg=7", 0), ("ability:mail", 2)] {
        let listing = manager.jobs(&parsed(text), &Paging::default());
        let page = listing.pages[0].answer.as_ref().expect("answers");
        let unreadable = u64::from(text != "ability:mail");
        assert_eq!((page.rows.len(), page.unreadable), (rows, unreadable), "{text}");
    }
}

#[test]
fn few_facts_are_read_for_a_short_page_of_many_jobs() {
    let (read, scanned) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (facts, places) = (Arc::clone(&read), Arc::clone(&scanned));
    let driver = FaultyDriver::new(memory()).with_fault(move |call| {
        match call {
            "jobs" => facts.fetch_add(1, Ordering::Relaxed),
            "scan_jobs" => places.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        Ok(())
    });
    let manager =
        Manager::builder().linked(false).driver("one", Arc::new(driver)).build().expect("valid");
    manager.enqueue_many((0..500).map(|n: u32| NewJob::named("x", n.into()))).expect("stored");
    let listing = manager.jobs(&parsed("ability:x"), &Paging::default().limit(10));
    assert_eq!((listing.rows().count(), read.load(Ordering::Relaxed)), (10, 1));
    assert_eq!(scanned.load(Ordering::Relaxed), 2, "nobody runs, then a piece of the ready ones");
    manager.jobs(&parsed("state:scheduled"), &Paging::default());
    assert_eq!(
        (read.load(Ordering::Relaxed), scanned.load(Ordering::Relaxed)),
        (1, 3),
        "one table"
    );
}

#[test]
fn a_database_that_does_not_answer_has_an_error_and_is_asked_again_for_the_next_page() {
    let driver = FaultyDriver::new(memory()).with_fault(|call| {
        if call == "scan_jobs" {
            Err(DriverError::new(ErrorKind::Other, "refused"))
        } else {
            Ok(())
        }
    });
    let builder = Manager::builder().linked(false).driver("one", memory());
    let manager = builder.driver("two", Arc::new(driver)).build().expect("valid");
    stored(&manager, NewJob::named("x", 1.into()).database("one"));
    let listing = manager.jobs(&JobFilter::all(), &Paging::default());
    assert_eq!(listing.rows().count(), 1);
    assert_eq!(listing.errors().map(|(name, _)| name).collect::<Vec<_>>(), ["two"]);
    let next = listing.next.expect("two was not read");
    assert!(next.of("one").is_none() && next.of("two").is_some());
}

#[test]
fn failures_and_runs_are_found_newest_first_by_what_is_stored_of_them() {
    let manager = manager();
    let mut ids = Vec::new();
    for n in 0..9 {
        ids.push(stored(&manager, Mail::job(n).database("one").tag(format!("t{}", n % 3))));
        while manager.work_once().expect("answers").is_some() {}
    }
    let failed = |text: &str, paging: &Paging| {
        let filter: ExceptionFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let listing = manager.exceptions(&filter, paging);
        let jobs: Vec<_> = listing.rows().map(|(_, row)| row.job).collect();
        (jobs, listing.next)
    };
    let newest: Vec<_> = [7, 5, 3, 1].map(|n: usize| ids[n]).to_vec();
    assert_eq!(failed("", &Paging::default()), (newest.clone(), None));
    assert_eq!(failed("error~\"NO 5\"", &Paging::default()).0, [ids[5]]);
    assert_eq!(
        failed("tag:t1 discarded:yes redriven:no kind:error", &Paging::default()).0,
        [ids[7], ids[1]]
    );
    assert_eq!(failed("arg>4 age<1h", &Paging::default()).0, [ids[7], ids[5]]);
    assert_eq!(
        failed(&format!("id:{},{0},{}", ids[1], ids[3]), &Paging::default()).0,
        [ids[3], ids[1]]
    );
    for text in ["", "ability:mail", &format!("id:{},{},{},{}", ids[1], ids[3], ids[5], ids[7])] {
        let (mut all, mut paging) = (Vec::new(), Paging::default().limit(1));
        loop {
            let (rows, next) = failed(text, &paging);
            all.extend(rows);
            let Some(next) = next else { break };
            paging = paging.after(next);
        }
        assert_eq!(all, newest, "{text}");
    }
    let runs = |text: &str| {
        let filter: StatusFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
        let listing = manager.job_statuses(&filter, &Paging::default());
        listing.rows().map(|(_, row)| row.job).collect::<Vec<_>>()
    };
    assert_eq!(runs("").len(), 9);
    assert_eq!(runs("status:failed error~\"no 3\""), [ids[3]]);
    assert_eq!(runs("status:completed took<1h"), [8, 6, 4, 2, 0].map(|n: usize| ids[n]));
    assert_eq!(runs(&format!("id:{}", ids[2])), [ids[2]]);
}

#[test]
fn what_takes_too_long_ends_with_what_was_found() {
    let filter = parsed("arg:nothing");
    let manager = manager();
    manager
        .enqueue_many((0..200).map(|n: u32| NewJob::named("x", n.into()).database("one")))
        .expect("stored");
    let codecs = &manager.program().codecs;
    let one = manager.set().find("one").expect("is there");
    let paging = Paging::default();
    let question = super::jobs::Question {
        driver: &**one.driver(),
        database: "one",
        codecs,
        filter: &filter,
        paging: &paging,
        budget: super::page::Budget::new(1_000_000, Duration::ZERO),
    };
    let (page, next) = question.page(None).expect("answers");
    assert!(
        next.is_some() && page.more && page.about == Some(200) && page.searched < 200,
        "{page:?}"
    );
}

#[test]
fn failures_that_ended_jobs_are_found_behind_any_number_of_those_that_did_not() {
    struct Stubborn;

    impl Ability for Stubborn {
        const NAME: &'static str = "stubborn";
        type Arg = u32;
        type Reply = ();

        fn options() -> crate::ability_options::AbilityOptions {
            crate::ability_options::AbilityOptions::default()
                .max_retries(40)
                .retry_delay(Duration::ZERO)
        }

        fn work(_: &Job, _: u32) -> JobResult<()> {
            Err(JobError::fail("again"))
        }
    }

    let builder = Manager::builder().linked(false).ability::<Mail>().ability::<Stubborn>();
    let manager = builder.driver("one", memory()).build().expect("valid");
    let failed = stored(&manager, Mail::job(1));
    while manager.work_once().expect("answers").is_some() {}
    stored(&manager, Stubborn::job(7));
    for _ in 0..30 {
        manager.work_once().expect("answers").expect("is ready");
    }
    let paging = Paging::default().search(5);
    let ended = manager.exceptions(&ExceptionFilter::discarded(), &paging);
    assert_eq!(ended.rows().map(|(_, row)| row.job).collect::<Vec<_>>(), [failed]);
    // Of a failure that was retried no argument is stored: that it meets nothing is known.
    let others = "NOT arg=7 ability:stubborn".parse().expect("is one");
    let others = manager.exceptions(&others, &Paging::default());
    let page = others.pages[0].answer.as_ref().expect("answers");
    assert_eq!((page.rows.len(), page.unreadable), (30, 0));
}
