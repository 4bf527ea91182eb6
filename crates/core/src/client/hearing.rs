//! News of jobs that other processes run, where a database sends them: on one connection for all who wait.
//!
//! Whoever waits looks for itself too, only later: news may be lost, and are heard of processes that listen.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Client;
use crate::database::Database;
use crate::driver::{DriverError, ErrorKind, Heard};
use crate::tools::causes::with_causes;
use crate::tools::random::jitter;
use crate::tools::sync::Mutex;
use crate::tools::threads::{sleep, spawn};
use crate::tools::time::Instant;

/// How long the connection stays after the last wait: the next wait is often not far.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// How often processes that run jobs are asked for news, each time for a minute.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// A broken connection is made anew this soon; each failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A login that is refused does not mend itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// How often a thread that pauses looks whether anybody still waits.
const LOOK_UP: Duration = Duration::from_secs(1);

/// By the place of the database in memory: when somebody was last seen to wait, and which thread listens, which holds the database.
#[derive(Default)]
pub(crate) struct Hearings(Mutex<Listened>);

#[derive(Default)]
struct Listened {
    all: HashMap<usize, (Instant, u64)>,
    /// The number of the thread that was started last.
    threads: u64,
}

fn key(database: &Arc<Database>) -> usize {
    Arc::as_ptr(database) as usize
}

impl Hearings {
    /// How many databases are listened to.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().all.len()
    }

    /// Notes that somebody waits; the number of the thread that is to be started, if none listens.
    fn note(&self, database: &Arc<Database>) -> Option<u64> {
        let mut inner = self.0.lock();
        if let Some((seen, _)) = inner.all.get_mut(&key(database)) {
            *seen = Instant::now();
            return None;
        }
        inner.threads += 1;
        let thread = inner.threads;
        inner.all.insert(key(database), (Instant::now(), thread));
        Some(thread)
    }

    /// Whether anybody waits, or did a short while ago. If not, the thread that asks is no more the one that listens.
    fn is_wanted(&self, database: &Arc<Database>, thread: u64, waits: bool) -> bool {
        let mut inner = self.0.lock();
        let Some((seen, its)) = inner.all.get_mut(&key(database)) else { return false };
        if *its != thread {
            return false;
        }
        if waits {
            *seen = Instant::now();
        }
        let wanted = seen.elapsed() < IDLE_FOR;
        if !wanted {
            inner.all.remove(&key(database));
        }
        wanted
    }

    fn forget(&self, database: &Arc<Database>, thread: u64) {
        let mut inner = self.0.lock();
        if inner.all.get(&key(database)).is_some_and(|(_, its)| *its == thread) {
            inner.all.remove(&key(database));
        }
    }

    /// Whether no database is listened to.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().all.is_empty()
    }
}

/// Somebody waits for a job of this database: its news are heard from now on, if it sends any.
pub(super) fn hear(client: &Arc<Client>, database: &Arc<Database>) {
    if !database.driver().hears_news() {
        return;
    }
    let Some(number) = client.hearings.note(database) else { return };
    let thread = Thread { client: Arc::downgrade(client), database: Arc::clone(database), number };
    if let Err(error) = spawn("qudo-news", move || thread.listen()) {
        log::debug!("no thread can be started that hears news of jobs: {error}");
        client.hearings.forget(database, number);
    }
}

/// The thread that listens to one database.
struct Thread {
    client: Weak<Client>,
    database: Arc<Database>,
    number: u64,
}

impl Drop for Thread {
    /// Also after a panic: the next wait starts another.
    fn drop(&mut self) {
        if let Some(client) = self.client.upgrade() {
            client.hearings.forget(&self.database, self.number);
        }
    }
}

impl Thread {
    fn is_wanted(&self) -> bool {
        self.client.upgrade().is_some_and(|client| self.is_wanted_by(&client))
    }

    fn is_wanted_by(&self, client: &Client) -> bool {
        let waits = client.lookouts.has_waiters(&self.database);
        client.hearings.is_wanted(&self.database, self.number, waits)
    }

    fn listen(&self) {
        let (mut pause, mut was_told) = (FIRST_PAUSE, false);
        while self.is_wanted() {
            if self.database.is_up()
                && let Err(error) = self.listen_once(&mut pause)
            {
                let (name, text) = (&*self.database.name, with_causes(&error));
                if error.kind() == ErrorKind::Permission {
                    if !was_told {
                        log::warn!(
                            "database {name:?}: {text}; it is asked for news of jobs instead"
                        );
                    }
                    (was_told, pause) = (true, REFUSED_PAUSE);
                } else {
                    log::debug!("database {name:?}: news of jobs: {text}");
                }
            }
            let until = Instant::now() + jitter(pause);
            while Instant::now() < until && self.is_wanted() {
                sleep(until.saturating_duration_since(Instant::now()).min(LOOK_UP));
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn listen_once(&self, pause: &mut Duration) -> Result<(), DriverError> {
        let (mut asked, driver) = (Instant::now(), self.database.driver());
        driver.listen_for_news(&mut |heard| {
            let Some(client) = self.client.upgrade() else { return false };
            let waiters = &client.waiters;
            let is_new = matches!(heard, Heard::Connected | Heard::Worker);
            match heard {
                Heard::Connected => *pause = FIRST_PAUSE,
                Heard::Ended(jobs) => waiters.note(jobs),
                Heard::Told(jobs) => waiters.note_news(jobs),
                Heard::Worker | Heard::Tick => {}
            }
            if is_new || asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                driver.ask_for_news();
            }
            self.database.is_up() && self.is_wanted_by(&client)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use qudo_hooks::JobId;

    use super::*;
    use crate::database::set::Databases;
    use crate::fixture::{self, memory};
    use crate::testing::FaultyDriver;
    use crate::tools::sync::mpsc;

    fn eventually(done: impl Fn() -> bool) {
        fixture::eventually("it is heard", done);
    }

    #[test]
    fn who_waits_is_woken_by_what_is_heard_and_workers_are_asked() {
        let (say, said) = mpsc::channel::<Heard>();
        let (said, asked) = (Mutex::new(said), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        let driver = FaultyDriver::new(memory())
            .with_fault(move |call| {
                if call == "ask_for_news" {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
            .with_news(move |on_news| {
                let said = said.lock();
                if !on_news(Heard::Connected) {
                    return Ok(());
                }
                // The connection breaks when nobody is left who says something.
                while let Ok(heard) = said.recv() {
                    if !on_news(heard) {
                        break;
                    }
                }
                Ok(())
            });
        let all = vec![fixture::database("one", Arc::new(driver))];
        let databases = Databases::new(all, None, fixture::settings(fixture::SOON));
        let client = fixture::client(databases);
        let database = Arc::clone(&client.databases.all()[0]);
        hear(&client, &database);
        hear(&client, &database);
        assert_eq!(client.hearings.len(), 1, "one connection for all");
        eventually(|| asked.load(Ordering::SeqCst) == 1);
        say.send(Heard::Worker).expect("listens");
        eventually(|| asked.load(Ordering::SeqCst) == 2);
        // Who waits for the end is not woken by what the job tells.
        let job = JobId::new();
        let mut waits = client.waiters.watch(job);
        let mut reads = client.waiters.watch(job);
        reads.hears = Some(crate::driver::News::nothing(job));
        say.send(Heard::Told(vec![JobId::new(), job])).expect("listens");
        let long = || Instant::now() + Duration::from_secs(60);
        reads.wait_until(long());
        assert!(!waits.has_ended());
        say.send(Heard::Ended(vec![job])).expect("listens");
        waits.wait_until(long());
        // It ends with its client.
        let gone = Arc::downgrade(&client);
        drop((waits, reads));
        drop(client);
        drop(say.send(Heard::Tick));
        eventually(|| gone.strong_count() == 0);
    }

    #[test]
    fn it_is_wanted_while_anybody_waits_and_for_a_while_after() {
        let (hearings, database) = (Hearings::default(), fixture::database("one", memory()));
        let first = hearings.note(&database).expect("nobody listens");
        assert_eq!(hearings.note(&database), None, "somebody does");
        let long_ago = || {
            let past = Instant::now().checked_sub(IDLE_FOR * 2).expect("the machine runs longer");
            hearings.0.lock().all.get_mut(&key(&database)).expect("is there").0 = past;
        };
        long_ago();
        assert!(hearings.is_wanted(&database, first, true), "one wait may take hours");
        assert!(hearings.is_wanted(&database, first, false), "the next is often not far");
        long_ago();
        assert!(!hearings.is_wanted(&database, first, false));
        // Another begins; the first, which may not have ended yet, does not listen beside it.
        let second = hearings.note(&database).expect("nobody listens");
        assert!(!hearings.is_wanted(&database, first, true));
        hearings.forget(&database, first);
        assert!(hearings.is_wanted(&database, second, true));
    }
}
