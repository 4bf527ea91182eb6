//! Runs that ended and wait for their settler.

use crate::driver::Settlement;
use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// One statement settles at most so many: enough for full effect, short enough not to block.
const LARGEST_GROUP: usize = 1_000;

/// What the runs of one statement bring has about so many bytes at most, unless one alone has more.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The bytes that a settlement keeps in memory: its argument, replies, and the jobs that replace it.
pub(crate) fn weight(settlement: &Settlement) -> usize {
    let extras = settlement.extras.as_ref().map_or(0, |extras| {
        let replies = extras.replies.iter().map(|reply| reply.body.len());
        replies.chain(extras.replacements.iter().map(|job| job.arg.len())).sum()
    });
    settlement.job.arg.len() + extras
}

/// Runs that ended and wait to be settled.
///
/// Group commit without a timer: while one group is on its way, the next one gathers. Idle, a
/// single job is settled at once; busy, hundreds share a commit.
#[derive(Default)]
pub(crate) struct SettleQueue {
    inner: Mutex<Pending>,
    filled: Condvar,
}

/// What [`SettleQueue::take`] found.
pub(crate) enum Taken {
    /// Runs to settle.
    Group(Vec<Settlement>),
    /// None came in the time.
    Nothing,
    /// None is left, and none will come.
    Closed,
}

#[derive(Default)]
struct Pending {
    settlements: Vec<Settlement>,
    /// The bytes of all of them.
    bytes: usize,
    /// The bytes of what the settler has taken.
    taken: usize,
    /// The bytes of what it has put aside.
    parked: usize,
    settler_waits: bool,
    /// The settler has taken something and not come back since.
    settling: bool,
    closed: bool,
}

impl Pending {
    /// How many of those that wait go together.
    fn group(&self) -> usize {
        let most = self.settlements.len().min(LARGEST_GROUP);
        if self.bytes <= MOST_BYTES {
            return most;
        }
        let mut bytes = 0;
        let fits = self.settlements[..most].iter().take_while(|one| {
            bytes += weight(one);
            bytes <= MOST_BYTES
        });
        fits.count().max(1)
    }
}

impl SettleQueue {
    pub(crate) fn push(&self, settlement: Settlement) {
        let bytes = weight(&settlement);
        let mut pending = self.inner.lock();
        pending.bytes += bytes;
        pending.settlements.push(settlement);
        // The settler is woken once per group, not once per job.
        if std::mem::take(&mut pending.settler_waits) {
            self.filled.notify_one();
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_one();
    }

    /// The bytes of what came and is not settled yet.
    pub(crate) fn bytes(&self) -> usize {
        let pending = self.inner.lock();
        pending.bytes + pending.taken + pending.parked
    }

    /// Counts bytes that the settler puts aside, or takes up again.
    pub(crate) fn note_parked(&self, bytes: isize) {
        let mut pending = self.inner.lock();
        pending.parked = pending.parked.saturating_add_signed(bytes);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().settlements.is_empty()
    }

    /// Whether all that came is settled.
    pub(crate) fn is_idle(&self) -> bool {
        let pending = self.inner.lock();
        pending.settlements.is_empty() && !pending.settling
    }

    /// Blocks until there is something, or until then.
    pub(crate) fn take(&self, until: Option<Instant>) -> Taken {
        let mut pending = self.inner.lock();
        (pending.settling, pending.taken) = (false, 0);
        loop {
            if !pending.settlements.is_empty() {
                pending.settling = true;
                let group = pending.group();
                pending.taken = pending.settlements[..group].iter().map(weight).sum();
                pending.bytes -= pending.taken;
                let tail = pending.settlements.split_off(group);
                return Taken::Group(std::mem::replace(&mut pending.settlements, tail));
            }
            if pending.closed {
                return Taken::Closed;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Taken::Nothing;
            }
            pending.settler_waits = true;
            match left {
                Some(left) => drop(self.filled.wait_for(&mut pending, left)),
                None => self.filled.wait(&mut pending),
            }
        }
    }
}
