//! Where a claim looks in a queue whose start is dear, because dead rows lie there.
//!
//! Claims go behind the last row of each priority that was seen. What lies before that is
//! [swept](crate::sweep) for late-comers, retries and jobs that became due, whose ids are older; and between
//! the priorities that were seen there are [gaps](crate::gaps). Both have a twentieth of the time, or as many
//! claims as the new rows if they fill them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::cursor::{Found, Place, Plan, Reason, Span};
use crate::gaps::Gaps;
use crate::share::its_share;
use crate::sweep::{LONG, Slice, Sweep, is_over};

/// Ids are not committed in their order, and are made by clocks that differ: so far behind the last
/// row is looked as well, a twentieth of the time.
const SLACK_MILLIS: u64 = 5_000;

/// Of so many priorities the last row is remembered; jobs of others are found between them.
const MOST_RANKS: usize = 16;

/// The time in an id, in milliseconds since 1970, begins here.
const MILLI: u32 = 80;

/// A queue whose start is dear.
pub(crate) struct Dear {
    ends_looks: bool,
    ranks: BTreeMap<i32, Rank>,
    /// Not before then a rank is looked at for late ones.
    recent_at: Instant,
    /// Which claim this is: what is looked at first takes turns, or what fills the claims would keep the rest
    /// waiting.
    turn: usize,
    gaps: Gaps,
}

struct Rank {
    /// Rows up to this one are found by the sweep. It tells a time that is not in the future.
    last: Uuid,
    /// Not before then it is looked at for new rows. That is later only where dead rows lie behind `last`
    /// for good. A job of just now waits for that, so a server that is a little slow is none the worse for it.
    new_at: Instant,
    sweep: Sweep,
    /// The last sweep was cheap.
    is_clean: bool,
}

impl Dear {
    /// Where nothing but these is left, and most jobs have no priority of their own.
    pub(crate) fn new(found: &Found<'_>) -> Self {
        let mut dear = Self {
            ends_looks: found.ends_looks,
            ranks: BTreeMap::new(),
            recent_at: Instant::now(),
            turn: 0,
            gaps: Gaps::new(),
        };
        dear.advance(&[(0, a_little_before(found.now))], found.now);
        dear.advance(found.rows, found.now);
        dear
    }

    pub(crate) fn plan(&self) -> Plan {
        let news = self.news();
        // Where looks do not end each steps over all the dead rows behind it.
        let most = if self.ends_looks { usize::MAX } else { 1 };
        let gaps = self.gaps.next().take(most);
        let gaps = gaps.map(|(from, to)| (Span::Ranks { from, to }, Reason::Gap));
        let (gaps, slices): (Vec<_>, _) = (gaps.collect(), self.slices());
        let order = match self.turn % 4 {
            0 => [gaps, slices, news],
            1 => [news, gaps, slices],
            2 => [slices, gaps, news],
            _ => [news, slices, gaps],
        };
        Plan(order.into_iter().flatten().collect())
    }

    fn news(&self) -> Vec<(Span, Reason)> {
        let now = Instant::now();
        let recent = now >= self.recent_at;
        let due = self.ranks.iter().filter(|(_, known)| now >= known.new_at);
        let look = |(rank, known): (&i32, &Rank)| {
            let after = if recent { slackened(known.last) } else { known.last };
            let span = Span::Within { rank: *rank, after, until: Uuid::max() };
            (span, if recent { Reason::Recent(*rank) } else { Reason::New(*rank) })
        };
        due.map(look).collect()
    }

    /// The next slices of the rank whose turn it is, of those of which some are due.
    fn slices(&self) -> Vec<(Span, Reason)> {
        let turn = self.ranks.iter().cycle().skip(self.turn % self.ranks.len().max(1));
        for (rank, known) in turn.take(self.ranks.len()) {
            let slices = known.sweep.next(slackened(known.last).as_u128());
            if !slices.is_empty() {
                let look = |Slice { after, until }| {
                    let (after, until) = (Uuid::from_u128(after), Uuid::from_u128(until));
                    (Span::Within { rank: *rank, after, until }, Reason::Slice(*rank))
                };
                return slices.into_iter().map(look).collect();
            }
        }
        Vec::new()
    }

    /// Answers whether the start of the queue is cheap again.
    pub(crate) fn note(&mut self, found: &Found<'_>) -> bool {
        self.turn = self.turn.wrapping_add(1);
        let mut recent = None;
        let looks = found.plan.0.iter().zip(found.took).enumerate();
        for (at, ((span, reason), took)) in looks {
            // It took as long as its rows did, and there are more: the same part is looked at again.
            let is_cut_short = found.full && at + 1 == found.took.len();
            let took = took.saturating_sub(found.round_trip);
            if matches!(reason, Reason::Recent(_)) {
                *recent.get_or_insert(Duration::ZERO) += took;
            }
            if is_cut_short {
                continue;
            }
            match (reason, span) {
                (Reason::Recent(rank) | Reason::New(rank), _) => {
                    self.note_new(*rank, took, found.now);
                }
                (Reason::Gap, Span::Ranks { from, to }) => {
                    let dead = self.gaps.note((*from, *to), took, self.ends_looks);
                    let dead = dead.filter(|_| self.ranks.len() < MOST_RANKS);
                    let place = dead.map(|rank| (rank, a_little_before(found.now)));
                    self.advance(place.as_slice(), found.now);
                }
                (Reason::Slice(rank), Span::Within { after, .. }) => {
                    if let Some(known) = self.ranks.get_mut(rank) {
                        let end = slackened(known.last).as_u128();
                        if let Some(all) = known.sweep.note(after.as_u128(), took, end) {
                            known.is_clean = is_over(all);
                        }
                    }
                }
                _ => {}
            }
        }
        self.recent_at = recent.map_or(self.recent_at, its_share);
        self.advance(found.rows, found.now);
        self.gaps.are_clean && self.ranks.values().all(|known| known.is_clean)
    }

    /// A look at all that is new in a rank: the next one begins where this one ended.
    fn note_new(&mut self, rank: i32, took: Duration, now: i64) {
        let Some(known) = self.ranks.get_mut(&rank) else { return };
        let (before, seen) = (known.last, a_little_before(now));
        known.last = before.max(seen);
        // What it stepped over lies before the place where the next one begins. If not, because such ids
        // tell no time or a look does not end where it should, the next is as dear.
        let leaves_it_behind = self.ends_looks && before < slackened(seen);
        let is_long = took > if self.ends_looks { LONG * 10 } else { LONG };
        if is_long && !leaves_it_behind {
            known.new_at = its_share(took);
        }
    }

    fn advance(&mut self, rows: &[Place], now: i64) {
        for (rank, id) in rows {
            // All that came in time would lie before an id of the future, or before one that tells no time.
            let last = if tells_time(*id) { (*id).min(id_of(millis(now))) } else { Uuid::nil() };
            if let Some(known) = self.ranks.get_mut(rank) {
                known.last = known.last.max(last);
            } else if self.ranks.len() < MOST_RANKS {
                let last = if last.is_nil() { a_little_before(now) } else { last };
                let end = slackened(last).as_u128();
                let sweep =
                    if self.ends_looks { Sweep::new(end, 1 << MILLI) } else { Sweep::whole() };
                let new_at = Instant::now();
                self.ranks.insert(*rank, Rank { last, new_at, sweep, is_clean: false });
                self.gaps.take_out(*rank);
            }
        }
    }
}

fn millis(micros: i64) -> u64 {
    u64::try_from(micros / 1_000).unwrap_or(0)
}

/// The least id of a moment.
fn id_of(millis: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis) << MILLI)
}

fn millis_of(id: Uuid) -> u64 {
    (id.as_u128() >> MILLI) as u64
}

fn tells_time(id: Uuid) -> bool {
    id.get_version_num() == 7 || id == id_of(millis_of(id))
}

/// The least id of a moment a little before this one.
fn a_little_before(now: i64) -> Uuid {
    slackened(id_of(millis(now)))
}

/// An id from a while before one that tells the time.
fn slackened(id: Uuid) -> Uuid {
    id_of(millis_of(id).saturating_sub(SLACK_MILLIS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_000_000_000_000;

    fn at(seconds: i64) -> Uuid {
        Uuid::from_u128(id_of(millis(NOW + seconds * 1_000_000)).as_u128() | 7 << 76 | 2 << 62 | 1)
    }

    struct Look {
        took: u64,
        rows: Vec<Place>,
        full: bool,
        now: i64,
    }

    const NOTHING: Look = Look { took: 1, rows: Vec::new(), full: false, now: NOW };

    /// A claim of which each look takes so many milliseconds, a round trip of one included.
    fn claim(dear: &mut Dear, look: &Look) -> (Plan, bool) {
        let plan = dear.plan();
        let looks = if look.full { 1 } else { plan.0.len() };
        let took = vec![Duration::from_millis(look.took); looks];
        let found = Found { plan: &plan, took: &took, now: look.now, ..found(look) };
        let is_over = dear.note(&found);
        (plan, is_over)
    }

    fn found(look: &Look) -> Found<'_> {
        static NO_PLAN: Plan = Plan(Vec::new());
        Found {
            plan: &NO_PLAN,
            took: &[],
            rows: &look.rows,
            full: look.full,
            bytes: 0,
            now: look.now,
            round_trip: Duration::from_millis(1),
            ends_looks: true,
        }
    }

    fn dear(rows: &[Place]) -> Dear {
        Dear::new(&found(&Look { rows: rows.to_vec(), ..NOTHING }))
    }

    fn new_of(plan: &Plan, wanted: i32) -> Option<Span> {
        let is_new = |reason: &Reason| matches!(reason, Reason::New(rank) | Reason::Recent(rank) if *rank == wanted);
        plan.0.iter().find(|(_, reason)| is_new(reason)).map(|(span, _)| *span)
    }

    #[test]
    fn a_place_behind_the_last_job_of_each_priority_is_looked_at_by_every_claim() {
        let mut dear = dear(&[(3, at(-60)), (-5, at(-30))]);
        for _ in 0..20 {
            let (plan, _) = claim(&mut dear, &Look { took: 5, ..NOTHING });
            assert!([-5, 0, 3].iter().all(|rank| new_of(&plan, *rank).is_some()), "{plan:?}");
        }
    }

    #[test]
    fn what_fills_every_claim_keeps_nothing_else_waiting() {
        for what in [Reason::New(0), Reason::Gap, Reason::Slice(0)] {
            let is = |reason: &Reason| match (what, reason) {
                (Reason::New(_), Reason::New(_) | Reason::Recent(_))
                | (Reason::Slice(_), Reason::Slice(_)) => true,
                (one, other) => one == *other,
            };
            let (mut dear, mut others) = (dear(&[]), 0);
            for _ in 0..40 {
                let plan = dear.plan();
                // Only this kind of part has rows, and it has more than enough.
                let end = plan.0.iter().position(|(_, reason)| is(reason)).map(|at| at + 1);
                let made = end.unwrap_or(plan.0.len());
                let took = vec![Duration::from_millis(1); made];
                let seen = Look { full: end.is_some(), ..NOTHING };
                dear.note(&Found { plan: &plan, took: &took, ..found(&seen) });
                others += plan.0.iter().take(made).filter(|(_, reason)| !is(reason)).count();
            }
            assert!(others >= 20, "{what:?} left {others} looks to the others");
        }
    }

    #[test]
    fn a_part_that_has_more_than_was_asked_for_is_looked_at_again() {
        let mut dear = dear(&[]);
        claim(&mut dear, &NOTHING);
        claim(&mut dear, &NOTHING);
        let before = dear.plan();
        assert!(matches!(before.0[0].1, Reason::Slice(0)), "{before:?}");
        claim(&mut dear, &Look { full: true, took: 400, ..NOTHING });
        let after = dear.plan();
        assert!(after.0.contains(&before.0[0]), "{after:?}");
    }

    #[test]
    fn an_id_of_the_future_or_without_a_time_leaves_the_place_where_it_is() {
        let random = Uuid::from_u128(0xf234_5678_9abc_4def_8123_4567_89ab_cdef);
        for odd in [at(3_600), random] {
            let mut dear = dear(&[(0, at(-1))]);
            claim(&mut dear, &Look { rows: vec![(0, odd), (4, odd)], ..NOTHING });
            let plan = dear.plan();
            for rank in [0, 4] {
                let Some(Span::Within { after, .. }) = new_of(&plan, rank) else {
                    panic!("no look at {rank}: {plan:?}")
                };
                assert!(after <= at(0), "a job of just now would not be found: {after}");
            }
        }
    }

    #[test]
    fn dead_rows_behind_an_old_job_are_stepped_over_once() {
        let mut dear = dear(&[(3, at(-86_400))]);
        claim(&mut dear, &Look { took: 500, ..NOTHING });
        let plan = dear.plan();
        let Some(Span::Within { after, .. }) = new_of(&plan, 3) else {
            panic!("it is looked at at once: {plan:?}")
        };
        assert!(after >= slackened(slackened(at(0))), "{after}");
        // If the next one is as dear, they lie behind for good.
        claim(&mut dear, &Look { took: 500, ..NOTHING });
        assert_eq!(new_of(&dear.plan(), 3), None);
    }

    #[test]
    fn no_row_lies_in_two_parts_of_a_plan() {
        let mut dear = dear(&[(0, at(-3_600)), (7, at(-10))]);
        for step in 0..500 {
            let now = NOW + step * 40_000;
            let rows = vec![(0, at(step / 25 - 2)), (7, at(step / 25 + 9))];
            let look = Look { rows, now, took: 1 + (step as u64 % 7), full: step % 3 == 0 };
            let (plan, _) = claim(&mut dear, &look);
            let ends = |span: &Span| match *span {
                Span::Within { rank, after, until } => ((rank, after), (rank, until)),
                Span::Ranks { from, to } => ((from, Uuid::nil()), (to, Uuid::max())),
                other => panic!("{other:?}"),
            };
            let mut parts: Vec<_> = plan.0.iter().map(|(span, _)| ends(span)).collect();
            parts.sort_unstable();
            assert!(parts.windows(2).all(|two| two[0].1 <= two[1].0), "{plan:?}");
        }
    }

    #[test]
    fn of_more_priorities_than_are_remembered_the_others_are_in_the_gaps() {
        let rows: Vec<_> = (-20..20).map(|rank| (rank, at(0))).collect();
        let dear = dear(&rows);
        assert_eq!(dear.ranks.len(), MOST_RANKS);
        let mut gaps = Gaps::new();
        dear.ranks.keys().for_each(|rank| gaps.take_out(*rank));
        let of_both = |gaps: &Gaps| format!("{gaps:?}").split("at:").next().map(str::to_owned);
        assert_eq!(of_both(&dear.gaps), of_both(&gaps));
    }
}
