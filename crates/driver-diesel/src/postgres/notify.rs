//! Notifications of the manager's own enqueues: after the commit, coalesced, on a thread of their
//! own, because NOTIFY takes a lock of the whole server at commit.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::deserialize;
use qudo_core::driver::Tidings;

use super::news::Untold;
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

/// The payload that [asks for news](qudo_core::driver::Wakes::ask_for_news).
pub(super) const ASKED: &str = " asked";

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
    news: Untold,
    started: bool,
    sending: bool,
    closed: bool,
}

/// What is sent at once.
struct Words {
    queues: HashSet<String>,
    /// The payloads for the channel of news.
    news: Vec<String>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.news.is_empty()
    }

    fn take(&mut self) -> Words {
        Words { queues: std::mem::take(&mut self.queues), news: self.news.take() }
    }
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
        self.add(|pending| {
            for queue in queues {
                if !pending.queues.contains(queue) {
                    pending.queues.insert(queue.to_owned());
                }
            }
        });
    }

    /// For those who wait for jobs of this process.
    pub(super) fn tell(&self, tidings: Tidings<'_>) {
        self.add(|pending| pending.news.add(tidings));
    }

    fn add(&self, add: impl FnOnce(&mut Pending)) {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = pending.is_empty();
        add(&mut pending);
        if pending.is_empty() {
            return;
        }
        let sender_sleeps = was_empty && !pending.sending;
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

impl Notifier {
    /// Waits, for so long at most, until all is sent.
    pub(super) fn say_last(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while pending.started && (pending.sending || !pending.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Notifier {
    /// A client that enqueues and ends must still be heard.
    fn drop(&mut self) {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.changed.notify_all();
        self.say_last(LAST_WORD);
    }
}

fn send(shared: &Shared, sessions: &Sessions) {
    loop {
        let words = {
            let mut pending = shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.sending = false;
            shared.changed.notify_all();
            while pending.is_empty() {
                if pending.closed {
                    return;
                }
                pending = shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            pending.sending = true;
            pending.take()
        };
        let sent = sessions.with(false, |conn| {
            let (channel, news) = (conn.tables.channel(), conn.tables.news_channel());
            for queue in &words.queues {
                conn.rows::<Nothing>(NOTIFY_ALONE, &[Bind::Text(&channel), Bind::Text(queue)])?;
            }
            for payload in &words.news {
                let Some(news) = &news else { break };
                conn.rows::<Nothing>(NOTIFY_ALONE, &[Bind::Text(news), Bind::Text(payload)])?;
            }
            Ok(())
        });
        if let Err(error) = sent {
            // The jobs are stored; workers find them at their next regular look, and so do those who wait.
            log::debug!("cannot notify: {error}");
        }
        std::thread::sleep(COALESCE);
    }
}
