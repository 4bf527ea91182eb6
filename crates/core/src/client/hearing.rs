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

/// The connection stays so long after the last wait: the next is often not far.
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Processes that run jobs are asked so often, each time for a minute.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// A broken connection is made anew this soon; each failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// One whose login is refused does not mend itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// A thread that pauses looks so often whether anybody waits still.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Since when nobody began to wait, by the place of the database in memory: each thread holds its own.
#[derive(Default)]
pub(crate) struct Hearings(Mutex<HashMap<usize, Instant>>);

fn key(database: &Arc<Database>) -> usize {
    Arc::as_ptr(database) as usize
}

impl Hearings {
    /// How many databases are listened to.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether somebody waited a short while ago; the thread ends otherwise.
    fn is_wanted(&self, database: &Arc<Database>) -> bool {
        let mut all = self.0.lock();
        let wanted = all.get(&key(database)).is_some_and(|at| at.elapsed() < IDLE_FOR);
        if !wanted {
            all.remove(&key(database));
        }
        wanted
    }
}

/// Somebody waits for a job of this database: its news are heard from now on, if it sends any.
pub(super) fn hear(client: &Arc<Client>, database: &Arc<Database>) {
    if !database.driver().hears_news() {
        return;
    }
    let is_heard = client.hearings.0.lock().insert(key(database), Instant::now()).is_some();
    if is_heard {
        return;
    }
    let (of, at) = (Arc::downgrade(client), Arc::clone(database));
    if let Err(error) = spawn("qudo-news", move || listen(&of, &at)) {
        log::debug!("no thread can be started that hears news of jobs: {error}");
        client.hearings.0.lock().remove(&key(database));
    }
}

fn listen(client: &Weak<Client>, database: &Arc<Database>) {
    let is_wanted = || client.upgrade().is_some_and(|client| client.hearings.is_wanted(database));
    let (mut pause, mut was_told) = (FIRST_PAUSE, false);
    while is_wanted() {
        if database.is_up() {
            let ended = listen_once(client, database, &mut pause);
            if let Err(error) = ended {
                let (name, text) = (&*database.name, with_causes(&error));
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
        }
        let until = Instant::now() + jitter(pause);
        while Instant::now() < until && is_wanted() {
            sleep(until.saturating_duration_since(Instant::now()).min(LOOK_UP));
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

fn listen_once(
    client: &Weak<Client>,
    database: &Arc<Database>,
    pause: &mut Duration,
) -> Result<(), DriverError> {
    let mut asked = Instant::now();
    database.driver().listen_for_news(&mut |heard| {
        let Some(client) = client.upgrade() else { return false };
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
            database.driver().ask_for_news();
        }
        database.is_up() && client.hearings.is_wanted(database)
    })
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
}
