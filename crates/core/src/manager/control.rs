//! What an operator ordered for a database, stored in the database itself so that every process
//! follows it: drain (no new jobs), pause (no claims).

use crate::tools::sync::Mutex;
use crate::tools::time::Instant;
use std::sync::Arc;
use std::time::Duration;

use super::Manager;
use super::database::Database;
use crate::Error;
use crate::driver::{Control, ControlFlag, Deadline, DriverError};

/// How old a process's knowledge may be: an order is followed everywhere within this time.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(5);

/// From this age on one caller asks anew, while the others go on with what is known until it is too old.
const ASK_AFTER: Duration = Duration::from_secs(4);

/// What this process knows of a database's orders.
#[derive(Default)]
pub(super) struct Controls {
    known: Mutex<(Control, Option<Instant>)>,
    /// Since when a caller asks for the orders; the other callers use what is known. After 5 s that caller
    /// is taken to hang, and another asks.
    asking: Mutex<Option<Instant>>,
}

impl Controls {
    /// The orders as last read; none before the first time.
    pub(super) fn known(&self) -> Control {
        self.known.lock().0
    }

    pub(super) fn note(&self, control: Control) {
        *self.known.lock() = (control, Some(Instant::now()));
    }

    fn fresh(&self) -> Option<Control> {
        let (control, read) = *self.known.lock();
        read.is_some_and(|at| at.elapsed() < ASK_AFTER).then_some(control)
    }

    /// What is known although it gets old, while somebody else asks; else the caller asks. What is too
    /// old nobody goes on with.
    fn old_while_asked(&self) -> Option<Control> {
        let (control, read) = *self.known.lock();
        read.filter(|at| at.elapsed() < FRESH_FOR)?;
        let mut asking = self.asking.lock();
        if asking.is_some_and(|since| since.elapsed() < FRESH_FOR) {
            return Some(control);
        }
        *asking = Some(Instant::now());
        None
    }

    fn asked(&self) {
        *self.asking.lock() = None;
    }
}

impl Database {
    /// The orders, asked anew when they are old. Those of a database that is down are the last
    /// that are known.
    pub(super) fn control(self: &Arc<Self>) -> Result<Control, DriverError> {
        self.control_within(self.limit())
    }

    /// As [`control`](Self::control), within a time of the caller's.
    pub(super) fn control_within(
        self: &Arc<Self>,
        limit: Duration,
    ) -> Result<Control, DriverError> {
        if let Some(control) = self.controls.fresh() {
            return Ok(control);
        }
        if !self.is_up() {
            return Ok(self.controls.known());
        }
        // When they get old, all threads that enqueue would ask at once, in the line of the heartbeats.
        if let Some(control) = self.controls.old_while_asked() {
            return Ok(control);
        }
        // A question only: nothing can have been stored by it.
        let epoch = self.epoch();
        let asked = self.calls.begin(|driver| driver.control(), Box::new(|_, _| {})).wait(limit);
        self.controls.asked();
        // Who waited for less than a call may take has no reason for suspicion.
        if let Err(error) = &asked
            && !(error.is_hung() && limit < self.limit())
        {
            self.note_error(error, epoch);
        }
        let control = asked.map_err(|error| error.ambiguous(false))?;
        self.note_control(control)?;
        Ok(control)
    }

    fn order(self: &Arc<Self>, flag: ControlFlag, on: bool) -> Result<(), Error> {
        // Were it carried out after its time, it could undo an order that came later.
        let deadline = Deadline::within(self.limit());
        let ordered = move |driver: &dyn crate::Driver| {
            driver.set_control(flag, on, deadline)?;
            driver.control()
        };
        if let Some(reason) = self.reason().filter(|_| !self.is_removed()) {
            return Err(Error::DatabaseDown { database: self.name.to_string(), reason });
        }
        let failed = |error| Error::database(&self.name, "store an order", error);
        let control = self.ask(ordered).map_err(failed)?;
        self.note_control(control).map_err(failed)?;
        let word = if on { "now" } else { "no longer" };
        log::info!("database {:?} is {word} {}", &*self.name, flag.as_str());
        self.bell.ring();
        Ok(())
    }
}

impl Manager {
    /// Drains a database: new jobs go to the others, while those it has are worked as before or
    /// handed over with [`move_jobs`](Self::move_jobs). The order is stored in the database; every
    /// process follows it within 5 seconds, and a new one from its start.
    ///
    /// Jobs that name the database are refused. Unique keys move to their next home; while the
    /// database is drained, it is asked first whether it still holds the key. During the 5 seconds
    /// until all processes know, a key may be taken in both places.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn drain(&self, database: &str) -> Result<(), Error> {
        self.find(database)?.order(ControlFlag::Draining, true)
    }

    /// Ends [`drain`](Self::drain): the database takes new jobs again.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn undrain(&self, database: &str) -> Result<(), Error> {
        self.find(database)?.order(ControlFlag::Draining, false)
    }

    /// Pauses a database: its jobs wait, and it takes new ones. Running jobs end as usual. The
    /// order is stored in the database; every process follows it within 5 seconds or at its next
    /// heartbeat, whichever is later.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn pause(&self, database: &str) -> Result<(), Error> {
        self.find(database)?.order(ControlFlag::Paused, true)
    }

    /// Ends [`pause`](Self::pause): the database's jobs are worked again.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn resume(&self, database: &str) -> Result<(), Error> {
        self.find(database)?.order(ControlFlag::Paused, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asks_for_old_orders_and_the_others_use_what_is_known() {
        let controls = Controls::default();
        assert!(controls.old_while_asked().is_none(), "nothing is known, so everybody asks");
        assert!(controls.old_while_asked().is_none());
        let since = |age| Instant::now().checked_sub(age).expect("a running machine");
        controls.known.lock().1 = Some(since(2 * FRESH_FOR));
        controls.asked();
        assert!(controls.old_while_asked().is_none(), "it is too old for anybody");
        assert!(controls.old_while_asked().is_none());
        controls.known.lock().1 = Some(since(ASK_AFTER));
        controls.asked();
        assert!(controls.fresh().is_none());
        assert!(controls.old_while_asked().is_none(), "the first asks");
        assert!(controls.old_while_asked().is_some(), "the second need not");
        controls.asked();
        assert!(controls.old_while_asked().is_none(), "it failed, so the next asks");
        *controls.asking.lock() = Some(since(2 * FRESH_FOR));
        assert!(controls.old_while_asked().is_none(), "whoever asked hangs");
    }
}
