//! Notifications of the manager's own enqueues: after the commit, coalesced, on a thread of their
//! own, because NOTIFY takes a lock of the whole server at commit.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::deserialize;

use super::session::Sessions;
use crate::sql::{Bind, Columns, FromRow};

/// Inside a caller's transaction: heard at its commit. The payload is the queue's name and nothing else, or [`ORDERS`].
pub(super) const NOTIFY: &str = "SELECT pg_notify(?, ?)";

/// The payload that tells of orders. The name of no queue begins with a space.
pub(super) const ORDERS: &str = " orders";

/// By itself: losing it in a crash of the server costs a look `delay` later, so it does not wait
/// for the disk.
const NOTIFY_ALONE: &str =
    "SELECT pg_notify(?, ?) FROM set_config('synchronous_commit', 'off', true)";

/// At most one notification per queue in this time; the first goes out at once.
const COALESCE: Duration = Duration::from_millis(5);

/// After so long without a notification, the next may go with its insert.
const QUIET: Duration = Duration::from_millis(20);

/// How long the end of a client waits for its last notification to be sent.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The result of `pg_notify`, which is void.
pub(super) struct Nothing;

impl FromRow for Nothing {
    fn from_row(_: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self)
    }
}

#[derive(Default)]
struct Pending {
    /// When this process last had something to notify.
    last: Option<Instant>,
    queues: HashSet<String>,
    started: bool,
    sending: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    changed: Condvar,
}

pub(super) struct Notifier {
    shared: Arc<Shared>,
    sessions: Arc<Sessions>,
}

impl Notifier {
    pub(super) fn new(sessions: Arc<Sessions>) -> Self {
        Self { shared: Arc::default(), sessions }
    }

    /// Whether nothing was notified for a while; from now on it is not quiet.
    pub(super) fn is_quiet(&self) -> bool {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = pending.last.is_none_or(|at| at.elapsed() > QUIET);
        pending.last = Some(Instant::now());
        quiet
    }

    pub(super) fn notify(&self, queues: &mut dyn Iterator<Item = &str>) {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = pending.queues.len();
        for queue in queues {
            if !pending.queues.contains(queue) {
                pending.queues.insert(queue.to_owned());
            }
        }
        if pending.queues.is_empty() {
            return;
        }
        let sender_sleeps = waiting == 0 && !pending.sending;
        if !pending.started {
            let (shared, sessions) = (Arc::clone(&self.shared), Arc::clone(&self.sessions));
            let thread = std::thread::Builder::new().name("qudo-notify".to_owned());
            let send_on = move || {
                while catch_unwind(AssertUnwindSafe(|| send(&shared, &sessions))).is_err() {}
            };
            pending.started = thread.spawn(send_on).is_ok();
        }
        // Otherwise it looks here by itself before it sleeps.
        if sender_sleeps {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Notifier {
    /// A client that enqueues and ends must still be heard.
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORD;
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.closed = true;
        self.shared.changed.notify_all();
        while pending.started && (pending.sending || !pending.queues.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn send(shared: &Shared, sessions: &Sessions) {
    loop {
        let queues = {
            let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.sending = false;
            shared.changed.notify_all();
            while pending.queues.is_empty() {
                if pending.closed {
                    return;
                }
                pending = shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            pending.sending = true;
            std::mem::take(&mut pending.queues)
        };
        let sent = sessions.with(false, |conn| {
            let channel = conn.tables.channel();
            for queue in &queues {
                conn.rows::<Nothing>(NOTIFY_ALONE, &[Bind::Text(&channel), Bind::Text(queue)])?;
            }
            Ok(())
        });
        if let Err(error) = sent {
            // The jobs are stored; workers find them at their next regular look.
            log::debug!("cannot notify: {error}");
        }
        std::thread::sleep(COALESCE);
    }
}
