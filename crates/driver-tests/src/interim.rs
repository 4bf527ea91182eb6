use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, Heard, JobFacts, JobRecord, Keep, LeaseKey,
    Name, News, ProgressRecord, ReplyRecord, Sending, SentLast, SentRecord, Settlement, Tidings, Verdict,
    WorkerInfo,
};
use qudo::{
    Due, Error, Job, JobError, JobId, JobResult, Manager, NewJob, SavedTicket, Sent, Standing, Ticket, Update,
};

use crate::abilities::{double, echo, no_argument};
use crate::{Bed, DEADLINE, Log, eventually, run_all};

/// Waits until the test says this.
fn until_told(job: &Job, word: &str) -> JobResult {
    let log = job.plugin::<Log>()?;
    while !log.lines().iter().any(|line| line == word) {
        if job.is_stopping() {
            return Err(JobError::fail("nobody says it"));
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

/// Sends a value, and the next only when the test says so.
#[qudo::ability]
pub fn sender(job: &Job, count: u32) -> JobResult<u32> {
    for number in 0..count {
        job.send(&format!("value {number}"))?;
        until_told(job, &format!("read {number}"))?;
    }
    Ok(count)
}

/// Sends in each attempt, and fails in all but the last.
#[qudo::ability(max_retries = 1, retry_delay = "0s")]
pub fn twice(job: &Job, fails: u32) -> JobResult<u32> {
    job.send(&format!("begun {}", job.attempt()))?;
    job.send(&"more")?;
    if job.attempt() <= fails { Err(JobError::fail("not yet")) } else { Ok(job.attempt()) }
}

/// Says how far it is, and goes on when the test says so.
#[qudo::ability]
pub fn steps(job: &Job) -> JobResult {
    job.progress(1, 4, "the first");
    until_told(job, "seen")?;
    job.progress(4, 4, "");
    until_told(job, "seen again")
}

/// A chain of this length, whose last link replies.
#[qudo::ability]
pub fn chain(job: &Job, links: u32) -> JobResult<Option<u32>> {
    job.send(&links)?;
    if links == 0 {
        return Ok(Some(42));
    }
    job.replace(chain::job(links - 1));
    Ok(None)
}

/// Replaces itself under its own id, once.
#[qudo::ability]
pub fn phoenix(job: &Job, lives: u32) -> JobResult {
    if lives > 0 {
        job.replace(phoenix::job(lives - 1).with_id(job.id()));
    }
    Ok(())
}

/// Two in the place of one.
#[qudo::ability]
pub fn fork(job: &Job) -> JobResult {
    job.replace(double::job(1));
    job.replace(double::job(2));
    Ok(())
}

/// Replies itself, beside what takes its place.
#[qudo::ability]
pub fn relay(job: &Job) -> JobResult<i64> {
    job.replace(double::job(1));
    Ok(7)
}

fn ticket<R>(manager: &Manager, job: NewJob<R>) -> Ticket<R> {
    manager.enqueue(job).expect("stored").ticket().expect("is new").clone()
}

/// The values that were sent, each with its attempt.
fn all_sent(updates: impl Iterator<Item = Result<Update<String>, Error>>) -> Vec<(u32, String)> {
    let sent = |update| match update {
        Update::Sent(Sent { attempt, value, .. }) => Some((attempt, value)),
        _ => None,
    };
    updates.filter_map(|update| sent(update.expect("answers"))).collect()
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

pub fn what_a_job_sends_is_read_while_it_runs(bed: &Bed) {
    let (manager, log) = bed.manager::<sender>();
    let working = manager.start().expect("starts");
    let reader = bed.builder().build().expect("another process");
    let sent = ticket(&manager, sender::job(3));
    for ticket in [sent.clone(), reader.ticket(sent.id()).typed()] {
        let mut updates = ticket.updates::<String>().within(DEADLINE);
        for number in 0..3 {
            let Some(Ok(Update::Sent(sent))) = updates.next() else { panic!("it was sent") };
            assert_eq!((sent.number, sent.attempt), (number, 1));
            assert_eq!((sent.job, &*sent.value), (ticket.id(), &*format!("value {number}")));
            log.add(format!("read {number}"));
        }
        assert!(updates.next().is_none(), "it ended");
        assert!(updates.next().is_none(), "and stays so");
        assert_eq!(ticket.wait(DEADLINE).expect("replies"), 3);
    }
    working.stop();
}

pub fn a_stream_reads_what_a_job_sends(bed: &Bed) {
    let (manager, log) = bed.manager::<sender>();
    let working = manager.start().expect("starts");
    let reader = bed.builder().build().expect("another process");
    let sent = ticket(&manager, sender::job(2));
    for ticket in [sent.clone(), reader.ticket(sent.id()).typed()] {
        let mut stream = ticket.updates::<String>().within(DEADLINE).into_stream();
        block_on(async {
            for number in 0..2 {
                let next = stream.next().await;
                let Some(Ok(Update::Sent(sent))) = next else { panic!("it was sent: {next:?}") };
                assert_eq!((sent.number, &*sent.value), (number, &*format!("value {number}")));
                log.add(format!("read {number}"));
            }
            assert!(stream.next().await.is_none());
            assert!(stream.next().await.is_none());
        });
    }
    // Of a job that nobody knows that is told, once.
    let mut unknown = manager.ticket(JobId::new()).updates::<String>();
    assert!(matches!(unknown.next(), Some(Err(Error::OutcomeUnknown { .. }))));
    assert!(unknown.next().is_none());
    // Nobody runs a job that is not there.
    let mut idle = ticket(&manager, echo::job("x".into()))
        .updates::<String>()
        .within(Duration::from_millis(20))
        .into_stream();
    let timed_out = block_on(idle.next());
    assert!(matches!(timed_out, Some(Err(Error::WaitTimeout { .. }))), "{timed_out:?}");
    working.stop();
}

pub fn of_several_attempts_the_newest_is_read_or_all_are(bed: &Bed) {
    let (manager, _) = bed.manager::<twice>();
    let sent = ticket(&manager, twice::job(1));
    assert!(manager.work_once().expect("works").is_some());
    let mut early = sent.updates::<String>().within(DEADLINE);
    let first = early.next().expect("was sent").expect("answers");
    assert!(matches!(first, Update::Sent(one) if one.value == "begun 1"));
    run_all(&manager);
    let words = |words: &[(u32, &str)]| -> Vec<(u32, String)> {
        words.iter().map(|(attempt, word)| (*attempt, (*word).to_owned())).collect()
    };
    let newest = words(&[(2, "begun 2"), (2, "more")]);
    // What it had found of the first attempt before is as good as read.
    let rest = all_sent(early);
    assert_eq!(rest[rest.len() - 2..], newest);
    let later = bed.builder().build().expect("another process");
    for ticket in [sent.clone(), later.ticket(sent.id()).typed()] {
        assert_eq!(all_sent(ticket.updates::<String>()), newest);
        let all = all_sent(ticket.updates::<String>().all_attempts());
        assert_eq!(all, words(&[(1, "begun 1"), (1, "more"), (2, "begun 2"), (2, "more")]));
    }
}

pub fn a_failed_job_is_read_on_as_the_one_that_it_is_enqueued_again_as(bed: &Bed) {
    let (manager, _) = bed.manager::<twice>();
    let sent = ticket(&manager, twice::job(2));
    run_all(&manager);
    let Ok(Standing::Failed(failure)) = sent.check() else { panic!("it failed for good") };
    let again = manager.redrive(failure.id).expect("enqueued again").id();
    run_all(&manager);
    let jobs: Vec<_> = sent
        .updates::<String>()
        .all_attempts()
        .map(|update| match update.expect("answers") {
            Update::Sent(one) => one.job,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(jobs, [[sent.id(); 4], [again; 4]].concat());
}

pub fn how_far_a_job_is_is_told_while_it_runs(bed: &Bed) {
    let beat = Duration::from_millis(40);
    let (manager, log) =
        bed.with(|builder| builder.ability::<steps>().heartbeat(beat, Duration::from_secs(30)));
    let working = manager.start().expect("starts");
    let reader = bed.builder().build().expect("another process");
    let sent = ticket(&manager, steps::job());
    assert_eq!(manager.ticket(JobId::new()).progress().expect("answers"), None);
    let same: Ticket = manager.ticket(sent.id());
    let other: Ticket = reader.ticket(sent.id());
    for (at, ticket) in [same, other].iter().enumerate() {
        let is_at = |done| {
            let progress = ticket.progress().expect("answers");
            progress.is_some_and(|now| now.done == done && now.total == Some(4) && now.attempt == 1)
        };
        if at == 0 {
            // It waits before the job says anything, most likely.
            let mut updates = ticket.updates::<String>().within(DEADLINE);
            let Some(Ok(Update::Progress(now))) = updates.next() else { panic!("it is told") };
            assert_eq!((now.done, now.note.as_deref()), (1, Some("the first")));
            assert!(is_at(1));
        } else {
            let mut updates = ticket.updates::<String>().within(DEADLINE);
            let Some(Ok(Update::Progress(now))) = updates.next() else { panic!("it is told") };
            assert_eq!((now.done, now.note.as_deref()), (1, Some("the first")));
            log.add("seen");
            let Some(Ok(Update::Progress(now))) = updates.next() else { panic!("it is told") };
            assert_eq!((now.done, now.note), (4, None));
            assert!(is_at(4));
            log.add("seen again");
            assert!(updates.next().is_none(), "it ended");
        }
    }
    sent.wait_done(DEADLINE).expect("done");
    working.stop();
}

pub fn a_ticket_follows_the_job_that_took_the_place_of_its_own(bed: &Bed) {
    let (manager, _) = bed.with(|builder| {
        let builder = builder.ability::<chain>().ability::<fork>().ability::<relay>().ability::<phoenix>();
        builder.ability::<double>()
    });
    let sent = ticket(&manager, chain::job(3));
    let bare: Ticket = manager.ticket(sent.id());
    run_all(&manager);
    assert_eq!(sent.wait_as::<u32>(DEADLINE).expect("the last link replied"), 42);
    assert_eq!(bare.wait_as::<u32>(DEADLINE).expect("also for a bare id"), 42);
    assert_eq!(block_on(manager.ticket(sent.id()).wait_as_async::<u32>(DEADLINE)).expect("awaited"), 42);
    let links: Vec<u32> = manager
        .ticket(sent.id())
        .updates::<u32>()
        .map(|update| match update.expect("answers") {
            Update::Sent(one) => one.value,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(links, [3, 2, 1, 0]);
    // One that is given its own id again is itself, and leads nobody in a circle.
    let sent = ticket(&manager, phoenix::job(1));
    run_all(&manager);
    assert!(!matches!(sent.wait_done(DEADLINE), Err(Error::WaitTimeout { .. })));
    assert!(sent.check().is_ok());
    // Which of two would it be?
    let sent = ticket(&manager, fork::job());
    run_all(&manager);
    assert!(matches!(sent.check(), Ok(Standing::Completed(0))));
    // It has a reply of its own.
    let sent = ticket(&manager, relay::job());
    run_all(&manager);
    assert_eq!(sent.wait(DEADLINE).expect("replied"), 7);
}

pub fn a_saved_ticket_is_one_again_in_another_process(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<double>().ability::<chain>().ability::<no_argument>());
    let sent = ticket(&manager, double::job(4));
    let done = ticket(&manager, chain::job(1));
    run_all(&manager);
    done.wait_done(DEADLINE).expect("done");
    let later = bed.builder().build().expect("another process");
    let text = serde_json::to_string(&sent.save()).expect("is text");
    let saved: SavedTicket = serde_json::from_str(&text).expect("is a ticket");
    assert_eq!(later.restore::<i64>(&saved).wait(DEADLINE).expect("replies"), 8);
    let saved = done.save();
    assert_ne!(saved.job, done.id(), "as far as it was followed");
    assert_eq!(later.restore::<u32>(&saved).wait(DEADLINE).expect("replies"), 42);
    // One that was alive when it was saved and left nothing has completed; a bare id does not know that.
    let sent = ticket(&manager, no_argument::job());
    let saved = sent.save();
    assert_eq!(saved.database.as_deref(), sent.database());
    run_all(&manager);
    later.restore::<()>(&saved).wait(DEADLINE).expect("it completed");
    let bare = later.ticket(sent.id()).wait_done(DEADLINE);
    assert!(matches!(bare, Err(Error::OutcomeUnknown { .. })), "{bare:?}");
}

pub fn many_tickets_are_waited_for_at_once(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<double>().ability::<twice>());
    let working = manager.start().expect("starts");
    let client = bed.builder().build().expect("another process");
    let sent: Vec<Ticket<i64>> = (0..20)
        .map(|n| client.enqueue(NewJob::named("double", n.into())).expect("stored"))
        .map(|sent| sent.ticket().expect("new").clone().typed())
        .collect();
    let all: Vec<i64> =
        Ticket::wait_all(&sent, DEADLINE).into_iter().map(|one| one.expect("replies")).collect();
    assert_eq!(all, (0..20).map(|n| 2 * n).collect::<Vec<_>>());
    // One that no process here can run, and one that ended.
    let never: Ticket<i64> = ticket(&client, NewJob::named("nobody", 1.into())).typed();
    let both = [never, sent[3].clone()];
    let (first, answer) = Ticket::wait_any(&both, DEADLINE).expect("there are some");
    assert_eq!((first, answer.expect("replies")), (1, 6));
    let answers = Ticket::wait_all(&both, Duration::from_millis(200));
    assert!(matches!(answers[0], Err(Error::WaitTimeout { .. })), "{answers:?}");
    assert!(matches!(answers[1], Ok(6)), "{answers:?}");
    assert!(Ticket::<i64>::wait_any(&[], DEADLINE).is_none());
    assert!(Ticket::<i64>::wait_all(&[], DEADLINE).is_empty());
    working.stop();
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A job that this worker has leased.
fn leased(driver: &dyn Driver, worker: &WorkerInfo) -> ClaimedJob {
    let facts = JobFacts::new("a", "default", "json", b"1".to_vec());
    let job = JobRecord { id: JobId::new(), facts, due: Due::Now };
    driver.insert(&[job], Deadline::NONE).expect("stored");
    driver.heartbeat(worker).expect("beats");
    let queue = Name::from_static("default");
    let abilities = [AbilityLease { name: Name::from_static("a"), grab_for: HOUR }];
    let request = ClaimRequest {
        worker: worker.id,
        claim: 7,
        queue: &queue,
        abilities: &abilities,
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    };
    driver.claim(&request).expect("answers").pop().expect("is ready")
}

fn record(number: i32, word: &str) -> SentRecord {
    let value = ReplyRecord { codec: "json".into(), body: word.as_bytes().to_vec() };
    SentRecord { number, attempt: 1, value }
}

pub fn only_who_holds_the_lease_tells_and_each_number_once(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = WorkerInfo::new("one", HOUR);
    let job = leased(driver, &worker);
    let lease = LeaseKey { worker: worker.id, job: job.id, claim: job.claim };
    let send = |lease: &LeaseKey, sent| driver.send(lease, &sent).expect("answers");
    assert_eq!(send(&lease, record(0, "1")), Sending::Stored);
    assert_eq!(send(&lease, record(0, "1")), Sending::Stored, "its answer was lost");
    assert_eq!(send(&lease, record(0, "2")), Sending::NumberTaken);
    assert_eq!(send(&lease, record(5, "3")), Sending::Stored, "there may be gaps");
    let others = LeaseKey { worker: WorkerInfo::new("two", HOUR).id, ..lease };
    assert_eq!(send(&others, record(6, "4")), Sending::LeaseLost);
    assert_eq!(send(&LeaseKey { claim: 8, ..lease }, record(6, "4")), Sending::LeaseLost);
    let said = |claim, done| ProgressRecord {
        job: job.id,
        claim,
        attempt: 1,
        done,
        total: Some(u64::MAX),
        note: Some("ä".to_owned()),
    };
    driver.note_progress(worker.id, &[said(8, 1)]).expect("answers");
    assert_eq!(driver.progress(job.id).expect("answers"), None, "under another claim");
    driver.note_progress(worker.id, &[said(7, 1)]).expect("answers");
    driver.note_progress(worker.id, &[said(7, 2)]).expect("answers");
    driver.note_progress(others.worker, &[said(7, 3)]).expect("answers");
    let row = driver.progress(job.id).expect("answers").expect("is there");
    assert_eq!((row.done, row.note.as_deref(), row.attempt), (2, Some("ä"), 1));
    let rows = driver.sent(job.id, 0, 10).expect("answers");
    let brief: Vec<_> = rows.iter().map(|row| (row.number, &row.value.body[..])).collect();
    assert_eq!(brief, [(0, &b"1"[..]), (5, &b"3"[..])]);
    assert_eq!(driver.sent(job.id, 1, 10).expect("answers").len(), 1);
    assert_eq!(driver.sent(job.id, 0, 1).expect("answers").len(), 1);
    let last = Some(SentLast { attempt: 1, number: 5 });
    let news = News { job: job.id, sent: last, noted_at: Some(row.noted_at) };
    let other = JobId::new();
    let told = driver.news(&[job.id, other]).expect("answers");
    let told: Vec<_> = told.into_iter().filter(|one| *one != News::nothing(other)).collect();
    assert_eq!(told, [news]);
    // After the end of the run nothing is added, and what there is stays.
    let id = job.id;
    let end = Settlement { job: Box::new(job), verdict: Verdict::Complete, extras: None };
    assert!(driver.settle(worker.id, &[end]).expect("settles")[0].is_done());
    assert_eq!(send(&lease, record(6, "4")), Sending::LeaseLost);
    assert_eq!(driver.sent(id, 0, 10).expect("answers").len(), 2);
}

pub fn what_jobs_told_is_kept_as_long_as_replies(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = WorkerInfo::new("one", HOUR);
    let (runs, over) = (leased(driver, &worker), leased(driver, &worker));
    for job in [&runs, &over] {
        let lease = LeaseKey { worker: worker.id, job: job.id, claim: job.claim };
        assert_eq!(driver.send(&lease, &record(0, "1")).expect("answers"), Sending::Stored);
        let (job, claim) = (job.id, job.claim);
        let said = ProgressRecord { job, claim, attempt: 1, done: 1, total: None, note: None };
        driver.note_progress(worker.id, &[said]).expect("answers");
    }
    let (runs, over_id) = (runs.id, over.id);
    let end = Settlement { job: Box::new(over), verdict: Verdict::Complete, extras: None };
    assert!(driver.settle(worker.id, &[end]).expect("settles")[0].is_done());
    driver.purge(&Keep::all(HOUR), 100).expect("answers");
    for job in [runs, over_id] {
        let news = driver.news(&[job]).expect("answers").pop().expect("is there");
        assert!(news.sent.is_some() && news.noted_at.is_some(), "it is not old");
    }
    let keep = Keep { replies: Duration::ZERO, ..Keep::all(HOUR) };
    eventually("it is older than nothing", || {
        driver.purge(&keep, 100).expect("answers");
        driver.sent(over_id, 0, 9).expect("answers").is_empty()
            && driver.progress(over_id).expect("answers").is_none()
    });
    assert_eq!(driver.sent(runs, 0, 9).expect("answers").len(), 1, "its numbers go on");
    assert!(driver.progress(runs).expect("answers").is_some(), "it still runs");
}

pub fn who_listens_for_news_hears_what_others_tell(bed: &Bed) {
    let (listens, tells) = (bed.driver(), bed.driver());
    let (ended, told) = (JobId::new(), JobId::new());
    let mut heard = Vec::new();
    let begun = std::time::Instant::now();
    let listened = listens.listen_for_news(&mut |news| {
        match news {
            Heard::Connected => {
                tells.tell_news(Tidings::Worker);
                tells.tell_news(Tidings::Ended(&[ended]));
                tells.tell_news(Tidings::Told(&[told, told]));
            }
            Heard::Tick => {}
            news => heard.push(news),
        }
        heard.len() < 3 && begun.elapsed() < DEADLINE
    });
    listened.expect("listens");
    if listens.hears_news() {
        heard.sort_by_key(|news| matches!(news, Heard::Told(_)));
        let all = [Heard::Worker, Heard::Ended(vec![ended]), Heard::Told(vec![told])];
        assert_eq!(heard, all);
    } else {
        assert!(heard.is_empty() && begun.elapsed() < DEADLINE, "it does not block");
    }
}
