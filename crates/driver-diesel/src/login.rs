//! Logins that are given up when nobody answers.
//!
//! Libraries wait for ever for a server that takes the connection and then says nothing. So each login has
//! a thread of its own, which is left to itself when its time is over and comes back when the server goes
//! on. How many hang is counted: each keeps a thread here and a place in the server's queue.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

pub(crate) type Connect<C> = Arc<dyn Fn() -> Result<C, String> + Send + Sync>;

/// No more than so many logins hang at once.
const MAX_HANGING: u32 = 10;

#[derive(Debug, Default)]
struct Hanging {
    count: u32,
    /// Grows with each login that succeeds: those that hung before say nothing of the server now.
    generation: u64,
}

/// The logins of one data source.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<Hanging>);

/// What an impatient caller and its thread share.
struct Shared<C> {
    state: Mutex<State<C>>,
    answered: Condvar,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoLogin {
    /// It was tried, and this was the answer.
    Failed(String),
    /// Nobody answered.
    Hangs(String),
}

impl NoLogin {
    pub(crate) fn into_message(self) -> String {
        let (Self::Failed(message) | Self::Hangs(message)) = self;
        message
    }
}

enum State<C> {
    Asked,
    Answered(Result<C, String>),
    Left,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Logins {
    /// Connects, or says that nobody answered within the limit.
    pub(crate) fn connect<C: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        connect: &Connect<C>,
    ) -> Result<C, NoLogin> {
        let (generation, count) = {
            let hanging = lock(&self.0);
            (hanging.generation, hanging.count)
        };
        if count >= MAX_HANGING {
            let message = format!("could not connect: {count} logins wait for an answer already");
            return Err(NoLogin::Hangs(message));
        }
        let shared = Arc::new(Shared { state: Mutex::new(State::Asked), answered: Condvar::new() });
        let (ours, theirs, logins) = (Arc::clone(connect), Arc::clone(&shared), Arc::clone(self));
        std::thread::Builder::new()
            .name("qudo-connect".to_owned())
            .spawn(move || {
                // A password may come from code of the user's.
                let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ours()))
                    .unwrap_or_else(|_| Err("could not connect: the login panicked".to_owned()));
                let mut state = lock(&theirs.state);
                if matches!(*state, State::Left) {
                    drop(state);
                    logins.note_end(generation);
                } else {
                    *state = State::Answered(answer);
                    theirs.answered.notify_one();
                }
            })
            .map_err(|error| NoLogin::Failed(format!("could not connect: no thread: {error}")))?;
        let state = lock(&shared.state);
        let waited = shared
            .answered
            .wait_timeout_while(state, limit, |state| matches!(state, State::Asked))
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = waited.0;
        match std::mem::replace(&mut *state, State::Left) {
            State::Answered(answer) => {
                if answer.is_ok() {
                    self.note_success();
                }
                answer.map_err(NoLogin::Failed)
            }
            State::Asked | State::Left => {
                self.note_hanging(generation);
                let seconds = limit.as_secs_f32();
                let message = format!("could not connect: no answer within {seconds} s");
                Err(NoLogin::Hangs(message))
            }
        }
    }

    /// How many hang.
    #[cfg(any(feature = "mysql", test))]
    pub(crate) fn hanging(&self) -> u32 {
        lock(&self.0).count
    }

    /// The server speaks, so those that still hang wait for a connection that is no more.
    pub(crate) fn note_success(&self) {
        let mut hanging = lock(&self.0);
        let generation = hanging.generation + u64::from(hanging.count > 0);
        *hanging = Hanging { generation, count: 0 };
    }

    fn note_hanging(&self, generation: u64) {
        let mut hanging = lock(&self.0);
        hanging.count += u32::from(hanging.generation == generation);
    }

    fn note_end(&self, generation: u64) {
        let mut hanging = lock(&self.0);
        hanging.count = hanging.count.saturating_sub(u32::from(hanging.generation == generation));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const MOMENT: Duration = Duration::from_millis(1);

    /// Logins that hang until they are let go, and how.
    fn hangs() -> (Connect<u8>, mpsc::Sender<()>) {
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let connect: Connect<u8> = Arc::new(move || {
            let _ = lock(&wait).recv();
            Err("cut off".to_owned())
        });
        (connect, go)
    }

    #[test]
    fn no_more_than_ten_logins_hang_and_those_that_come_back_are_counted_off() {
        let logins = Arc::<Logins>::default();
        let (connect, go) = hangs();
        for _ in 0..20 {
            logins.connect(MOMENT, &connect).expect_err("hangs");
        }
        assert_eq!(logins.hanging(), MAX_HANGING);
        drop(go);
        let deadline = Instant::now() + SOON;
        while logins.hanging() > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(logins.hanging(), 0);
    }

    #[test]
    fn a_login_that_panics_is_an_error_and_hangs_nowhere() {
        let logins = Arc::<Logins>::default();
        let connect: Connect<u8> = Arc::new(|| panic!("the callback of a password"));
        for _ in 0..20 {
            let error = logins.connect(SOON, &connect).expect_err("panics").into_message();
            assert!(error.contains("panicked"), "{error}");
        }
        assert_eq!(logins.hanging(), 0);
    }
}
