use std::time::Duration;

use qudo::driver::{Ending, Keep, MovingJob, Remains};
use qudo::{Error, ManagerBuilder, Standing};

use crate::abilities::{double, echo, no_argument, noted, replies, stumble};
use uuid::Uuid;

use crate::{Bed, DEADLINE, departed, eventually, run_all};

pub fn the_return_value_reaches_the_client(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let working = manager.start().expect("starts");
    let client = bed.builder().build().expect("another client");
    let sent = client.enqueue(qudo::NewJob::named("double", 4.into())).expect("stored");
    assert_eq!(sent.wait_as::<i64>(DEADLINE).expect("replies"), 8);
    let sent = manager.enqueue(double::job(-3)).expect("stored");
    assert_eq!(sent.wait_as::<i64>(DEADLINE).expect("replies"), -6);
    working.stop();
}

pub fn several_replies_arrive_in_order_before_the_return_value(bed: &Bed) {
    let (manager, _) = bed.manager::<replies>();
    let sent = manager.enqueue(replies::job()).expect("stored");
    run_all(&manager);
    let ticket = sent.ticket().expect("new");
    let all: Vec<String> = ticket.replies(Duration::from_secs(1)).expect("replies");
    assert_eq!(all, ["one", "two", "three"]);
    assert_eq!(ticket.wait_as::<String>(Duration::from_secs(1)).expect("the last"), "three");
    assert!(matches!(ticket.check(), Ok(Standing::Completed(3))));
}

pub fn a_ticket_is_rebuilt_from_an_id(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let job = manager.enqueue(double::job(5)).expect("stored").id().expect("id");
    run_all(&manager);
    let later = bed.builder().build().expect("after a restart");
    assert_eq!(later.ticket(job).wait_as::<i64>(Duration::from_secs(1)).expect("replies"), 10);
}

pub fn check_tells_how_far_a_job_is(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<double>().ability::<stumble>());
    let sent = manager.enqueue(stumble::job(9)).expect("stored");
    let ticket = sent.ticket().expect("new");
    assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))));
    run_all(&manager);
    let Ok(Standing::Failed(exception)) = ticket.check() else { panic!("{:?}", ticket.check()) };
    assert_eq!(exception.attempt, 3);
    let unknown = manager.ticket(qudo::JobId::new());
    assert!(matches!(unknown.check(), Ok(Standing::Unknown)));
}

pub fn a_removed_job_leaves_a_tombstone_as_long_as_replies(bed: &Bed) {
    let (manager, _) = bed.manager::<no_argument>();
    let sent = manager.enqueue(no_argument::job().database(bed.first()).uniqkey("k"));
    let sent = sent.expect("stored");
    let id = sent.id().expect("id");
    assert!(manager.dequeue(id).expect("answers"));
    let later = bed.builder().build().expect("another process");
    for ticket in [sent.ticket().expect("new").clone(), later.ticket(id).typed()] {
        assert!(matches!(ticket.check(), Ok(Standing::Removed(Ending::Removed))));
        let error = ticket.wait(DEADLINE).expect_err("it never ran");
        assert!(matches!(error, Error::JobRemoved { .. }), "{error}");
    }
    let driver = bed.driver();
    let remains = driver.remains(id).expect("answers");
    assert_eq!((remains.replies.len(), remains.ending), (0, Some(Ending::Removed)));
    // Removed without a tombstone, as a job that lives in another database.
    let other = manager.enqueue(no_argument::job().database(bed.first())).expect("stored");
    let other = other.id().expect("id");
    assert!(driver.dequeue(other, None).expect("answers"));
    assert_eq!(driver.remains(other).expect("answers"), Remains::default());
    let keep = Keep { replies: Duration::ZERO, ..Keep::all(Duration::from_secs(86_400)) };
    eventually("the tombstone is purged", || {
        driver.purge(&keep, 100).expect("purges");
        driver.remains(id).expect("answers") == Remains::default()
    });
    assert!(matches!(later.ticket(id).check(), Ok(Standing::Unknown)));
}

pub fn a_bare_id_never_says_that_a_job_completed_which_it_did_not_see(bed: &Bed) {
    let (manager, _) = bed.manager::<no_argument>();
    let sent = manager.enqueue(no_argument::job()).expect("stored");
    let id = sent.id().expect("id");
    let (before, after) = (manager.ticket(id), manager.ticket(id));
    assert!(matches!(before.check(), Ok(Standing::Waiting(_))));
    run_all(&manager);
    before.wait_done(DEADLINE).expect("it saw the job alive");
    sent.wait(DEADLINE).expect("it is the ticket of the enqueue");
    for ticket in [after, manager.ticket(qudo::JobId::new())] {
        let error = ticket.wait_as::<()>(DEADLINE).expect_err("nothing tells");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    }
}

pub fn the_job_status_answers_for_a_bare_id(bed: &Bed) {
    let (manager, _) = bed.manager::<noted>();
    let id = manager.enqueue(noted::job()).expect("stored").id().expect("id");
    run_all(&manager);
    manager.ticket(id).wait_done(DEADLINE).expect("its history says so");
    assert!(matches!(manager.ticket(id).check(), Ok(Standing::Completed(0))));
    // Also where a move left only that it came.
    let other = bed.another();
    let builder = bed.builder().ability::<noted>();
    let both = builder.database_as("other", &other.databases[0].1).build().expect("valid");
    both.migrate().expect("migrates");
    let job = noted::job().database(bed.first());
    let id = both.enqueue(job).expect("stored").id().expect("id");
    both.move_jobs(bed.first(), "other").expect("moves");
    for (name, _) in &bed.databases {
        both.remove_database(name).expect("the other is left");
    }
    run_all(&both);
    both.ticket(id).wait_done(DEADLINE).expect("its history says so");
}

pub fn a_trail_tells_when_the_job_went_however_late_its_move_is_ended(bed: &Bed) {
    let driver = bed.driver();
    let (manager, _) = bed.with(|builder| builder);
    let job = qudo::NewJob::named("nobody", 1.into()).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    let gone = departed(&driver.move_out("elsewhere", Uuid::now_v7(), None, 9).expect("leaves"));
    driver.moved_out(&gone).expect("left");
    let old = Duration::from_millis(30);
    let trail = || driver.trail(id).expect("answers").expect("it went");
    eventually("it is some time ago", || trail().age > Some(old));
    driver.leave_trail(&gone).expect("is over");
    let trail = trail();
    assert!(trail.age > Some(old), "{trail:?}");
    assert_eq!(trail.to.as_deref(), Some("elsewhere"));
}

pub fn a_copy_that_was_brought_and_taken_back_leads_to_where_the_job_stayed(bed: &Bed) {
    let other = bed.another();
    let (from, to) = (bed.driver(), other.driver());
    let dsn = &other.databases[0].1;
    let (manager, _) = bed.with(|builder| builder.ability::<double>().database_as("other", dsn));
    let job = double::job(1).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    let identity = |driver: &dyn qudo::driver::Driver| driver.identity().expect("answers").to_string();
    let jobs = from.move_out(&identity(&*to), Uuid::now_v7(), None, 9).expect("leaves");
    to.move_in(&identity(&*from), &jobs).expect("is brought");
    let ticket = manager.ticket(id);
    assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))), "in both, on its way");
    assert_eq!(to.cancel_move_in(&departed(&jobs)).expect("answers"), 1);
    assert_eq!(from.move_back(&departed(&jobs)).expect("answers"), 1);
    let trail = to.trail(id).expect("answers").expect("was seen here");
    assert_eq!((trail.to, trail.age), (Some(identity(&*from)), None), "no proof of life");
    assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))), "it lives");
}

pub fn a_late_copy_does_not_hide_where_the_job_went_on(bed: &Bed) {
    let other = bed.another();
    let (from, to) = (bed.driver(), other.driver());
    let (manager, _) = bed.with(|builder| builder.ability::<double>());
    let job = double::job(1).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    let jobs = from.move_out("there", Uuid::now_v7(), None, 9).expect("leaves");
    let first = departed(&jobs);
    to.move_in("here", &jobs).expect("is brought");
    assert_eq!(from.moved_out(&first).expect("answers"), first);
    assert_eq!(to.moved_in(&first).expect("answers"), 1);
    let on = departed(&to.move_out("third", Uuid::now_v7(), Some(&[id]), 1).expect("goes on"));
    assert_eq!(to.moved_out(&on).expect("answers"), on);
    to.leave_trail(&on).expect("is over");
    // Of another departure: that it came by this one is remembered.
    to.move_in("here", &jobs).expect("is late");
    assert!(to.lookup(id).expect("answers").is_none(), "and brings nothing");
    let late: Vec<_> =
        jobs.iter().map(|job| MovingJob { departure: Uuid::now_v7(), ..job.clone() }).collect();
    to.move_in("here", &late).expect("is brought");
    assert_eq!(to.cancel_move_in(&departed(&late)).expect("answers"), 1);
    assert!(to.lookup(id).expect("answers").is_none(), "the copy is gone");
    let trail = to.trail(id).expect("answers").expect("it went on");
    assert_eq!(trail.to.as_deref(), Some("third"));
    assert!(trail.age.is_some_and(|age| age < DEADLINE), "it was alive then");
}

pub fn a_move_that_is_taken_back_keeps_that_the_job_came_here(bed: &Bed) {
    let other = bed.another();
    let dsn = &other.databases[0].1;
    let both = |builder: ManagerBuilder| builder.ability::<no_argument>().database_as("other", dsn);
    let (manager, _) = bed.with(both);
    let sent = manager.enqueue(no_argument::job().database(bed.first())).expect("stored");
    let id = sent.id().expect("id");
    manager.move_jobs(bed.first(), "other").expect("goes");
    manager.move_jobs("other", bed.first()).expect("comes back");
    let driver = bed.driver();
    let jobs = driver.move_out("nowhere", Uuid::now_v7(), Some(&[id]), 1).expect("is to leave");
    driver.move_back(&departed(&jobs)).expect("and stays");
    assert_eq!(run_all(&manager), 1);
    sent.wait(DEADLINE).expect("it completed");
    // That it came here once does not keep it from coming back.
    let again = manager.enqueue(no_argument::job().database(bed.first())).expect("stored");
    let again = again.id().expect("id");
    manager.move_jobs(bed.first(), "other").expect("goes");
    manager.move_jobs("other", bed.first()).expect("comes back");
    manager.move_jobs(bed.first(), "other").expect("goes");
    manager.move_jobs("other", bed.first()).expect("comes back");
    assert_eq!(manager.lookup(again).expect("answers").map(|(place, _)| place).as_deref(), Some(bed.first()));
    assert_eq!(run_all(&manager), 1);
}

pub fn a_job_of_an_id_that_replied_before_is_removed_if_it_is_removed(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let job = || double::job(1).database(bed.first());
    let sent = manager.enqueue(job()).expect("stored");
    let id = sent.id().expect("id");
    run_all(&manager);
    sent.wait(DEADLINE).expect("it replied");
    let again = manager.enqueue(job().with_id(id)).expect("stored");
    assert!(manager.dequeue(id).expect("answers"));
    let progress = again.ticket().expect("new").check().expect("answers");
    assert!(matches!(progress, Standing::Removed(Ending::Removed)), "{progress:?}");
}

pub fn a_job_without_a_reply_answers_with_nothing(bed: &Bed) {
    let (manager, _) = bed.manager::<no_argument>();
    let sent = manager.enqueue(no_argument::job()).expect("stored");
    run_all(&manager);
    sent.wait(Duration::from_secs(1)).expect("done");
    let error = sent.wait_as::<u64>(Duration::from_secs(1)).expect_err("no number");
    assert!(matches!(error, Error::NoReply { .. }), "{error}");
}

pub fn the_reply_of_a_failed_job_is_its_error(bed: &Bed) {
    let (manager, _) = bed.manager::<stumble>();
    let sent = manager.enqueue(stumble::job(9)).expect("stored");
    run_all(&manager);
    let Err(Error::JobFailed { attempt, message, .. }) = sent.wait_as::<u32>(Duration::from_secs(1))
    else {
        panic!("it failed")
    };
    assert_eq!((attempt, &*message), (3, "stumbled at attempt 3"));
}

pub fn waiting_ends_with_its_limit(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let sent = manager.enqueue(echo::job("nobody works".to_owned())).expect("stored");
    let error = sent.wait_as::<String>(Duration::from_millis(30)).expect_err("nobody works");
    assert!(matches!(error, Error::WaitTimeout { .. }), "{error}");
}

pub fn an_attempt_that_fails_leaves_no_reply(bed: &Bed) {
    let (manager, _) = bed.manager::<stumble>();
    let sent = manager.enqueue(stumble::job(2)).expect("stored");
    run_all(&manager);
    let all: Vec<u32> =
        sent.ticket().expect("new").replies(Duration::from_secs(1)).expect("replies");
    assert_eq!(all, [3, 3], "only those of the attempt that completed");
}

pub fn old_replies_are_removed(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let job = double::job(1).database(bed.first());
    let ticket = manager.enqueue(job).expect("stored").ticket().expect("new").clone();
    run_all(&manager);
    let driver = bed.driver();
    let day = Duration::from_secs(86_400);
    assert_eq!(driver.purge(&Keep::all(day), 100).expect("purges").removed, 0);
    assert!(matches!(ticket.check(), Ok(Standing::Completed(1))));
    eventually("the reply is older than nothing", || {
        driver
            .purge(&Keep { replies: Duration::ZERO, ..Keep::all(day) }, 100)
            .expect("purges")
            .removed
            == 1
    });
    assert!(matches!(manager.ticket(ticket.id()).check(), Ok(Standing::Unknown)));
}
