//! Where the next claim of a queue looks.
//!
//! Claimed rows are deleted, but on servers with versions of rows they stay in the index until
//! vacuum or purge. A claim from the start of the queue steps over all of them, more with every
//! claim while some long transaction holds vacuum back. So a claim starts after the last row of
//! the one before, and from the start again every so often, for jobs of higher priority and for
//! retries, whose ids are older.
//!
//! While looks at the start are cheap, a claim that finds too few behind the cursor looks there as
//! well. Once two looks at the start in a row were dear, the queue is [looked at in parts](crate::dear).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use qudo_core::driver::Name;

use crate::dear::Dear;
use crate::plan::{Found, Place, Plan, Reason, Span};
use crate::share::{is_dear, its_share};

/// Claims look at the start of the queue this often while that is cheap: how long a job of higher priority
/// waits at most behind the cursor then.
const FROM_START_EVERY: Duration = Duration::from_millis(100);

/// A queue whose start is cheap and whose backlog is worked.
struct Backlog {
    /// The last row of a full claim.
    after: Place,
    from_start_at: Instant,
}

enum State {
    Backlog(Backlog),
    /// One look at the start was dear, and over at this time of the server. It may have waited for something else, and
    /// so may one that was made at the same time.
    Once {
        ended: i64,
    },
    Dear(Box<Dear>),
}

/// The cursors of one database, by queue.
#[derive(Default)]
pub(crate) struct Cursors(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    states: HashMap<Name, State>,
    /// When the last claim that failed was over, by the server's clock. What it looked at is still there, and a claim
    /// that was made at the same time went over it.
    failed: HashMap<Name, i64>,
}

impl Cursors {
    /// Where the next claim of this queue looks; a thorough one sees all of it before it answers that
    /// nothing is ready.
    pub(crate) fn plan(&self, queue: &str, thorough: bool) -> Plan {
        let plan = self.usual_plan(queue);
        if thorough { plan.thorough() } else { plan }
    }

    fn usual_plan(&self, queue: &str) -> Plan {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (Span::Whole, Reason::Start);
        match cursors.states.get(queue) {
            Some(State::Dear(dear)) => dear.plan(),
            Some(State::Backlog(backlog)) if Instant::now() < backlog.from_start_at => {
                Plan(vec![(Span::Behind(backlog.after), Reason::Cursor), start])
            }
            _ => Plan(vec![start]),
        }
    }

    /// Whether the start of one of these queues is dear.
    pub(crate) fn are_dear(&self, queues: &[&str]) -> bool {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().any(|queue| matches!(cursors.states.get(*queue), Some(State::Dear(_))))
    }

    /// Notes what a claim found.
    pub(crate) fn note(&self, queue: &Name, found: &Found<'_>) {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Queues { states: cursors, failed } = &mut *queues;
        let last = found.rows.last().copied();
        if found.failed {
            failed.insert(queue.clone(), found.ended());
        } else if failed.get(queue).is_some_and(|until| found.now >= *until) {
            failed.remove(queue);
        }
        if let Some(State::Dear(dear)) = cursors.get_mut(queue) {
            if dear.note(found) {
                cursors.remove(queue);
            }
            return;
        }
        let mut looks = found.plan.0.iter().zip(found.looks);
        let start = looks.rfind(|((_, reason), _)| *reason == Reason::Start);
        let start = start.map(|(_, look)| look.for_nothing());
        match (start, cursors.get_mut(queue), last) {
            // A full claim is as long as its rows take.
            (Some(took), _, Some(after)) if found.full && !found.failed => {
                let usual = its_share(took).max(Instant::now() + FROM_START_EVERY);
                let from_start_at = if failed.contains_key(queue) { Instant::now() } else { usual };
                let backlog = Backlog { after, from_start_at };
                cursors.insert(queue.clone(), State::Backlog(backlog));
            }
            (Some(took), state, _) if is_dear(took, found.round_trip) => {
                // Of several looks at one time the first counts, or looks that overlap for ever would never count.
                let now = match state {
                    Some(State::Once { ended }) if found.now >= *ended => {
                        State::Dear(Box::new(Dear::new(found)))
                    }
                    // The server's clock may have gone back since.
                    Some(State::Once { ended }) => State::Once { ended: found.ended().min(*ended) },
                    _ => State::Once { ended: found.ended() },
                };
                cursors.insert(queue.clone(), now);
            }
            (_, Some(State::Backlog(backlog)), _) if found.failed => {
                backlog.from_start_at = Instant::now();
            }
            _ if found.failed => {}
            (Some(_), _, _) => drop(cursors.remove(queue)),
            // Of two claims at a time the one with the later rows may come back first, and a look at the start may
            // have moved the cursor back meanwhile.
            (None, Some(State::Backlog(backlog)), Some(after))
                if found.behind().is_some_and(|begun| backlog.after >= begun) =>
            {
                backlog.after = backlog.after.max(after);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use uuid::Uuid;

    use super::*;
    use crate::plan::Look;

    const QUEUE: &str = "mail";

    /// The server's clock: each claim begins when the one before is over.
    static NOW: AtomicI64 = AtomicI64::new(1_795_000_000_000_000);

    /// A claim of which each look takes so many milliseconds.
    fn claim(cursors: &Cursors, took: u64, rows: &[Place], full: bool) -> Plan {
        let plan = cursors.plan(QUEUE, false);
        let look = Look { took: Duration::from_millis(took), rows: rows.len(), bytes: 0 };
        let looks = vec![look; plan.0.len()];
        let found = Found {
            plan: &plan,
            looks: &looks,
            rows,
            full,
            failed: false,
            now: NOW.fetch_add(100_000_000, Ordering::Relaxed),
            round_trip: Duration::from_millis(1),
            ends_looks: true,
        };
        cursors.note(&QUEUE.into(), &found);
        plan
    }

    #[test]
    fn while_looks_are_cheap_only_a_full_claim_leaves_a_cursor() {
        let cursors = Cursors::default();
        let start = (Span::Whole, Reason::Start);
        let last = (0, Uuid::now_v7());
        assert_eq!(claim(&cursors, 1, &[last], true).0, [start]);
        let behind = (Span::Behind(last), Reason::Cursor);
        assert_eq!(claim(&cursors, 1, &[], false).0, [behind, start], "if too few are found");
        assert_eq!(cursors.plan(QUEUE, false).0, [start]);
    }

    /// Notes a claim that was planned before, with what it found.
    fn note(cursors: &Cursors, plan: &Plan, rows: &[Place], failed: bool) {
        let looks = [Look { took: Duration::from_millis(1), rows: rows.len(), bytes: 0 }];
        let (full, now, round_trip) = (!failed, 1_795_000_000_000_000, Duration::from_millis(1));
        let found =
            Found { plan, looks: &looks, rows, full, failed, now, round_trip, ends_looks: true };
        cursors.note(&QUEUE.into(), &found);
    }

    #[test]
    fn of_claims_at_the_same_time_none_moves_the_cursor_over_what_another_left() {
        let cursors = Cursors::default();
        let places: Vec<Place> = (1..=9).map(|at| (0, Uuid::from_u128(at))).collect();
        let after = || match cursors.plan(QUEUE, false).0[0].0 {
            Span::Behind(place) => place,
            other => panic!("{other:?}"),
        };
        claim(&cursors, 1, &places[..3], true);
        let (one, other) = (cursors.plan(QUEUE, false), cursors.plan(QUEUE, false));
        note(&cursors, &other, &places[5..7], false);
        note(&cursors, &one, &places[3..5], false);
        assert_eq!(after(), places[6], "the first comes back last");
        let late = cursors.plan(QUEUE, false);
        note(&cursors, &Plan(vec![(Span::Whole, Reason::Start)]), &places[..1], false);
        note(&cursors, &late, &places[7..], false);
        assert_eq!(after(), places[0], "a look at the start found urgent jobs meanwhile");
        let (fails, other) = (cursors.plan(QUEUE, false), cursors.plan(QUEUE, false));
        note(&cursors, &other, &places[3..5], false);
        note(&cursors, &fails, &[], true);
        assert_eq!(
            cursors.plan(QUEUE, false).0,
            [(Span::Whole, Reason::Start)],
            "what a claim did not lease is still there"
        );
    }

    #[test]
    fn a_claim_that_went_over_what_a_failed_one_left_makes_the_next_begin_at_the_start() {
        let cursors = Cursors::default();
        let start = Plan(vec![(Span::Whole, Reason::Start)]);
        let rows = [(0, Uuid::from_u128(7))];
        let (fails, other) = (cursors.plan(QUEUE, false), cursors.plan(QUEUE, false));
        note(&cursors, &fails, &[], true);
        note(&cursors, &other, &rows, false);
        assert_eq!(cursors.plan(QUEUE, false).0, start.0, "both were made at the same time");
        // A claim that began after the failure saw the jobs that the failed claim had left.
        let (now, round_trip) = (1_795_000_001_000_000, Duration::from_millis(1));
        let looks = [Look { took: round_trip, rows: 1, bytes: 0 }];
        let (full, failed, ends_looks) = (true, false, true);
        let found = Found {
            plan: &start,
            looks: &looks,
            rows: &rows,
            full,
            failed,
            now,
            round_trip,
            ends_looks,
        };
        cursors.note(&QUEUE.into(), &found);
        let behind = (Span::Behind(rows[0]), Reason::Cursor);
        assert_eq!(cursors.plan(QUEUE, false).0[0], behind);
    }

    #[test]
    fn one_stall_that_two_claims_wait_for_makes_no_queue_dear() {
        let cursors = Cursors::default();
        let start = Plan(vec![(Span::Whole, Reason::Start)]);
        let looks = [Look { took: Duration::from_secs(2), rows: 0, bytes: 0 }];
        let found = |now| Found {
            plan: &start,
            looks: &looks,
            rows: &[],
            full: false,
            failed: false,
            now,
            round_trip: Duration::from_millis(1),
            ends_looks: true,
        };
        let now = 1_795_000_000_000_000;
        cursors.note(&QUEUE.into(), &found(now));
        cursors.note(&QUEUE.into(), &found(now + 1_900_000));
        assert!(!cursors.are_dear(&[QUEUE]), "it began before the other was over");
        // It began when the first was over, and while the second was not.
        cursors.note(&QUEUE.into(), &found(now + 2_000_000));
        assert!(cursors.are_dear(&[QUEUE]));
    }

    #[test]
    fn one_look_that_had_to_wait_makes_no_queue_dear() {
        let cursors = Cursors::default();
        for took in [2_000, 1, 2_000, 1, 2_000] {
            claim(&cursors, took, &[], false);
            assert!(!cursors.are_dear(&[QUEUE]));
        }
        claim(&cursors, 2_000, &[], false);
        assert!(cursors.are_dear(&[QUEUE]), "two in a row");
    }

    #[test]
    fn a_thorough_claim_sees_the_whole_of_a_dear_queue_before_it_answers_with_nothing() {
        let cursors = Cursors::default();
        let whole = |thorough: bool| {
            let plan = cursors.plan(QUEUE, thorough);
            let wholes = plan.0.iter().filter(|(span, _)| *span == Span::Whole);
            (wholes.count(), plan)
        };
        assert_eq!(whole(true).0, 1, "once, also where it is looked at anyway");
        claim(&cursors, 2_000, &[], false);
        claim(&cursors, 2_000, &[], false);
        assert_eq!(whole(false).0, 0);
        let (wholes, plan) = whole(true);
        assert_eq!(wholes, 1);
        let last = plan.0.len() - 1;
        assert_eq!(plan.next(last, false), Some(Span::Whole));
        assert_eq!(plan.next(last, true), None, "it has jobs");
    }

    #[test]
    fn large_arguments_make_no_look_dear() {
        let look = |bytes| Look { took: Duration::from_millis(90), rows: 1, bytes };
        assert!(is_dear(look(0).for_nothing(), Duration::ZERO));
        assert!(!is_dear(look(1_000_000).for_nothing(), Duration::ZERO));
    }

    #[test]
    fn when_nothing_is_dear_any_more_the_start_is_looked_at_again() {
        let cursors = Cursors::default();
        claim(&cursors, 10, &[], false);
        let begun = Instant::now();
        claim(&cursors, 10, &[], false);
        assert!(cursors.are_dear(&[QUEUE]));
        while cursors.are_dear(&[QUEUE]) {
            claim(&cursors, 1, &[], false);
            assert!(begun.elapsed() < Duration::from_secs(30), "for ever");
        }
        // A look at the start that is dear, whatever lies in slices and gaps, has its share of the time.
        assert!(begun.elapsed() >= Duration::from_millis(190));
        assert_eq!(cursors.plan(QUEUE, false).0, [(Span::Whole, Reason::Start)]);
    }
}
