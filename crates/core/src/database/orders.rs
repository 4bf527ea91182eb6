//! What an operator ordered for a database, stored in the database itself so that every process
//! follows it: drain (no new jobs), pause (no claims).

use std::time::Duration;

use crate::driver::Control;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// How old a process's knowledge may be: an order is followed everywhere within this time.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(5);

/// From this age on one caller asks anew, while the others go on with what is known until it is too old.
const ASK_AFTER: Duration = Duration::from_secs(4);

/// What this process knows of a database's orders.
#[derive(Default)]
pub(crate) struct Orders {
    known: Mutex<(Control, Option<Instant>)>,
    /// Since when a caller asks for the orders; the other callers use what is known. After 5 s that caller
    /// is taken to hang, and another asks.
    asking: Mutex<Option<Instant>>,
}

impl Orders {
    /// The orders as last read; none before the first time.
    pub(crate) fn known(&self) -> Control {
        self.known.lock().0
    }

    pub(crate) fn note(&self, control: Control) {
        *self.known.lock() = (control, Some(Instant::now()));
    }

    /// What was read a moment ago.
    pub(crate) fn fresh(&self) -> Option<Control> {
        let (control, read) = *self.known.lock();
        read.is_some_and(|at| at.elapsed() < ASK_AFTER).then_some(control)
    }

    /// What is known although it gets old, while somebody else asks; else the caller asks. What is too
    /// old nobody goes on with.
    pub(crate) fn old_while_asked(&self) -> Option<Control> {
        let (control, read) = *self.known.lock();
        read.filter(|at| at.elapsed() < FRESH_FOR)?;
        let mut asking = self.asking.lock();
        if asking.is_some_and(|since| since.elapsed() < FRESH_FOR) {
            return Some(control);
        }
        *asking = Some(Instant::now());
        None
    }

    /// Whoever asked has its answer, or none.
    pub(crate) fn asked(&self) {
        *self.asking.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_for_old_orders_and_the_others_use_what_is_known() {
        let orders = Orders::default();
        assert!(orders.old_while_asked().is_none(), "nothing is known, so everybody asks");
        assert!(orders.old_while_asked().is_none());
        let since = |age| Instant::now().checked_sub(age).expect("a running machine");
        orders.known.lock().1 = Some(since(2 * FRESH_FOR));
        orders.asked();
        assert!(orders.old_while_asked().is_none(), "it is too old for anybody");
        assert!(orders.old_while_asked().is_none());
        orders.known.lock().1 = Some(since(ASK_AFTER));
        orders.asked();
        assert!(orders.fresh().is_none());
        assert!(orders.old_while_asked().is_none(), "the first asks");
        assert!(orders.old_while_asked().is_some(), "the second need not");
        orders.asked();
        assert!(orders.old_while_asked().is_none(), "it failed, so the next asks");
        *orders.asking.lock() = Some(since(2 * FRESH_FOR));
        assert!(orders.old_while_asked().is_none(), "whoever asked hangs");
    }
}
