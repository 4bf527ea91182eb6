//! Looks for late-comers among dead rows, in slices that are cheap each.
//!
//! A look from the start of an index steps over every row that was deleted while somebody's long
//! transaction keeps it. Where that is dear, the part behind us is swept instead: slice after slice, each
//! cut so that it takes a few milliseconds. Whoever sweeps gives that a twentieth of the time.

use std::time::Duration;

use crate::share::{AIM, CHEAP, Noise};

/// A slice is cut into at most this many pieces.
const MAX_PIECES: u32 = 64;

/// Beyond so many bounds a slice is cut only if its look failed. A sweep of as many takes an hour.
const MAX_SLICES: usize = 65_536;

/// So many empty looks are hardly dearer than one; a sweep begins with fewer.
const FEW_SLICES: usize = 20;

/// The first slices, by how long ago they were, in milliseconds; each twice as long as the next.
const FIRST_SLICES: std::ops::Range<u32> = 13..27;

/// A part of an index: behind the one key, up to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) after: u128,
    pub(crate) until: u128,
}

/// A sweep over keys that tell the time.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// Where slices end, in order; the last one ends at the present.
    bounds: Vec<u128>,
    at: usize,
    /// How far the slice whose turn it is was seen already, by looks that found as much as they wanted.
    seen: Option<u128>,
    /// Whether the slice before was short.
    was_short: bool,
    /// What the slices took since the start, beyond what empty looks take.
    spent: Duration,
    /// Slices are cut, and others made one.
    cuts: bool,
}

impl Sweep {
    /// Up to `end`, where keys differ by `milli` in a millisecond.
    pub(crate) fn new(end: u128, milli: u128) -> Self {
        let ago = |power: u32| end.saturating_sub(milli << power);
        let mut bounds: Vec<_> = FIRST_SLICES.rev().map(ago).collect();
        bounds.dedup();
        bounds.retain(|bound| *bound > 0);
        Self { bounds, cuts: true, ..Self::whole() }
    }

    /// In one slice always, where smaller ones would be no cheaper.
    pub(crate) fn whole() -> Self {
        let (bounds, spent) = (Vec::new(), Duration::ZERO);
        Self { bounds, at: 0, seen: None, was_short: false, spent, cuts: false }
    }

    /// The next slices, to the end of the sweep; `end` is the present. After the last one comes an empty one, by
    /// which it is measured what a look takes that steps over nothing.
    #[cfg(any(feature = "mysql", feature = "postgres", test))]
    pub(crate) fn next(&self, end: u128) -> impl Iterator<Item = Slice> + '_ {
        (self.at..=self.last()).map(move |at| self.slice(at, end))
    }

    /// The number of the last slice, the empty one.
    fn last(&self) -> usize {
        self.bounds.len() + usize::from(self.cuts)
    }

    /// The slice whose turn it is.
    pub(crate) fn current(&self, end: u128) -> Slice {
        self.slice(self.at, end)
    }

    /// A slice never reaches beyond the present: rows behind it are found by the looks at new rows.
    fn slice(&self, at: usize, end: u128) -> Slice {
        let begin = at
            .checked_sub(1)
            .map_or(0, |before| self.bounds.get(before).map_or(end, |bound| *bound));
        let after = self.seen.filter(|_| at == self.at).map_or(begin, |seen| seen.max(begin));
        let until = self.bounds.get(at).copied().unwrap_or(end);
        Slice { after, until: until.min(end).max(after) }
    }

    /// Notes what the next slice, which begins behind `begun`, took beyond a round trip. After the last one
    /// answers how long the looks at all slices took. A slice whose turn it is not adds its time and nothing else:
    /// two claims may have looked at the same slice.
    pub(crate) fn note(
        &mut self,
        begun: u128,
        took: Duration,
        end: u128,
        noise: &mut Noise,
    ) -> Option<Duration> {
        if !self.cuts {
            return Some(took);
        }
        self.spent += took.saturating_sub(noise.empty());
        if self.at == self.last() {
            // The present went on since the look began there, so it only has to lie behind all bounds.
            let is_behind = self.bounds.last().is_none_or(|last| begun > *last);
            if begun > end || !(is_behind || begun == end) {
                return None;
            }
            noise.measure(took);
            return self.advance(end);
        }
        if self.current(end).after != begun {
            return None;
        }
        let is_short = took < noise.empty() && self.seen.is_none();
        let may_cut = took > noise.long() && self.bounds.len() < MAX_SLICES;
        let more = if may_cut { self.cut(self.at, took, end) } else { 0 };
        if more > 0 {
            self.at += more;
        } else if is_short && self.was_short && self.at > 0 && self.at < self.bounds.len() {
            self.at -= 1;
            self.bounds.remove(self.at);
        }
        self.was_short = is_short;
        self.advance(end)
    }

    /// Goes on to the next slice; after the last one answers what all took.
    fn advance(&mut self, end: u128) -> Option<Duration> {
        self.seen = None;
        self.at += 1;
        if self.at <= self.last() {
            return None;
        }
        // The last slice is that of the time since the sweep before.
        if self.bounds.len() < MAX_SLICES && self.bounds.last().is_none_or(|last| *last < end) {
            self.bounds.push(end);
        }
        self.at = 0;
        self.was_short = false;
        let spent = std::mem::take(&mut self.spent);
        // Many slices may be a dear look altogether although each is short; they are joined first.
        Some(if self.bounds.len() > FEW_SLICES { spent.max(CHEAP) } else { spent })
    }

    /// Notes a look at the next slice that found as much as it wanted, the last of it at `seen`: the next look
    /// begins there, or it would step over what this one deleted.
    pub(crate) fn note_part(
        &mut self,
        begun: u128,
        seen: u128,
        took: Duration,
        end: u128,
        noise: Noise,
    ) {
        self.spent += took.saturating_sub(noise.empty());
        let Slice { after, until } = self.current(end);
        if self.cuts && after == begun && after < seen && seen < until {
            self.seen = Some(seen);
        }
    }

    /// Notes a look at a slice of which nothing came. It is looked at again, in pieces if it took long: as a whole
    /// it would never be seen. One before it may have to be looked at again first.
    pub(crate) fn note_failed(&mut self, begun: u128, took: Duration, end: u128, noise: Noise) {
        self.spent += took;
        let slice = (self.at..self.last()).find(|at| self.slice(*at, end).after == begun);
        let Some(at) = slice.filter(|_| took > noise.long()) else { return };
        if self.cut(at, took, end) == 0 && at == self.at {
            // All of it is one place. It is looked at again in the next sweep.
            self.was_short = false;
            self.advance(end);
        }
    }

    /// Cuts a slice that took long; answers into how many more.
    fn cut(&mut self, at: usize, took: Duration, end: u128) -> usize {
        let Slice { after, until } = self.slice(at, end);
        let pieces = u128::from(MAX_PIECES.min((took.as_micros() / AIM.as_micros()) as u32));
        let step = (until - after) / pieces;
        let cuts = (1..pieces).map(|piece| after + step * piece);
        let cuts: Vec<_> = cuts.filter(|cut| after < *cut && *cut < until).collect();
        let count = cuts.len();
        drop(self.bounds.splice(at..at, cuts));
        count
    }
}

/// Whether a whole sweep could as well have been one look.
pub(crate) fn is_over(all: Duration) -> bool {
    all < CHEAP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::LONG;

    const MILLI: u128 = 1_000;

    fn measured(took: Duration) -> Noise {
        let mut noise = Noise::default();
        noise.measure(took);
        noise.measure(took);
        noise
    }

    /// Sweeps once over rows of these keys, each of which costs a microsecond; the dearest slice, what all
    /// cost, and what that is beyond empty looks.
    fn sweep(sweep: &mut Sweep, dead: &[u128], end: u128) -> (Duration, Duration, Duration) {
        let mut noise = measured(Duration::ZERO);
        let (mut dearest, mut all) = (Duration::ZERO, Duration::ZERO);
        loop {
            let Slice { after, until } = sweep.current(end);
            let rows = dead.iter().filter(|key| (after + 1..=until).contains(*key)).count();
            let took = Duration::from_micros(rows as u64);
            dearest = dearest.max(took);
            all += took;
            if let Some(beyond) = sweep.note(after, took, end, &mut noise) {
                return (dearest, all, beyond);
            }
        }
    }

    #[test]
    fn every_row_is_seen_once_and_slices_become_cheap_wherever_the_rows_lie() {
        let end = 2_000_000_000 * MILLI;
        // 100,000 within an hour, and as many within a second three days ago.
        let hour = (0..100_000).map(|n| end - n * 36 * MILLI);
        let burst = (0..100_000).map(|n| end - 259_200_000 * MILLI + n * 10);
        let dead: Vec<u128> = burst.chain(hour).collect();
        let mut swept = Sweep::new(end, MILLI);
        for turn in 0..12 {
            let (dearest, all, beyond) = sweep(&mut swept, &dead, end);
            assert!(!is_over(beyond));
            assert_eq!(all, Duration::from_millis(200), "each row once");
            assert!(turn < 9 || dearest <= LONG, "{dearest:?} in sweep {turn}");
        }
        assert!(swept.bounds.is_sorted());
        // Vacuum came, and there is nothing left to cut.
        let sweeps = (1..20).find(|_| is_over(sweep(&mut swept, &[], end + MILLI).2));
        assert!(sweeps.is_some(), "it is cheap again");
        for _ in 0..20 {
            assert!(is_over(sweep(&mut swept, &[], end + MILLI).2));
        }
        assert!(swept.bounds.len() < 5, "{} slices for nothing", swept.bounds.len());
    }

    #[test]
    fn of_two_that_looked_at_the_same_slice_one_counts() {
        let mut sweep = Sweep::new(1 << 60, MILLI);
        let first = sweep.current(1 << 60);
        sweep.note(first.after, Duration::ZERO, 1 << 60, &mut Noise::default());
        sweep.note(first.after, Duration::ZERO, 1 << 60, &mut Noise::default());
        assert_eq!(sweep.current(1 << 60).after, first.until);
    }

    #[test]
    fn a_little_noise_in_each_slice_is_no_dear_sweep_and_no_reason_for_more_slices() {
        let mut swept = Sweep::new(1 << 60, MILLI);
        let mut measured = Noise::default();
        for turn in 0..10_000 {
            let end = (1 << 60) + turn * MILLI;
            let mut noise = [3_500, 3_700, 3_600].map(Duration::from_micros).into_iter().cycle();
            let over = loop {
                let Slice { after, .. } = swept.current(end);
                let took = noise.next().expect("for ever");
                if let Some(beyond) = swept.note(after, took, end, &mut measured) {
                    break is_over(beyond);
                }
            };
            assert!(turn < 20 || over, "sweep {turn} of {} slices", swept.bounds.len());
        }
        assert!(swept.bounds.len() <= FEW_SLICES, "{}", swept.bounds.len());
    }

    #[test]
    fn a_slice_goes_on_behind_what_filled_a_claim() {
        let end = 1 << 60;
        let mut swept = Sweep::new(end, MILLI);
        let first = swept.current(end);
        let middle = first.after.midpoint(first.until);
        swept.note_part(first.after, middle, Duration::ZERO, end, Noise::default());
        assert_eq!(swept.current(end), Slice { after: middle, until: first.until });
        swept.note_part(first.after, middle / 2, Duration::ZERO, end, Noise::default());
        assert_eq!(swept.current(end).after, middle, "another claim looked at it too");
        swept.note(middle, Duration::ZERO, end, &mut Noise::default());
        assert_eq!(swept.current(end).after, first.until);
        while swept
            .note(swept.current(end).after, Duration::ZERO, end, &mut Noise::default())
            .is_none()
        {}
        assert_eq!(swept.current(end).after, 0, "the next sweep sees all");
    }

    #[test]
    fn a_slice_of_which_nothing_came_is_looked_at_in_pieces() {
        let end = 1 << 60;
        let mut swept = Sweep::new(end, MILLI);
        let first = swept.current(end);
        swept.note_failed(first.after, Duration::from_secs(1), end, Noise::default());
        let now = swept.current(end);
        assert!(now.after == first.after && now.until < first.until / 32, "{now:?}");
        // Also one whose turn it is not yet.
        let mut swept = Sweep::new(end, MILLI);
        let third = swept.next(end).nth(2).expect("there are more");
        swept.note_failed(third.after, Duration::from_secs(1), end, Noise::default());
        assert_eq!(swept.current(end), first);
        let pieces = swept.next(end).skip(2).take_while(|slice| slice.until <= third.until);
        assert_eq!(pieces.count(), MAX_PIECES as usize);
    }

    #[test]
    fn a_slice_that_cannot_be_cut_and_always_fails_keeps_no_other_waiting() {
        let mut swept = Sweep { bounds: vec![7, 8], ..Sweep::new(9, 1) };
        swept.note(0, Duration::ZERO, 9, &mut Noise::default());
        assert_eq!(swept.current(9), Slice { after: 7, until: 8 });
        swept.note_failed(7, Duration::from_secs(1), 9, Noise::default());
        assert_eq!(swept.current(9).after, 8);
    }

    #[test]
    fn of_too_many_slices_only_those_that_fail_are_cut() {
        let bounds: Vec<_> = (1..=MAX_SLICES as u128).map(|bound| bound << 40).collect();
        let end = (MAX_SLICES as u128 + 9) << 40;
        let mut swept = Sweep { bounds, ..Sweep::new(end, MILLI) };
        swept.note(0, Duration::from_secs(1), end, &mut Noise::default());
        assert_eq!(swept.bounds.len(), MAX_SLICES);
        swept.note_failed(1 << 40, Duration::from_secs(1), end, Noise::default());
        assert_eq!(swept.bounds.len(), MAX_SLICES + MAX_PIECES as usize - 1);
        assert!(swept.bounds.is_sorted());
    }

    #[test]
    fn the_empty_look_ends_a_sweep_although_the_present_went_on() {
        let (mut end, mut noise) = (1 << 60, Noise::default());
        let mut swept = Sweep::new(end, MILLI);
        for _ in 0..100 {
            let Slice { after, .. } = swept.current(end);
            end += MILLI;
            if swept.note(after, Duration::ZERO, end, &mut noise).is_some() {
                return;
            }
        }
        panic!("it never ends");
    }
}
