//! From where on scheduled jobs are looked for.
//!
//! Jobs that became due are deleted where they were scheduled, and as with the claim (see
//! [`cursor`](crate::cursor)) their rows stay in the index while a long transaction holds vacuum back. All
//! lie before the present, so once a look from the start is dear, the next ones begin a little before it,
//! and what lies before that is [swept](crate::sweep).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::share::{LONG, Noise, is_dear, its_share, looks_due, wait_its_share};
use crate::sweep::{Slice, Sweep, is_over};

/// Due times that are past already when they are committed are found so far back, in microseconds; older
/// ones by the sweep.
const SLACK: i64 = 5_000_000;

/// A part of the due times, in microseconds since 1970; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// Once looks are dear they reach so far into the future, in microseconds: rows of jobs that were removed before
/// they were due lie there.
pub(crate) const HORIZON: i64 = 60_000_000;

/// All of them.
pub(crate) const ALL: Range = Range { from: i64::MIN, until: i64::MAX };

/// The floor of one database.
#[derive(Debug, Default)]
pub(crate) struct DueFloor(Mutex<Option<State>>);

#[derive(Debug)]
struct State {
    floor: i64,
    sweep: Sweep,
    noise: Noise,
    /// Not before then the next slice is looked at.
    due: Instant,
    /// Not before then the range from the floor on is looked at again. It lies in the future only after two looks in
    /// a row that were dear all the same, as on MariaDB, which reads on over dead rows beyond the end.
    range_at: Instant,
    was_dear: bool,
    /// Not before then all is looked at again: what is dear there may lie in the future.
    over_at: Instant,
}

fn key(time: i64) -> u128 {
    u128::try_from(time).unwrap_or(0)
}

impl DueFloor {
    /// Where the next due job is looked for, or how long to wait with that; `now` is the server's clock.
    pub(crate) fn range(&self, now: i64) -> Result<Range, Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { floor, range_at, .. }) = state.as_ref() else { return Ok(ALL) };
        let left = range_at.saturating_duration_since(Instant::now());
        let range = Range { from: *floor, until: now.saturating_add(HORIZON) };
        if left.is_zero() { Ok(range) } else { Err(left) }
    }

    /// How many slices before that are due.
    pub(crate) fn slices_due(&self) -> usize {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.as_ref().map_or(0, |state| looks_due(state.due))
    }

    /// The slice whose turn it is.
    pub(crate) fn slice(&self) -> Option<Range> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { floor, sweep, .. } = state.as_ref()?;
        let Slice { after, until } = sweep.current(key(*floor));
        let time = |key: u128| i64::try_from(key).unwrap_or(i64::MAX);
        // A time before 1970 belongs to the first one.
        Some(Range { from: if after == 0 { i64::MIN } else { time(after) }, until: time(until) })
    }

    /// Whether a look from the start is dear.
    pub(crate) fn is_dear(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes a look that found `next` as the first due time, at `now` by the server's clock.
    pub(crate) fn note(
        &self,
        range: Range,
        (took, round_trip): (Duration, Duration),
        now: i64,
        next: Option<i64>,
        ends_looks: bool,
    ) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is known of what lies behind the range: our clock may be behind the server's.
        let seen = next.unwrap_or(range.until).min(now);
        let floor = seen.saturating_sub(SLACK);
        if let Some(state) = &mut *state {
            // A clock may be set back.
            state.floor = state.floor.max(floor).min(now.saturating_sub(SLACK));
            // One that brings jobs is worth it.
            let is_dear = is_dear(took, round_trip) && next.is_none_or(|next| next > now);
            if is_dear && state.was_dear {
                state.range_at = its_share(took);
            }
            state.was_dear = is_dear;
        } else if range == ALL && is_dear(took, round_trip) {
            let sweep = if ends_looks { Sweep::new(key(floor), 1_000) } else { Sweep::whole() };
            let (due, over_at) = (Instant::now(), its_share(took));
            let (range_at, was_dear, noise) = (due, false, Noise::default());
            *state = Some(State { floor, sweep, noise, due, range_at, was_dear, over_at });
        }
    }

    /// Notes a look at a slice that failed after so long; it is looked at in pieces if that is long.
    pub(crate) fn note_failed(&self, slice: Range, took: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { floor, sweep, noise, due, .. }) = &mut *state else { return };
        wait_its_share(due, took);
        sweep.note_failed(key(slice.from), took, key(*floor), *noise);
    }

    /// Notes a look at a slice with more due jobs than one promotion moves, the rest from `rest` on.
    pub(crate) fn note_part(&self, slice: Range, rest: i64, took: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { floor, sweep, noise, due, .. }) = &mut *state else { return };
        wait_its_share(due, took.saturating_sub(LONG));
        sweep.note_part(key(slice.from), key(rest), took, key(*floor), *noise);
    }

    /// Notes what the look at a slice took beyond a round trip.
    pub(crate) fn note_slice(&self, slice: Range, took: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(State { floor, sweep, noise, due, over_at, .. }) = &mut *state else { return };
        wait_its_share(due, took);
        let is_over = sweep.note(key(slice.from), took, key(*floor), noise).is_some_and(is_over);
        if is_over && Instant::now() >= *over_at {
            *state = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn from(floor: &DueFloor) -> i64 {
        floor.range(0).expect("its time has come").from
    }

    #[test]
    fn looks_that_are_dear_all_the_same_have_a_share_of_the_time() {
        let floor = DueFloor::default();
        for _ in 0..2 {
            floor.note(ALL, (MILLI * 500, MILLI), 100_000_000, None, true);
            floor.range(100_000_000).expect("it may have been the first only");
        }
        let range = floor.range(100_000_000).expect("one of them");
        floor.note(range, (MILLI * 500, MILLI), 100_000_000, None, true);
        let pause = floor.range(100_000_000).expect_err("waits");
        assert!(pause > MILLI * 9_000, "{pause:?}");
        // Those that find something to do have all of it.
        let floor = DueFloor::default();
        for _ in 0..5 {
            floor.note(ALL, (MILLI * 500, MILLI), 100_000_000, Some(100_000_000), true);
            floor.range(100_000_000).expect("there is more");
        }
    }

    #[test]
    fn a_dear_look_from_the_start_is_followed_by_some_that_begin_later() {
        let floor = DueFloor::default();
        floor.note(ALL, (MILLI, MILLI), 100_000_000, None, true);
        assert_eq!(floor.range(100_000_000), Ok(ALL), "it was cheap");
        floor.note(ALL, (MILLI * 500, MILLI), 100_000_000, Some(200_000_000), true);
        let range = Range { from: 95_000_000, until: 101_000_000 + HORIZON };
        assert_eq!(floor.range(101_000_000), Ok(range));
        floor.note(range, (MILLI, MILLI), 110_000_000, Some(107_000_000), true);
        assert_eq!(from(&floor), 102_000_000, "an overdue one is not passed over");
        floor.note(range, (MILLI, MILLI), 104_000_000, None, true);
        assert_eq!(from(&floor), 99_000_000, "its clock was set back");
        // Its clock was set forward by hours: what became due meanwhile lies behind the range.
        let range = floor.range(104_000_000).expect("its time has come");
        floor.note(range, (MILLI, MILLI), 9_000_000_000, None, true);
        assert_eq!(from(&floor), range.until - SLACK);
    }

    #[test]
    fn a_slice_with_more_due_jobs_than_one_promotion_moves_goes_on_behind_them() {
        let floor = DueFloor::default();
        floor.note(ALL, (MILLI * 50, MILLI), 100_000_000, None, true);
        let first = floor.slice().expect("dear");
        floor.note_part(first, first.until / 2, MILLI);
        assert_eq!(floor.slice(), Some(Range { from: first.until / 2, until: first.until }));
    }

    #[test]
    fn what_lies_before_is_swept_until_that_is_cheap() {
        let floor = DueFloor::default();
        let begun = Instant::now();
        floor.note(ALL, (MILLI * 50, MILLI), 100_000_000, None, true);
        let mut from = i64::MIN;
        while floor.is_dear() {
            assert!(floor.slices_due() > 0, "it cost nothing");
            let slice = floor.slice().expect("dear");
            let begins_again = slice.from == i64::MIN && from == 95_000_000;
            assert!(slice.from == from || begins_again, "none is left out");
            from = slice.until;
            floor.note_slice(slice, Duration::ZERO);
        }
        assert_eq!(from, 95_000_000);
        assert!(begun.elapsed() >= MILLI * 1_000, "all is dear, wherever it lies");
    }
}
