//! Priorities of which no job was seen yet, among dead rows.
//!
//! Each such priority lies in exactly one gap between the known ones. The gaps are looked at in turn, for a
//! twentieth of the time. A gap whose look is dear twice, of which the second time counts, holds dead rows of some
//! priority, and is cut in two until that priority is found.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::share::{LONG, Noise, looks_due, wait_its_share};
use crate::sweep::is_over;

/// No gap is cut while there are this many.
const MAX_GAPS: usize = 256;

/// A gap, from the one rank to the other.
pub(crate) type Gap = (i32, i32);

#[derive(Debug)]
pub(crate) struct Gaps {
    /// All gaps, in the order of their ranks.
    all: Vec<Gap>,
    at: usize,
    due: Instant,
    /// How long the looks took since the first gap had its turn, beyond what empty looks take.
    spent: Duration,
    /// Gaps whose last look was dear. It may have waited for something else, so the next look decides.
    doubtful: BTreeSet<Gap>,
    /// The look at the gap before took no longer than an empty look.
    was_short: bool,
    pub(crate) are_clean: bool,
}

impl Gaps {
    pub(crate) fn new() -> Self {
        Self {
            all: vec![(i32::MIN, i32::MAX)],
            at: 0,
            due: Instant::now(),
            spent: Duration::ZERO,
            doubtful: BTreeSet::new(),
            was_short: false,
            are_clean: false,
        }
    }

    /// The gaps whose time has come.
    pub(crate) fn next(&self) -> impl Iterator<Item = Gap> + '_ {
        self.all.iter().skip(self.at).take(looks_due(self.due)).copied()
    }

    /// Notes how long a look took, whatever came of it.
    fn charge(&mut self, took: Duration) {
        wait_its_share(&mut self.due, took);
    }

    /// Notes a look of which nothing came. If it took long the gap is cut in two, because as a whole it would never
    /// be seen; if that is only one rank it is answered. What cannot be cut keeps no other gap waiting.
    pub(crate) fn note_failed(
        &mut self,
        gap: Gap,
        took: Duration,
        noise: Noise,
        cuts: bool,
    ) -> Option<i32> {
        self.spent += took;
        self.charge(took);
        let at = self.all.iter().position(|one| *one == gap)?;
        let is_long = took > noise.long() && cuts;
        if !(is_long && self.cut(at)) {
            self.at = at + 1;
        }
        self.was_short = false;
        self.turn();
        (is_long && gap.0 == gap.1).then_some(gap.0)
    }

    /// Notes that a gap holds more than was asked for. The others come first; it is looked at again in its turn,
    /// from its start: over what was found there, which is paid for if it is much.
    pub(crate) fn leave(&mut self, gap: Gap, took: Duration) {
        self.spent += LONG * 2;
        self.charge(took.saturating_sub(LONG));
        self.was_short = false;
        if let Some(at) = self.all.iter().position(|one| *one == gap) {
            self.at = at + 1;
        }
        self.turn();
    }

    /// Notes what a look at a whole gap took beyond a round trip. Answers its rank when that is the only one
    /// and all the dead rows are of it.
    pub(crate) fn note(
        &mut self,
        gap: Gap,
        took: Duration,
        noise: Noise,
        cuts: bool,
    ) -> Option<i32> {
        self.spent += took.saturating_sub(noise.empty());
        // A rank may have been taken out of it meanwhile, or another claim have looked at it too.
        let Some(at) = self.all.iter().position(|one| *one == gap) else {
            self.charge(took);
            return None;
        };
        self.at = at + 1;
        let (is_long, is_short) = (took > noise.long() && cuts, took < noise.empty());
        let before = at.checked_sub(1).map(|before| self.all[before]);
        if is_long && self.doubtful.insert(gap) {
            // Again at once: to wait for both looks would take twice as long to find a rank.
            self.at = at;
            self.was_short = false;
            return None;
        }
        self.charge(took);
        self.doubtful.remove(&gap);
        let mut found = None;
        if is_long && gap.0 == gap.1 {
            found = Some(gap.0);
        } else if is_long && self.cut(at) {
            self.at += 1;
        } else if is_short
            && self.was_short
            && let Some(before) = before.filter(|before| before.1.checked_add(1) == Some(gap.0))
        {
            drop(self.all.splice(at - 1..=at, [(before.0, gap.1)]));
            self.at = at;
        }
        self.was_short = is_short;
        self.turn();
        found
    }

    /// Cuts a gap in two, if it is more than one rank and there are not too many.
    fn cut(&mut self, at: usize) -> bool {
        let (from, to) = self.all[at];
        let can = from < to && self.all.len() < MAX_GAPS;
        if can {
            let cut = middle(from, to);
            drop(self.all.splice(at..=at, [(from, cut), (cut + 1, to)]));
        }
        can
    }

    fn turn(&mut self) {
        if self.at >= self.all.len() {
            self.at = 0;
            self.was_short = false;
            let all = &self.all;
            self.doubtful.retain(|gap| all.contains(gap));
            self.are_clean = is_over(std::mem::take(&mut self.spent));
        }
    }

    /// A rank that is known is in no gap.
    pub(crate) fn take_out(&mut self, rank: i32) {
        let Some(at) = self.all.iter().position(|(from, to)| (*from..=*to).contains(&rank)) else {
            return;
        };
        let (from, to) = self.all[at];
        let parts = [(from, rank.saturating_sub(1)), (rank.saturating_add(1), to)];
        let is_part = |(part_from, part_to): &Gap| {
            part_from <= part_to && !(*part_from..=*part_to).contains(&rank)
        };
        drop(self.all.splice(at..=at, parts.into_iter().filter(is_part)));
        // Begun again rather than going on at another place: that lies within the same gap, or behind the end.
        self.at = self.at.min(at);
        if self.at >= self.all.len() {
            self.at = 0;
        }
    }
}

/// Where to cut ranks in two: in the middle of their magnitudes, for most priorities are small.
fn middle(from: i32, to: i32) -> i32 {
    if from < 0 && to > 0 {
        return 0;
    }
    let (near, far) =
        (from.unsigned_abs().min(to.unsigned_abs()), from.unsigned_abs().max(to.unsigned_abs()));
    let middle = (f64::from(near.max(1)) * f64::from(far)).sqrt() as i32;
    // The cut is the last of the first part.
    if to <= 0 { (-middle).clamp(from, to - 1) } else { middle.clamp(from, to - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at the gaps, where the one with this rank is dear, until all are cheap.
    fn find(gaps: &mut Gaps, rank: i32) -> (usize, Vec<i32>) {
        let (mut dear_looks, mut found) = (0, Vec::new());
        for _ in 0..2_000 {
            let gap = gaps.all[gaps.at];
            let is_dear = (gap.0..=gap.1).contains(&rank);
            dear_looks += usize::from(is_dear);
            let took = Duration::from_millis(if is_dear { 50 } else { 0 });
            if let Some(one) = gaps.note(gap, took, Noise::default(), true) {
                gaps.take_out(one);
                found.push(one);
            }
        }
        (dear_looks, found)
    }

    #[test]
    fn a_priority_of_dead_rows_alone_is_found_within_few_looks() {
        for rank in [1, -1, 3, -10, 100, -1_000, i32::MAX, i32::MIN] {
            let mut gaps = Gaps::new();
            gaps.take_out(0);
            let (looks, found) = find(&mut gaps, rank);
            assert!(looks <= 80, "{looks} looks for {rank}");
            assert_eq!(found, [rank]);
            assert!(gaps.are_clean);
            // Every other rank is in one gap.
            let inside =
                |one: i32| gaps.all.iter().filter(move |(from, to)| (*from..=*to).contains(&one));
            for one in [i32::MIN, -1_001, -10, -3, -1, 1, 2, 4, 99, 101, i32::MAX] {
                assert_eq!(inside(one).count(), usize::from(one != rank), "{one}");
            }
        }
    }

    #[test]
    fn a_rank_that_fills_its_gap_leaves_the_turn_within_the_others() {
        let mut gaps = Gaps::new();
        gaps.take_out(0);
        gaps.take_out(-2);
        assert_eq!(gaps.all, [(i32::MIN, -3), (-1, -1), (1, i32::MAX)]);
        let first = (i32::MIN, -3);
        gaps.note(first, Duration::ZERO, Noise::default(), true);
        gaps.note((-1, -1), Duration::ZERO, Noise::default(), true);
        // What was found there is known from now on.
        gaps.take_out(-1);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let next: Vec<_> = gaps.next().collect();
            let gap = *next.first().expect("it is always some gap's turn");
            gaps.note(gap, Duration::ZERO, Noise::default(), true);
            seen.push(gap);
        }
        assert!(seen.contains(&first) && seen.contains(&(1, i32::MAX)), "{seen:?}");
        assert!(gaps.are_clean);
    }

    #[test]
    fn what_was_cut_for_nothing_is_joined_again_and_a_single_delay_cuts_nothing() {
        let mut gaps = Gaps::new();
        gaps.take_out(0);
        let slow = Duration::from_millis(50);
        gaps.note(gaps.all[0], slow, Noise::default(), true);
        gaps.note(gaps.all[0], Duration::ZERO, Noise::default(), true);
        assert_eq!(gaps.all.len(), 2, "it was slow once");
        for _ in 0..2_000 {
            gaps.note(gaps.all[gaps.at], slow, Noise::default(), true);
        }
        assert!((50..=MAX_GAPS).contains(&gaps.all.len()), "{} gaps", gaps.all.len());
        for _ in 0..20_000 {
            gaps.note(gaps.all[gaps.at], Duration::ZERO, Noise::default(), true);
        }
        assert_eq!(gaps.all, [(i32::MIN, -1), (1, i32::MAX)]);
        assert!(gaps.are_clean);
    }

    #[test]
    fn slow_empty_looks_invent_no_priorities() {
        let (mut gaps, mut noise) = (Gaps::new(), Noise::default());
        for rank in [-10, -5, 0, 5, 10] {
            gaps.take_out(rank);
        }
        let before = gaps.all.clone();
        for turn in 0..3_000_u64 {
            let took = Duration::from_micros(3_600 + turn * 7 % 700);
            assert_eq!(gaps.note(gaps.all[gaps.at], took, noise, true), None);
            if turn % 1_000 == 999 {
                noise.measure(took);
            }
        }
        assert_eq!(gaps.all, before);
    }

    #[test]
    fn dear_gaps_are_cut_also_when_one_claim_looks_at_all_of_them() {
        let mut gaps = Gaps::new();
        gaps.take_out(0);
        let mut found = Vec::new();
        for _ in 0..200 {
            for gap in gaps.all.clone() {
                let is_dear = [-7, 3].iter().any(|rank| (gap.0..=gap.1).contains(rank));
                let took = Duration::from_millis(if is_dear { 50 } else { 0 });
                if let Some(rank) = gaps.note(gap, took, Noise::default(), true) {
                    gaps.take_out(rank);
                    found.push(rank);
                }
            }
        }
        found.sort_unstable();
        assert_eq!(found, [-7, 3]);
        assert!(gaps.doubtful.is_empty());
    }

    #[test]
    fn a_gap_that_is_full_keeps_no_other_waiting() {
        let mut gaps = Gaps::new();
        gaps.take_out(0);
        let (low, high) = (gaps.all[0], gaps.all[1]);
        gaps.leave(low, LONG);
        assert_eq!(gaps.next().next(), Some(high));
        gaps.note(high, Duration::ZERO, Noise::default(), true);
        assert_eq!(gaps.next().next(), Some(low), "in its turn");
        assert!(!gaps.are_clean);
    }

    #[test]
    fn a_gap_of_which_nothing_came_is_looked_at_in_two() {
        let mut gaps = Gaps::new();
        gaps.take_out(0);
        gaps.note_failed(gaps.all[1], LONG * 8, Noise::default(), true);
        assert_eq!(gaps.all.len(), 3);
        gaps.note_failed(gaps.all[1], LONG * 2, Noise::default(), true);
        assert_eq!(gaps.all.len(), 3, "it was something else that took long");
    }

    #[test]
    fn a_priority_whose_look_always_fails_is_found_and_keeps_no_gap_waiting() {
        for cuts in [true, false] {
            let mut gaps = Gaps::new();
            gaps.take_out(0);
            let (mut found, mut seen) = (None, BTreeSet::new());
            for _ in 0..200 {
                let gap = gaps.all[gaps.at];
                let took = Duration::from_secs(10);
                let rank = if (gap.0..=gap.1).contains(&-5) {
                    gaps.note_failed(gap, took, Noise::default(), cuts)
                } else {
                    seen.insert(gap);
                    gaps.note(gap, Duration::ZERO, Noise::default(), cuts)
                };
                if let Some(rank) = rank {
                    gaps.take_out(rank);
                    found = Some(rank);
                }
            }
            assert_eq!(found, cuts.then_some(-5));
            assert!(seen.contains(&(1, i32::MAX)), "{cuts}: {seen:?}");
        }
    }

    #[test]
    fn they_wait_for_their_share_of_the_time() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.next().count(), 1);
        gaps.note((i32::MIN, i32::MAX), Duration::from_secs(1), Noise::default(), false);
        assert_eq!(gaps.next().count(), 0);
    }
}
