//! What an operator ordered for a database, stored in the database itself so that every process
//! follows it: drain (no new jobs), pause (no claims).

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
    /// The question in the background, and since when. After 5 s it is taken to hang and given up.
    asking: Mutex<Option<(Instant, Option<Call<()>>)>>,
}

/// What is known of the orders, by its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        self.known.lock().0
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
        let (control, read) = *self.known.lock();
        match read.map(|at| at.elapsed()) {
            Some(age) if age < ASK_AFTER => Look::Fresh(control),
            Some(age) if age < FRESH_FOR => Look::Old(control),
            _ => Look::TooOld(control),
        }
    }

    /// Whether the caller is to ask for them: nobody else does.
    pub(crate) fn may_ask(&self) -> bool {
        self.give_up_what_hangs();
        let mut asking = self.asking.lock();
        let may = asking.is_none();
        if may {
            *asking = Some((Instant::now(), None));
        }
        may
    }

    /// Keeps the question that was begun, unless it is answered already.
    pub(crate) fn keep_asking(&self, call: Call<()>) {
        if let Some((_, kept)) = &mut *self.asking.lock() {
            *kept = Some(call);
        }
    }

    /// Gives up a question without an answer, which would count against the helpers and make the database look
    /// slow for as long as its connection says nothing.
    pub(crate) fn give_up_what_hangs(&self) {
        let hangs = |(since, _): &mut (Instant, Option<Call<()>>)| since.elapsed() >= FRESH_FOR;
        // Without the lock: an answer that comes at this moment wants it.
        let given_up = self.asking.lock().take_if(hangs);
        if let Some((_, Some(call))) = given_up {
            call.abandon();
        }
    }

    /// Whoever asked has its answer, or none.
    pub(crate) fn asked(&self) {
        *self.asking.lock() = None;
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
        let none = Control::default();
        assert_eq!(orders.look(), Look::TooOld(none), "nothing is known");
        let control = Control { draining: true, ..none };
        orders.note(control, Instant::now());
        assert_eq!(orders.look(), Look::Fresh(control));
        orders.age(ASK_AFTER);
        assert_eq!(orders.look(), Look::Old(control));
        orders.age(FRESH_FOR);
        assert_eq!(orders.look(), Look::TooOld(control));
        let begun = Instant::now();
        assert!(orders.note(none, Instant::now()));
        assert!(!orders.note(control, begun));
        assert_eq!(orders.look(), Look::Fresh(none), "the answer was overtaken");
    }

    #[test]
    fn one_asks_at_a_time_and_another_when_it_hangs() {
        let orders = Orders::default();
        assert!(orders.may_ask() && !orders.may_ask());
        orders.asked();
        assert!(orders.may_ask(), "the first has its answer");
        *orders.asking.lock() = Instant::now().checked_sub(2 * FRESH_FOR).map(|at| (at, None));
        assert!(orders.may_ask(), "whoever asked hangs");
    }
}
