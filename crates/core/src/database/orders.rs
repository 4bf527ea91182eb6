//! What an operator ordered for a database, stored in the database itself so that every process
//! follows it: drain (no new jobs), pause (no claims, or none of a queue or an ability).

use std::time::Duration;

use super::calls::Call;
use crate::driver::Control;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// How old a process's knowledge may be: an order is followed everywhere within this time.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(5);

/// From this age on they are asked for in the background.
const ASK_AFTER: Duration = FRESH_FOR.checked_div(2).expect("not by zero");

/// What this process knows of a database's orders.
#[derive(Default)]
pub(crate) struct Orders {
    /// With the instant of the question.
    known: Mutex<(Control, Option<Instant>)>,
    /// The question in the background.
    asking: Mutex<Asking>,
}

/// A question in the background. After 5 s without an answer it is taken to hang and given up.
#[derive(Default)]
struct Asking {
    /// How many were asked.
    count: u64,
    /// Since when the last one is, unless it was answered or given up.
    since: Option<Instant>,
    call: Option<Call<()>>,
}

/// What is known of the orders, by its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// They were read a moment ago.
    Fresh(Control),
    /// They may be followed still, and should be asked for.
    Old(Control),
    /// Nobody may follow them while the database can be asked.
    TooOld(Control),
}

impl Orders {
    /// The orders as last read; none before the first time.
    pub(crate) fn known(&self) -> Control {
        self.known.lock().0.clone()
    }

    /// Notes what was answered to a question of this instant, unless a later one was answered before; tells
    /// whether it did.
    pub(crate) fn note(&self, control: Control, begun: Instant) -> bool {
        let mut known = self.known.lock();
        let is_latest = known.1.is_none_or(|latest| latest <= begun);
        if is_latest {
            *known = (control, Some(begun));
        }
        is_latest
    }

    /// The orders as last read, and whether they may be followed.
    pub(crate) fn look(&self) -> Look {
        let (control, read) = self.known.lock().clone();
        match read.map(|at| at.elapsed()) {
            Some(age) if age < ASK_AFTER => Look::Fresh(control),
            Some(age) if age < FRESH_FOR => Look::Old(control),
            _ => Look::TooOld(control),
        }
    }

    /// The number of the question that the caller is to ask; `None` while another is under way.
    pub(crate) fn may_ask(&self) -> Option<u64> {
        self.give_up_what_hangs();
        let mut asking = self.asking.lock();
        if asking.since.is_some() {
            return None;
        }
        asking.count += 1;
        asking.since = Some(Instant::now());
        Some(asking.count)
    }

    /// Keeps the call of this question, unless it is answered or given up already.
    pub(crate) fn keep_asking(&self, number: u64, call: Call<()>) {
        let mut asking = self.asking.lock();
        if asking.count == number && asking.since.is_some() {
            asking.call = Some(call);
        }
    }

    /// Gives up a question without an answer: its helper and its connection may be lost.
    pub(crate) fn give_up_what_hangs(&self) {
        let mut asking = self.asking.lock();
        if asking.since.is_some_and(|since| since.elapsed() >= FRESH_FOR) {
            asking.since = None;
            let call = asking.call.take();
            // Without the lock: an answer that comes at this moment wants it.
            drop(asking);
            if let Some(call) = call {
                call.abandon();
            }
        }
    }

    /// The question of this number has its answer, or none. Tells whether anybody still counts on it.
    pub(crate) fn asked(&self, number: u64) -> bool {
        let mut asking = self.asking.lock();
        let is_current = asking.count == number && asking.since.is_some();
        if is_current {
            (asking.since, asking.call) = (None, None);
        }
        is_current
    }

    /// As if they had been read so long ago.
    #[cfg(test)]
    pub(crate) fn age(&self, by: Duration) {
        self.known.lock().1 = Instant::now().checked_sub(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_followed_for_a_while_and_asked_for_before_they_are_too_old() {
        let orders = Orders::default();
        let none = Control::default;
        assert_eq!(orders.look(), Look::TooOld(none()), "nothing is known");
        let control = Control { draining: true, ..none() };
        orders.note(control.clone(), Instant::now());
        assert_eq!(orders.look(), Look::Fresh(control.clone()));
        orders.age(ASK_AFTER);
        assert_eq!(orders.look(), Look::Old(control.clone()));
        orders.age(FRESH_FOR);
        assert_eq!(orders.look(), Look::TooOld(control.clone()));
        let begun = Instant::now();
        assert!(orders.note(none(), Instant::now()));
        assert!(!orders.note(control, begun));
        assert_eq!(orders.look(), Look::Fresh(none()), "the answer was overtaken");
    }

    #[test]
    fn one_asks_at_a_time_and_another_when_it_hangs() {
        let orders = Orders::default();
        assert_eq!((orders.may_ask(), orders.may_ask()), (Some(1), None));
        assert!(orders.asked(1));
        assert_eq!(orders.may_ask(), Some(2), "the first has its answer");
        orders.asking.lock().since = Instant::now().checked_sub(2 * FRESH_FOR);
        assert_eq!(orders.may_ask(), Some(3), "whoever asked hangs");
        assert!(!orders.asked(2), "nobody counts on it any more");
        assert_eq!(orders.may_ask(), None, "and the next one is under way still");
        assert!(orders.asked(3));
    }
}
