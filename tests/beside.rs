//! What one call or thread does not hold up or lose for the others, with a driver that hangs or lies.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use qudo::admin::AuditOptions;
use qudo::driver::{AbilityLease, ClaimRequest, Deadline, DriverError, ErrorKind, WorkerId};
use qudo::driver::{Driver, MemoryDriver};
use qudo::testing::FaultyDriver;
use qudo::{Job, Manager, ManagerBuilder, NewJob};

const DEADLINE: Duration = Duration::from_secs(30);

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Counts its runs.
#[qudo::ability]
fn counted(_: &Job, _nothing: ()) -> qudo::JobResult {
    RUNS.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

fn builder() -> ManagerBuilder {
    Manager::builder().linked(false).ability::<counted>().workers(1)
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let late = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < late, "{what}");
        std::thread::yield_now();
    }
}

/// Opened once, for all who wait at it.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let mut open = self.0.lock().expect("no panic");
        while !*open {
            open = self.1.wait(open).expect("no panic");
        }
    }

    fn open(&self) {
        *self.0.lock().expect("no panic") = true;
        self.1.notify_all();
    }
}

#[test]
fn heartbeats_go_on_while_a_rescue_hangs() {
    let (gate, beats) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (Arc::clone(&gate), Arc::clone(&beats));
    let rescues = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&rescues);
    let driver = FaultyDriver::new(Arc::new(MemoryDriver::default())).with_fault(move |call| {
        match call {
            "rescue" => {
                begun.fetch_add(1, Ordering::AcqRel);
                held.pass();
            }
            "heartbeat" => {
                counted.fetch_add(1, Ordering::AcqRel);
            }
            _ => {}
        }
        Ok(())
    });
    let running = builder()
        .driver("it", Arc::new(driver))
        .heartbeat(Duration::from_millis(50), Duration::from_millis(200))
        // Nothing ends the rescue before the test does.
        .call_limit(2 * DEADLINE)
        .build()
        .expect("valid")
        .start()
        .expect("starts");
    wait_until("a rescue begins", || rescues.load(Ordering::Acquire) > 0);
    let before = beats.load(Ordering::Acquire);
    wait_until("it beats meanwhile", || beats.load(Ordering::Acquire) > before + 10);
    assert_eq!(rescues.load(Ordering::Acquire), 1, "it hangs still");
    gate.open();
    running.stop();
}

/// The connection of a claim breaks, the release that follows finds nothing, and only then does the
/// server get to the claim: in its time.
#[test]
fn what_a_broken_claim_leases_after_its_release_is_released_again() {
    let inner: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
    let (claims, first) = (AtomicUsize::new(0), AtomicI64::new(0));
    let driver = FaultyDriver::new(inner).with_claim(move |driver, request| {
        match claims.fetch_add(1, Ordering::AcqRel) {
            0 => {
                first.store(request.claim, Ordering::Release);
                Err(DriverError::new(ErrorKind::Down, "connection reset").ambiguous(true))
            }
            1 => {
                let claim = first.load(Ordering::Acquire);
                let leased = driver.claim(&ClaimRequest { claim, ..*request })?;
                assert_eq!(leased.len(), 1, "the job was waiting");
                driver.claim(request)
            }
            _ => driver.claim(request),
        }
    });
    let manager = builder()
        .driver("it", Arc::new(driver))
        .call_limit(Duration::from_secs(3))
        .build()
        .expect("valid");
    manager.enqueue(counted::job(())).expect("stored");
    let running = manager.start().expect("starts");
    wait_until("it runs", || RUNS.load(Ordering::Acquire) == 1);
    running.stop();
}

/// What the first look finds may be a job on its way: here a lease that ends between the two.
#[test]
fn what_is_right_at_the_second_look_of_an_audit_is_no_finding() {
    let inner: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
    let worker = WorkerId::new();
    let lease = |driver: &dyn Driver| {
        let abilities = [AbilityLease { name: "it".into(), grab_for: DEADLINE }];
        let (queue, deadline) = ("default".into(), Deadline::NONE);
        let request = ClaimRequest {
            worker,
            claim: 1,
            queue: &queue,
            abilities: &abilities,
            limit: 1,
            deadline,
            thorough: false,
        };
        assert_eq!(driver.claim(&request).expect("claims").len(), 1);
    };
    let (own, looks) = (Arc::clone(&inner), Arc::new(AtomicUsize::new(0)));
    let seconds = Arc::clone(&looks);
    let driver = FaultyDriver::new(Arc::clone(&inner)).with_fault(move |call| {
        if call == "trace" && seconds.fetch_add(1, Ordering::AcqRel) == 0 {
            assert_eq!(own.release_claim(worker, 1).expect("releases"), 1);
        }
        Ok(())
    });
    let manager = builder().driver("it", Arc::new(driver)).build().expect("valid");
    manager.enqueue(NewJob::named("it", 1.into())).expect("stored");
    // A lease of a worker that has no row.
    lease(&*inner);
    let report = manager.audit(AuditOptions::default());
    assert_eq!(looks.load(Ordering::Acquire), 1, "the first look found it");
    assert!(report.is_clean(), "{report}");
    lease(&*inner);
    assert_eq!(manager.audit(AuditOptions::default()).findings.len(), 1, "it stays");
}
