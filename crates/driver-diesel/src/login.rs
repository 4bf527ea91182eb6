//! Logins that are given up when nobody answers.
//!
//! Libraries wait for ever for a server that takes the connection and then says nothing. So each login has
//! a thread of its own, which is left to itself when its time is over and comes back when the server goes
//! on. How many hang is counted: each keeps a thread here and a place in the server's queue.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
#[cfg(feature = "mysql")]
use std::time::Instant;

#[cfg(feature = "mysql")]
use qudo_core::driver::{DriverError, ErrorKind};

#[cfg(feature = "mysql")]
use crate::reach::NoAnswer;

pub(crate) type Connect<C> = Arc<dyn Fn() -> Result<C, String> + Send + Sync>;

/// No more than so many logins hang at once.
const MOST_HANGING: u32 = 10;

/// After so many that hang, whoever wants to know whether the server is back looks first whether it speaks.
#[cfg(feature = "mysql")]
const SOME_HANG: u32 = 2;

/// How often that is looked at; then ever less often.
#[cfg(feature = "mysql")]
const FIRST_LOOK: Duration = Duration::from_secs(15);
#[cfg(feature = "mysql")]
const RAREST_LOOK: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
struct Hanging {
    count: u32,
    /// Grows with each login that succeeds: those that hung before say nothing of the server now.
    generation: u64,
    #[cfg(feature = "mysql")]
    next_look: Option<Instant>,
    #[cfg(feature = "mysql")]
    pause: Duration,
}

/// The logins of one data source.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<Hanging>);

/// What an impatient caller and its thread share.
struct Shared<C> {
    state: Mutex<State<C>>,
    answered: Condvar,
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
    ) -> Result<C, String> {
        let (generation, count) = {
            let hanging = lock(&self.0);
            (hanging.generation, hanging.count)
        };
        if count >= MOST_HANGING {
            return Err(format!("could not connect: {count} logins wait for an answer already"));
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
            .map_err(|error| format!("could not connect: no thread: {error}"))?;
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
                answer
            }
            State::Asked | State::Left => {
                self.note_hanging(generation);
                let seconds = limit.as_secs_f32();
                Err(format!("could not connect: no answer within {seconds} s"))
            }
        }
    }

    fn note_success(&self) {
        let mut hanging = lock(&self.0);
        let generation = hanging.generation + u64::from(hanging.count > 0);
        *hanging = Hanging { generation, ..Hanging::default() };
    }

    fn note_hanging(&self, generation: u64) {
        let mut hanging = lock(&self.0);
        hanging.count += u32::from(hanging.generation == generation);
    }

    fn note_end(&self, generation: u64) {
        let mut hanging = lock(&self.0);
        hanging.count = hanging.count.saturating_sub(u32::from(hanging.generation == generation));
    }

    /// Whether another login may be tried to find out if the server is back, `answers` telling whether it
    /// says its first word. For servers that count broken handshakes, and shut out a host with too many: it
    /// is asked only while logins hang, and ever less often as long as it takes the connection and says
    /// nothing.
    #[cfg(feature = "mysql")]
    pub(crate) fn may_try(
        &self,
        answers: impl FnOnce() -> Result<(), NoAnswer>,
    ) -> Result<(), DriverError> {
        {
            let hanging = lock(&self.0);
            let count = hanging.count;
            if count < SOME_HANG {
                return Ok(());
            }
            if hanging.next_look.is_some_and(|next| Instant::now() < next) {
                let message = format!("could not connect: {count} logins wait for an answer");
                return Err(DriverError::new(ErrorKind::Down, message));
            }
        }
        if let Err(NoAnswer { error, was_accepted }) = answers() {
            let mut hanging = lock(&self.0);
            if was_accepted {
                hanging.pause = (hanging.pause * 2).clamp(FIRST_LOOK, RAREST_LOOK);
                hanging.next_look = Some(Instant::now() + hanging.pause);
            }
            return Err(error);
        }
        // It speaks, so those that still hang wait for a connection that is no more.
        self.note_success();
        Ok(())
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

    fn count(logins: &Logins) -> u32 {
        lock(&logins.0).count
    }

    #[test]
    fn no_more_than_ten_logins_hang_and_those_that_come_back_are_counted_off() {
        let logins = Arc::<Logins>::default();
        let (connect, go) = hangs();
        for _ in 0..20 {
            logins.connect(MOMENT, &connect).expect_err("hangs");
        }
        assert_eq!(count(&logins), MOST_HANGING);
        drop(go);
        let deadline = Instant::now() + SOON;
        while count(&logins) > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(count(&logins), 0);
    }

    #[test]
    fn a_login_that_panics_is_an_error_and_hangs_nowhere() {
        let logins = Arc::<Logins>::default();
        let connect: Connect<u8> = Arc::new(|| panic!("the callback of a password"));
        for _ in 0..20 {
            let error = logins.connect(SOON, &connect).expect_err("panics");
            assert!(error.contains("panicked"), "{error}");
        }
        assert_eq!(count(&logins), 0);
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn a_server_that_hangs_is_looked_at_rarely_and_one_that_speaks_is_tried() {
        let logins = Arc::<Logins>::default();
        let (connect, _go) = hangs();
        for _ in 0..2 {
            logins.may_try(|| panic!("nobody hangs")).expect("may try");
            logins.connect(MOMENT, &connect).expect_err("hangs");
        }
        let none = |was_accepted| {
            let error = DriverError::new(ErrorKind::Down, "nothing");
            Err(NoAnswer { error, was_accepted })
        };
        // Where nobody takes the connection nothing is broken off.
        for _ in 0..2 {
            let error = logins.may_try(|| none(false)).expect_err("unreachable");
            assert_eq!(error.to_string(), "nothing");
        }
        logins.may_try(|| none(true)).expect_err("silent");
        let error = logins.may_try(|| panic!("too soon")).expect_err("waits").to_string();
        assert!(error.contains("2 logins"), "{error}");
        lock(&logins.0).next_look = None;
        logins.may_try(|| Ok(())).expect("speaks");
        assert_eq!(count(&logins), 0, "what hung before does not count");
        let fine: Connect<u8> = Arc::new(|| Ok(7));
        assert_eq!(logins.connect(SOON, &fine), Ok(7));
    }
}
