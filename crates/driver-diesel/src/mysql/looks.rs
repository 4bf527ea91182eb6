//! Looks whether a server speaks again, while logins hang.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qudo_core::driver::{DriverError, ErrorKind};

use crate::login::{Connect, Logins, NoLogin};

/// While fewer logins hang, another login finds out.
const SOME_HANG: u32 = 2;

/// How long it is waited for a look; it goes on then by itself.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause after a look that hangs; then it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// The looks at one server.
///
/// Logins that hang are at most ten, so that they tell nothing any more once their connections are dead, as
/// after a cut in the network. A new look does; it becomes rarer as long as the server takes connections and
/// says nothing, because each keeps a thread here and a place in the server's queue.
pub(super) struct Looks {
    look: Connect<()>,
    hanging: Arc<Logins>,
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    next: Option<Instant>,
    pause: Duration,
}

impl Looks {
    pub(super) fn new(look: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { look: Arc::new(look), hanging: Arc::default(), pace: Mutex::default() }
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another of these logins may be tried to find out if the server is back.
    ///
    /// # Errors
    ///
    /// If some hang, and a look says that the server does not speak, or it is too early for one.
    pub(super) fn may_try(&self, logins: &Logins) -> Result<(), DriverError> {
        let count = logins.hanging();
        if count < SOME_HANG {
            return Ok(());
        }
        let down = |message| DriverError::new(ErrorKind::Down, message);
        if self.pace().next.is_some_and(|next| Instant::now() < next) {
            return Err(down(format!("could not connect: {count} logins wait for an answer")));
        }
        match self.hanging.connect(LIMIT, &self.look) {
            Ok(()) => {
                *self.pace() = Pace::default();
                logins.note_success();
                Ok(())
            }
            Err(NoLogin::Failed(message)) => Err(down(message)),
            Err(NoLogin::Hangs(message)) => {
                let mut pace = self.pace();
                pace.pause = (pace.pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
                pace.next = Some(Instant::now() + pace.pause);
                Err(down(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_server_that_hangs_is_looked_at_rarely_and_one_that_speaks_is_tried() {
        let logins = Arc::<Logins>::default();
        let (_go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let hangs: Connect<()> = Arc::new(move || {
            let _ = wait.lock().map(|wait| wait.recv());
            Ok(())
        });
        let count = Arc::new(AtomicU32::new(0));
        // What the next looks find.
        let says = Arc::new(Mutex::new(Err("refused".to_owned())));
        let (counted, said) = (Arc::clone(&count), Arc::clone(&says));
        let looks = Looks::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            said.lock().expect("no panic").clone()
        });
        let looked = || count.load(Ordering::Relaxed);
        for _ in 0..SOME_HANG {
            looks.may_try(&logins).expect("a login finds out");
            logins.connect(MOMENT, &hangs).expect_err("hangs");
        }
        assert_eq!(looked(), 0);
        for again in 1..4 {
            let error = looks.may_try(&logins).expect_err("unreachable").to_string();
            assert!(error.contains("refused") && looked() == again, "{error}");
        }
        // One that hangs is not waited for by the next.
        looks.pace().next = Some(Instant::now() + FIRST_PAUSE);
        let error = looks.may_try(&logins).expect_err("too early").to_string();
        assert!(error.contains("2 logins") && looked() == 3, "{error}");
        *says.lock().expect("no panic") = Ok(());
        looks.pace().next = None;
        looks.may_try(&logins).expect("speaks");
        assert_eq!(logins.hanging(), 0, "what hung before does not count");
    }
}
