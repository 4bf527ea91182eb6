//! One answer from one thread to another, which may leave before it comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::sync::{Condvar, Mutex};
use super::threads::give_way;
use super::time::Instant;

/// An answer of type `T` that somebody waits for; while it is being made, `M` says what is known of that.
pub(crate) struct Reply<T, M = ()> {
    state: Mutex<State<T, M>>,
    answered: Condvar,
    /// The same as the state says, to be looked at without the lock.
    is_answered: AtomicBool,
}

enum State<T, M> {
    Waiting,
    Begun(M),
    Answered(T),
    Left,
}

/// What whoever leaves leaves behind.
pub(crate) enum Departure<T> {
    /// Nobody had begun, and nobody will.
    InTime,
    /// It is being made.
    Begun,
    /// It came at the last moment.
    Answered(T),
}

impl<T, M> Default for Reply<T, M> {
    fn default() -> Self {
        let (state, answered) = (Mutex::new(State::Waiting), Condvar::new());
        Self { state, answered, is_answered: AtomicBool::new(false) }
    }
}

impl<T, M> Reply<T, M> {
    /// Notes that the answer is being made; `false` when it is already, or nobody waits any more.
    pub(crate) fn begin(&self, make: impl FnOnce() -> M) -> bool {
        let mut state = self.state.lock();
        let waits = matches!(*state, State::Waiting);
        if waits {
            *state = State::Begun(make());
        }
        waits
    }

    /// Changes what is known of an answer that is being made and waited for.
    pub(crate) fn renew(&self, change: impl FnOnce(&mut M)) {
        if let State::Begun(known) = &mut *self.state.lock() {
            change(known);
        }
    }

    /// Whether the answer was begun, and is still waited for.
    pub(crate) fn is_wanted(&self) -> bool {
        matches!(*self.state.lock(), State::Begun(_))
    }

    /// Hands the answer over, after `end`; gives it back when nobody waits any more.
    pub(crate) fn answer(&self, answer: T, end: impl FnOnce(M)) -> Option<T> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Left) {
            State::Begun(known) => end(known),
            other => {
                *state = other;
                return Some(answer);
            }
        }
        *state = State::Answered(answer);
        drop(state);
        self.is_answered.store(true, Ordering::Release);
        self.answered.notify_one();
        None
    }

    /// Waits awake for the answer, for so long at most: for one that is about to come, because a thread that
    /// sleeps is woken tens of microseconds after it. Whoever else wants the processor gets it.
    pub(crate) fn look_out(&self, at_most: Duration) {
        let begun = Instant::now();
        while !self.is_answered.load(Ordering::Acquire) && begun.elapsed() < at_most {
            give_way();
        }
    }

    /// Waits for the answer until then, or for ever; `None` when the time is over.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if matches!(*state, State::Answered(_))
                && let State::Answered(answer) = std::mem::replace(&mut *state, State::Left)
            {
                return Some(answer);
            }
            match until {
                Some(until) if Instant::now() >= until => return None,
                Some(until) => drop(self.answered.wait_until(&mut state, until)),
                None => self.answered.wait(&mut state),
            }
        }
    }

    /// Leaves without waiting; if the answer is being made, `end` learns what is known of that.
    pub(crate) fn leave(&self, end: impl FnOnce(M)) -> Departure<T> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Left) {
            State::Begun(known) => {
                end(known);
                Departure::Begun
            }
            State::Answered(answer) => Departure::Answered(answer),
            State::Waiting | State::Left => Departure::InTime,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_answer_reaches_who_waits_and_is_given_back_when_nobody_does() {
        let reply = Arc::new(Reply::<u8>::default());
        let maker = Arc::clone(&reply);
        let made = std::thread::spawn(move || {
            assert!(maker.begin(|| ()));
            maker.answer(7, |()| {})
        });
        assert_eq!(reply.wait(None), Some(7));
        assert_eq!(made.join().expect("ends"), None);
        let reply = Reply::<u8>::default();
        assert!(reply.begin(|| ()));
        assert!(reply.is_wanted());
        assert!(!reply.begin(|| ()), "it is being made");
        assert!(matches!(reply.leave(|()| {}), Departure::Begun));
        assert!(!reply.is_wanted());
        assert_eq!(reply.answer(7, |()| {}), Some(7));
    }

    #[test]
    fn whoever_looks_out_for_the_answer_does_so_until_it_is_there_and_no_longer_than_told() {
        let reply = Arc::new(Reply::<u8>::default());
        let begun = Instant::now();
        reply.look_out(Duration::from_millis(5));
        assert!(begun.elapsed() >= Duration::from_millis(5));
        let maker = Arc::clone(&reply);
        let made =
            std::thread::spawn(move || maker.begin(|| ()) && maker.answer(7, |()| {}).is_none());
        reply.look_out(Duration::from_secs(20));
        assert_eq!(reply.wait(Some(begun)), Some(7), "it is there");
        assert!(made.join().expect("ends"));
    }

    #[test]
    fn who_leaves_before_it_begins_keeps_it_from_beginning() {
        let reply = Reply::<u8>::default();
        let until = Instant::now() + Duration::from_millis(5);
        assert_eq!(reply.wait(Some(until)), None);
        assert!(matches!(reply.leave(|()| {}), Departure::InTime));
        assert!(!reply.begin(|| ()));
        let reply = Reply::<u8>::default();
        reply.begin(|| ());
        reply.answer(7, |()| {});
        assert!(matches!(reply.leave(|()| {}), Departure::Answered(7)));
    }
}
