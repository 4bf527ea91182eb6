//! Priorities of which no job was seen yet, among dead rows.
//!
//! Each is in exactly one gap between those that are known, and the gaps are looked at in turn for a
//! twentieth of the time. One that is dear holds dead rows of some priority: it is cut in two until that is
//! found.

use std::time::{Duration, Instant};

use crate::share::{looks_due, wait_its_share};
use crate::sweep::{LONG, is_over};

/// A gap, from the one rank to the other.
pub(crate) type Gap = (i32, i32);

#[derive(Debug)]
pub(crate) struct Gaps {
    /// In order.
    all: Vec<Gap>,
    at: usize,
    due: Instant,
    /// What they took since the first one.
    spent: Duration,
    pub(crate) are_clean: bool,
}

impl Gaps {
    pub(crate) fn new() -> Self {
        Self {
            all: vec![(i32::MIN, i32::MAX)],
            at: 0,
            due: Instant::now(),
            spent: Duration::ZERO,
            are_clean: false,
        }
    }

    /// Those whose time has come.
    pub(crate) fn next(&self) -> impl Iterator<Item = Gap> + '_ {
        self.all.iter().skip(self.at).take(looks_due(self.due)).copied()
    }

    /// Notes what a look at a whole gap took beyond a round trip. Answers its rank when that is the only one
    /// and all the dead rows are of it.
    pub(crate) fn note(&mut self, gap: Gap, took: Duration, cuts: bool) -> Option<i32> {
        wait_its_share(&mut self.due, took);
        self.spent += took;
        // A rank was taken out of it meanwhile, or another claim looked at it too.
        let Some(at) = self.all.iter().position(|one| *one == gap) else {
            self.turn();
            return None;
        };
        self.at = at + 1;
        let (from, to) = gap;
        let mut found = None;
        if took > LONG && cuts {
            if from < to {
                let cut = middle(from, to);
                drop(self.all.splice(at..=at, [(from, cut), (cut + 1, to)]));
                self.at += 1;
            } else {
                found = Some(from);
            }
        }
        self.turn();
        found
    }

    fn turn(&mut self) {
        if self.at >= self.all.len() {
            self.at = 0;
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
        for _ in 0..1_000 {
            let gap = gaps.all[gaps.at];
            let is_dear = (gap.0..=gap.1).contains(&rank);
            dear_looks += usize::from(is_dear);
            let took = Duration::from_millis(if is_dear { 50 } else { 0 });
            if let Some(one) = gaps.note(gap, took, true) {
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
            assert!(looks <= 40, "{looks} looks for {rank}");
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
        gaps.note(first, Duration::ZERO, true);
        gaps.note((-1, -1), Duration::ZERO, true);
        // What was found there is known from now on.
        gaps.take_out(-1);
        let mut seen = Vec::new();
        for _ in 0..4 {
            let next: Vec<_> = gaps.next().collect();
            let gap = *next.first().expect("it is always some gap's turn");
            gaps.note(gap, Duration::ZERO, true);
            seen.push(gap);
        }
        assert!(seen.contains(&first) && seen.contains(&(1, i32::MAX)), "{seen:?}");
        assert!(gaps.are_clean);
    }

    #[test]
    fn they_wait_for_their_share_of_the_time() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.next().count(), 1);
        gaps.note((i32::MIN, i32::MAX), Duration::from_secs(1), false);
        assert_eq!(gaps.next().count(), 0);
    }
}
