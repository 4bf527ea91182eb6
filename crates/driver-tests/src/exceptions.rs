use qudo::Error;

use crate::abilities::{double, give_up, stumble};
use crate::{Bed, run_all};
use crate::work::exceptions;

pub fn a_failed_job_is_enqueued_again_once(bed: &Bed) {
    let (manager, log) = bed.manager::<stumble>();
    assert!(manager.enqueue(stumble::job(9).priority(3).uniqkey("k")).expect("stored").is_new());
    run_all(&manager);
    let last = exceptions(&manager).remove(0);
    let ticket = manager.redrive(last.id).expect("once");
    let job = manager.lookup(ticket.id()).expect("answers").expect("lives").1;
    assert_eq!((job.facts.priority, job.facts.uniqkey.as_deref(), &*job.facts.arg), (3, Some("k"), &b"9"[..]));
    assert_ne!(ticket.id(), last.job);
    let again = manager.redrive(last.id).expect_err("twice");
    assert!(matches!(again, Error::AlreadyRedriven { job, .. } if job == ticket.id()), "{again}");
    run_all(&manager);
    assert_eq!(log.lines().len(), 6);
    let marked = exceptions(&manager).into_iter().find(|row| row.id == last.id);
    assert_eq!(marked.expect("kept").redriven_as, Some(ticket.id()));
}

pub fn a_failure_that_was_retried_cannot_be_enqueued_again(bed: &Bed) {
    let (manager, _) = bed.manager::<stumble>();
    assert!(manager.enqueue(stumble::job(1)).expect("stored").is_new());
    run_all(&manager);
    let first = exceptions(&manager).remove(0);
    let error = manager.redrive(first.id).expect_err("it completed");
    assert!(error.to_string().contains("retried"), "{error}");
    let error = manager.redrive(qudo::driver::ExceptionId::new()).expect_err("unknown");
    assert!(matches!(error, Error::NotRedrivable { .. }), "{error}");
}

pub fn redrive_is_refused_while_a_live_job_holds_the_key(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<give_up>().ability::<double>());
    assert!(manager.enqueue(give_up::job().uniqkey("k")).expect("stored").is_new());
    run_all(&manager);
    let failed = exceptions(&manager).remove(0);
    let holder = manager.enqueue(give_up::job().uniqkey("k")).expect("stored").id().expect("id");
    let error = manager.redrive(failed.id).expect_err("held");
    assert!(error.to_string().contains(&holder.to_string()), "{error}");
    assert!(manager.dequeue(holder).expect("answers"));
    manager.redrive(failed.id).expect("free again");
}
