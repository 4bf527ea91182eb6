//! A method that blocks is called on a thread of a runtime.

#![cfg(feature = "tokio")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use qudo::{Error, JobResult, Manager, NewJob};

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            if line.contains("blocks") {
                WARNINGS.lock().expect("no panic").push(line);
            }
        }
    }

    fn flush(&self) {}
}

fn warnings() -> Vec<String> {
    WARNINGS.lock().expect("no panic").clone()
}

static MANAGER: OnceLock<Manager> = OnceLock::new();

#[qudo::ability]
async fn parent(_job: &qudo::Job) -> JobResult {
    tokio::task::yield_now().await;
    // It stops this worker's own thread and nobody else.
    MANAGER.get().expect("is set").enqueue(NewJob::named("child", 1.into()))?;
    Ok(())
}

#[test]
fn a_call_that_blocks_a_runtime_is_warned_of_once() {
    log::set_logger(&Warnings).expect("the first");
    log::set_max_level(log::LevelFilter::Warn);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
    let manager = Manager::builder()
        .linked(false)
        .database("memory:blocking")
        .ability::<parent>()
        .plugin(runtime.handle().clone())
        .build()
        .expect("valid");
    let send =
        |manager: &Manager| manager.enqueue(NewJob::named("child", 1.into())).expect("stored");

    send(&manager);
    let blocking = manager.clone();
    runtime.block_on(async move {
        // Many, so that one that counted as a task would be noticed.
        let many =
            move || (0..300).for_each(|_| drop(blocking.enqueue(NewJob::named("child", 1.into()))));
        tokio::task::spawn_blocking(many).await.expect("no panic");
    });
    let awaited = manager.clone();
    runtime.block_on(async move {
        awaited.enqueue_async(NewJob::named("child", 1.into())).await.expect("stored");
    });
    MANAGER.set(manager.clone()).expect("is not set");
    let working = manager.start().expect("starts");
    let ran = manager.enqueue(parent::job()).expect("stored");
    ran.ticket().expect("new").wait_done(Duration::from_secs(60)).expect("ran");
    working.stop();
    assert!(warnings().is_empty(), "{:?}", warnings());

    let (first, second) = (manager.clone(), manager.clone());
    runtime.block_on(async move {
        let enqueued = tokio::spawn(async move { first.enqueue(NewJob::named("child", 1.into())) });
        let enqueued = enqueued.await.expect("no panic").expect("stored");
        assert!(matches!(enqueued.wait(Duration::ZERO), Err(Error::WaitTimeout { .. })));
        // The task has its budget still: it need not yield before it is ready.
        let mut polls = 0;
        let counted = std::future::poll_fn(|_| {
            polls += 1;
            second.ticket(enqueued.id().expect("new")).check().expect("answers");
            assert!(tokio::task::coop::has_budget_remaining());
            std::task::Poll::Ready(())
        });
        counted.await;
        assert_eq!(polls, 1);
    });
    let [warning] = &warnings()[..] else { panic!("{:?}", warnings()) };
    assert!(warning.contains("enqueue blocks") && warning.contains("enqueue_async"), "{warning}");
}
