//! Where a claim looks in a queue whose start is dear, because dead rows lie there.
//!
//! Claims go behind the last row of each priority that was seen. What lies before that is
//! [swept](crate::sweep) for late-comers, retries and jobs that became due, whose ids are older; and between
//! the priorities that were seen there are [gaps](crate::gaps). Both have a twentieth of the time, or as many
//! claims as the new rows if they fill them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::gaps::{Gap, Gaps};
use crate::plan::{Found, Look, Place, Plan, Reason, Span};
use crate::share::{LONG, Noise, its_share, looks_due, wait_its_share};
use crate::sweep::{Slice, Sweep, is_over};

/// Ids are not committed in their order, and are made by clocks that differ. So rows whose ids are up to five
/// seconds older than the last row are looked for as well, for a twentieth of the time.
const SLACK_MILLIS: u64 = 5_000;

/// The last row of at most 64 priorities is remembered, because each costs a claim a look; jobs of other priorities
/// are found in the gaps.
const MAX_RANKS: usize = 64;

/// So many gaps and as many slices have their turn before new rows in a claim that begins with them: twenty
/// milliseconds of each. After a pause there may be 64 of each, for which a new job would wait.
const FEW: usize = 13;

/// The time in an id, in milliseconds since 1970, begins here.
const MILLI: u32 = 80;

/// A queue whose start is dear.
pub(crate) struct Dear {
    ends_looks: bool,
    ranks: BTreeMap<i32, Rank>,
    /// The earliest moment for the next look at rows that were committed late.
    recent_at: Instant,
    /// The earliest moment for the next look behind a last row where such looks are dear.
    news_due: Instant,
    /// The earliest moment for the next slice.
    slices_due: Instant,
    /// Which claim this is: what is looked at first takes turns, or what fills the claims would keep the rest
    /// waiting.
    turn: usize,
    /// Which rank's slices come first: one sweep after the other, since those of all ranks share one twentieth. It
    /// is counted apart from `turn`: with an even number of ranks every second one would have its slices only in
    /// claims that begin with new rows.
    slice_turn: usize,
    /// With which rank's new rows every fourth claim begins: the first one that the last such claim had no time for,
    /// because it had jobs of other ranks.
    unreached: Option<i32>,
    gaps: Gaps,
    /// What the sweeps measured of empty looks, one after the other.
    noise: Noise,
    /// The start is not looked at before then: what is dear there may lie in no slice and no gap.
    over_at: Instant,
}

struct Rank {
    /// Rows up to this one are found by the sweep. It tells a time that is not in the future.
    last: Uuid,
    /// The earliest moment for the next look at new rows. It lies in the future only where two looks in a row
    /// were dear, as they are where dead rows lie behind `last` for good: new jobs of this rank wait for it.
    new_at: Instant,
    /// The last look at new rows was dear, and over at this time of the server. It may have waited for something else,
    /// and so may one that was made at the same time.
    long_until: Option<i64>,
    sweep: Sweep,
    /// The last sweep was cheap.
    is_clean: bool,
}

impl Dear {
    /// Begins with the rows that were found and with rank 0, which most jobs have.
    pub(crate) fn new(found: &Found<'_>) -> Self {
        let now = Instant::now();
        let mut dear = Self {
            ends_looks: found.ends_looks,
            ranks: BTreeMap::new(),
            recent_at: now,
            news_due: now,
            slices_due: now,
            turn: 0,
            slice_turn: 0,
            unreached: None,
            gaps: Gaps::new(),
            noise: Noise::default(),
            over_at: its_share(found.looks.iter().map(Look::for_nothing).sum()),
        };
        dear.advance(&[(0, a_little_before(found.now))], found.now);
        dear.advance(found.rows, found.now);
        dear
    }

    pub(crate) fn plan(&self) -> Plan {
        let turn = self.turn % 4;
        let mut news = self.news();
        if let Some(unreached) = self.unreached.filter(|_| turn == 3) {
            let is_reached = |(span, _): &(Span, _)| matches!(span, Span::Within { rank, .. } if *rank < unreached);
            let reached = news.iter().take_while(|one| is_reached(one)).count();
            news.rotate_left(reached);
        }
        // Where looks do not end each steps over all the dead rows behind it.
        let most = if self.ends_looks { usize::MAX } else { 1 };
        let gaps = self.gaps.next().take(most);
        let gaps = gaps.map(|(from, to)| (Span::Ranks { from, to }, Reason::Gap));
        let (mut gaps, mut slices): (Vec<_>, _) = (gaps.collect(), self.slices());
        let more_gaps = gaps.split_off(gaps.len().min(FEW));
        let more_slices = slices.split_off(slices.len().min(FEW));
        let order = match turn {
            0 => [gaps, slices, news, more_gaps, more_slices],
            1 => [news, gaps, slices, more_gaps, more_slices],
            2 => [slices, gaps, news, more_slices, more_gaps],
            _ => [news, slices, gaps, more_slices, more_gaps],
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

    /// The next slices, as many as are due, of the rank whose turn it is and of those that follow.
    fn slices(&self) -> Vec<(Span, Reason)> {
        let all = self.ranks.len().max(1);
        let turn = self.ranks.iter().cycle().skip(self.slice_turn % all).take(all);
        let slices = turn.flat_map(|(rank, known)| {
            known.sweep.next(slackened(known.last).as_u128()).map(|Slice { after, until }| {
                let (after, until) = (Uuid::from_u128(after), Uuid::from_u128(until));
                (Span::Within { rank: *rank, after, until }, Reason::Slice(*rank))
            })
        });
        let most = if self.ends_looks { usize::MAX } else { 1 };
        slices.take(looks_due(self.slices_due).min(most)).collect()
    }

    /// Answers whether the start of the queue is cheap again.
    pub(crate) fn note(&mut self, found: &Found<'_>) -> bool {
        self.turn = self.turn.wrapping_add(1);
        let looks = found.plan.0.iter().zip(found.looks).enumerate();
        let (mut recent, mut ended) = (None, found.now);
        for (at, ((span, reason), look)) in looks {
            ended = ended.saturating_add(i64::try_from(look.took.as_micros()).unwrap_or(i64::MAX));
            let took = look.for_nothing().saturating_sub(found.round_trip);
            let is_last = at + 1 == found.looks.len();
            let saw = if found.failed && is_last {
                Saw::Nothing
            } else if found.failed && look.rows > 0 {
                Saw::Undone
            } else if found.full && is_last {
                Saw::Part(found.rows.last().copied())
            } else {
                Saw::All
            };
            match (reason, span) {
                (Reason::Recent(rank) | Reason::New(rank), _) => {
                    if matches!(reason, Reason::Recent(_)) {
                        *recent.get_or_insert(Duration::ZERO) += took;
                    }
                    self.note_new(*rank, took, (found.now, ended), saw);
                }
                (Reason::Gap, Span::Ranks { from, to }) => {
                    self.note_gap((*from, *to), took, found.now, saw);
                }
                (Reason::Slice(rank), Span::Within { after, .. }) => {
                    self.note_slice(*rank, after.as_u128(), took, saw);
                }
                _ => {}
            }
        }
        self.note_unreached(found);
        self.recent_at = recent.map_or(self.recent_at, its_share);
        if !found.failed {
            self.advance(found.rows, found.now);
        }
        // A clock that was set right again.
        let present = id_of(millis(found.now));
        self.ranks.values_mut().for_each(|known| known.last = known.last.min(present));
        let is_clean = |known: &Rank| known.is_clean && known.long_until.is_none();
        self.gaps.are_clean && self.ranks.values().all(is_clean) && Instant::now() >= self.over_at
    }

    /// Where the next claim begins that does not begin with the highest priority. Claims in their usual order
    /// say nothing of that.
    fn note_unreached(&mut self, found: &Found<'_>) {
        let news = |looks: usize| {
            found.plan.0.iter().skip(looks).filter_map(|(_, reason)| rank_of_news(*reason))
        };
        let next = self.unreached.and_then(|rank| news(0).filter(|one| *one >= rank).min());
        if news(0).next() == next.or(news(0).min()) {
            self.unreached = news(found.looks.len()).next().filter(|_| !found.full);
        }
    }

    fn note_slice(&mut self, rank: i32, begun: u128, took: Duration, saw: Saw) {
        // One that filled the claim is looked at again soon, from where it ended.
        let is_worth_it = matches!(saw, Saw::Part(_) | Saw::Undone);
        let dear = if is_worth_it { took.saturating_sub(LONG) } else { took };
        wait_its_share(&mut self.slices_due, dear);
        let first = self.ranks.keys().nth(self.slice_turn % self.ranks.len().max(1)).copied();
        let Some(known) = self.ranks.get_mut(&rank) else { return };
        let end = slackened(known.last).as_u128();
        let mut is_swept = !matches!(saw, Saw::All);
        match saw {
            Saw::Nothing => known.sweep.note_failed(begun, took, end, self.noise),
            Saw::Part(Some((last, id))) if last == rank => {
                known.sweep.note_part(begun, id.as_u128(), took, end, self.noise);
            }
            Saw::Part(_) | Saw::Undone => {}
            Saw::All => {
                if let Some(all) = known.sweep.note(begun, took, end, &mut self.noise) {
                    known.is_clean = is_over(all);
                    is_swept = true;
                }
            }
        }
        if is_swept && first == Some(rank) {
            self.slice_turn = self.slice_turn.wrapping_add(1);
        }
    }

    fn note_gap(&mut self, gap: Gap, took: Duration, now: i64, saw: Saw) {
        let rank = match saw {
            Saw::Nothing => self.gaps.note_failed(gap, took, self.noise, self.ends_looks),
            Saw::Part(_) | Saw::Undone => {
                self.gaps.leave(gap, took);
                None
            }
            Saw::All => self.gaps.note(gap, took, self.noise, self.ends_looks),
        };
        if let Some(rank) = rank.filter(|_| self.ranks.len() < MAX_RANKS) {
            self.advance(&[(rank, a_little_before(now))], now);
        }
    }

    /// After a look at all that is new in a rank the next one begins where this one ended. Its claim began
    /// and it ended at these times of the server.
    fn note_new(&mut self, rank: i32, took: Duration, (now, ended): (i64, i64), saw: Saw) {
        let Some(known) = self.ranks.get_mut(&rank) else { return };
        if matches!(saw, Saw::Undone) {
            return;
        }
        let (before, seen) = (known.last, a_little_before(now));
        let is_long = took > if self.ends_looks { LONG * 10 } else { LONG };
        // Of a look that takes long and fails, as it does at its deadline, the rows are left to the sweep, which
        // looks at them in pieces.
        let ends = matches!(saw, Saw::All) || (matches!(saw, Saw::Nothing) && is_long);
        if ends {
            known.last = before.max(seen);
        }
        // What it stepped over lies before the place where the next one begins. If not, because such ids
        // tell no time or a look does not end where it should, the next is as dear. It may be if it brings as
        // many jobs as were asked for.
        let leaves_it_behind = self.ends_looks && ends && before < slackened(seen);
        let is_worth_it = matches!(saw, Saw::Part(_));
        let was_long = known.long_until.is_some_and(|until| now >= until);
        if is_long && !leaves_it_behind && !is_worth_it && was_long {
            wait_its_share(&mut self.news_due, took);
            known.new_at = self.news_due;
        }
        // Of several looks at one time the first counts, or looks that overlap for ever would never count.
        let first = known.long_until.filter(|until| now < *until);
        // Its clock may have gone back since.
        known.long_until = is_long.then_some(first.map_or(ended, |until| until.min(ended)));
    }

    fn advance(&mut self, rows: &[Place], now: i64) {
        for (rank, id) in rows {
            // All that came in time would lie before an id of the future, or before one that tells no time.
            let last = if tells_time(*id) { (*id).min(id_of(millis(now))) } else { Uuid::nil() };
            if let Some(known) = self.ranks.get_mut(rank) {
                known.last = known.last.max(last);
            } else if self.ranks.len() < MAX_RANKS {
                let last = if last.is_nil() { a_little_before(now) } else { last };
                let end = slackened(last).as_u128();
                let sweep =
                    if self.ends_looks { Sweep::new(end, 1 << MILLI) } else { Sweep::whole() };
                let new_at = Instant::now();
                let rank_of = Rank { last, new_at, long_until: None, sweep, is_clean: false };
                self.ranks.insert(*rank, rank_of);
                self.gaps.take_out(*rank);
            }
        }
    }
}

/// What a look saw of its part.
#[derive(Debug, Clone, Copy)]
enum Saw {
    All,
    /// As much as was asked for, up to this row.
    Part(Option<Place>),
    /// It found rows, and the claim failed after it, so they may still be there.
    Undone,
    /// The claim failed with it: what it found is not known.
    Nothing,
}

fn rank_of_news(reason: Reason) -> Option<i32> {
    match reason {
        Reason::New(rank) | Reason::Recent(rank) => Some(rank),
        _ => None,
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

/// The least id of the moment five seconds before this id's.
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

    struct Claim {
        took: u64,
        rows: Vec<Place>,
        full: bool,
        now: i64,
    }

    const NOTHING: Claim = Claim { took: 1, rows: Vec::new(), full: false, now: NOW };

    fn look(millis: u64, rows: usize) -> Look {
        Look { took: Duration::from_millis(millis), rows, bytes: 0 }
    }

    /// A claim of which each look takes so many milliseconds, a round trip of one included.
    fn claim(dear: &mut Dear, claim: &Claim) -> (Plan, bool) {
        let plan = dear.plan();
        let looks = if claim.full { 1 } else { plan.0.len() };
        let looks = vec![look(claim.took, claim.rows.len()); looks];
        let found = Found { plan: &plan, looks: &looks, now: claim.now, ..found(claim) };
        let is_over = dear.note(&found);
        (plan, is_over)
    }

    fn found(claim: &Claim) -> Found<'_> {
        static NO_PLAN: Plan = Plan(Vec::new());
        Found {
            plan: &NO_PLAN,
            looks: &[],
            rows: &claim.rows,
            full: claim.full,
            failed: false,
            now: claim.now,
            round_trip: Duration::from_millis(1),
            ends_looks: true,
        }
    }

    fn dear(rows: &[Place]) -> Dear {
        Dear::new(&found(&Claim { rows: rows.to_vec(), ..NOTHING }))
    }

    fn new_of(plan: &Plan, wanted: i32) -> Option<Span> {
        let is_new = |reason: &Reason| matches!(reason, Reason::New(rank) | Reason::Recent(rank) if *rank == wanted);
        plan.0.iter().find(|(_, reason)| is_new(reason)).map(|(span, _)| *span)
    }

    #[test]
    fn a_place_behind_the_last_job_of_each_priority_is_looked_at_by_every_claim() {
        let mut dear = dear(&[(3, at(-60)), (-5, at(-30))]);
        for _ in 0..20 {
            let (plan, _) = claim(&mut dear, &Claim { took: 5, ..NOTHING });
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
                let looks = vec![look(1, 0); made];
                let seen = Claim { full: end.is_some(), ..NOTHING };
                dear.note(&Found { plan: &plan, looks: &looks, ..found(&seen) });
                others += plan.0.iter().take(made).filter(|(_, reason)| !is(reason)).count();
            }
            assert!(others >= 20, "{what:?} left {others} looks to the others");
        }
    }

    #[test]
    fn old_rows_of_every_rank_come_first_now_and_then() {
        for ranks in 1..=6 {
            let rows: Vec<_> = (1..ranks).map(|rank| (rank, at(0))).collect();
            let (mut dear, mut first) = (dear(&rows), std::collections::BTreeSet::new());
            for _ in 0..600 {
                let plan = dear.plan();
                let slice =
                    plan.0.iter().position(|(_, reason)| matches!(reason, Reason::Slice(_)));
                let new = plan
                    .0
                    .iter()
                    .position(|(_, reason)| matches!(reason, Reason::New(_) | Reason::Recent(_)));
                if let (Some(slice), Some(new)) = (slice, new)
                    && slice < new
                    && let Reason::Slice(rank) = plan.0[slice].1
                {
                    first.insert(rank);
                }
                // New rows fill the claim once slices and gaps were looked at.
                let made = new.map_or(plan.0.len(), |new| new + 1);
                let looks = vec![look(1, 0); made];
                let seen = Claim { full: true, ..NOTHING };
                dear.note(&Found { plan: &plan, looks: &looks, ..found(&seen) });
            }
            assert_eq!(first.len() as i32, ranks, "of {ranks} ranks {first:?}");
        }
    }

    #[test]
    fn a_sweep_ends_although_each_claim_that_looks_at_its_last_slice_begins_with_new_rows() {
        let mut dear = dear(&[]);
        for step in 0..4_000 {
            let now = NOW + step * 14_000;
            let plan = dear.plan();
            let looks = vec![look(1, 0); plan.0.len()];
            dear.note(&Found { plan: &plan, looks: &looks, now, ..found(&NOTHING) });
            if dear.ranks[&0].is_clean {
                return;
            }
            // What is due falls on claims that begin with new rows.
            dear.turn = 1;
            dear.slices_due = Instant::now();
        }
        panic!("the sweep never ends");
    }

    #[test]
    fn after_a_pause_new_rows_wait_for_a_few_looks_only() {
        let mut dear = dear(&[]);
        let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).expect("later");
        for _ in 0..40 {
            dear.slices_due = long_ago;
            let (plan, _) = claim(&mut dear, &NOTHING);
            let before = plan.0.iter().position(|(_, reason)| rank_of_news(*reason).is_some());
            assert!(before.expect("is looked at") <= 26, "{plan:?}");
        }
    }

    #[test]
    fn a_claim_that_fails_is_followed_by_another_plan() {
        let mut dear = dear(&[]);
        let plan = dear.plan();
        let looks = vec![look(4_000, 0); plan.0.len()];
        dear.note(&Found { plan: &plan, looks: &looks, failed: true, ..found(&NOTHING) });
        let next = dear.plan();
        assert!(next.0.len() < plan.0.len(), "{next:?}");
        assert!(new_of(&next, 0).is_some(), "one that was slow once is looked at again: {next:?}");
    }

    #[test]
    fn what_rows_cost_makes_no_look_dear() {
        let mut dear = dear(&[]);
        for _ in 0..10 {
            let rows = (0..300).map(|_| (0, at(0))).collect();
            claim(&mut dear, &Claim { took: 31, rows, ..NOTHING });
            assert!(new_of(&dear.plan(), 0).is_some());
        }
    }

    #[test]
    fn a_part_that_has_more_than_was_asked_for_is_looked_at_again() {
        let mut dear = dear(&[]);
        claim(&mut dear, &NOTHING);
        claim(&mut dear, &NOTHING);
        let before = dear.plan();
        assert!(matches!(before.0[0].1, Reason::Slice(0)), "{before:?}");
        let (Span::Within { after, until, .. }, _) = before.0[0] else { panic!("{before:?}") };
        let last = Uuid::from_u128(after.as_u128().midpoint(until.as_u128()));
        claim(&mut dear, &Claim { full: true, rows: vec![(0, last)], ..NOTHING });
        // What it found is deleted now, and would be stepped over.
        let next = (Span::Within { rank: 0, after: last, until }, Reason::Slice(0));
        assert!(dear.plan().0.contains(&next), "{:?}", dear.plan());
    }

    #[test]
    fn what_a_look_cannot_see_in_its_time_is_seen_in_pieces() {
        // Each row takes a microsecond, and nobody waits longer than a second.
        let end = slackened(slackened(at(0))).as_u128();
        let rows: Vec<u128> = (0..5_000_000).map(|row| (end >> 4) + row * 1_000).collect();
        let (mut dear, mut seen) = (dear(&[]), std::collections::BTreeSet::new());
        for _ in 0..4_000 {
            let plan = dear.plan();
            let cost = |span: &Span| match span {
                Span::Within { rank: 0, after, until } => {
                    let upto = |id: &Uuid| rows.partition_point(|row| *row <= id.as_u128());
                    upto(until) - upto(after)
                }
                _ => 0,
            };
            let took: Vec<_> = plan.0.iter().map(|(span, _)| cost(span) as u64 / 1_000).collect();
            let failed = took.iter().sum::<u64>() > 1_000;
            let looks: Vec<_> = took.iter().map(|took| look(1 + took, 0)).collect();
            if !failed {
                let slices = plan.0.iter().filter(|(_, reason)| *reason == Reason::Slice(0));
                for (span, _) in slices {
                    let Span::Within { after, until, .. } = span else { panic!("{span:?}") };
                    let from = rows.partition_point(|row| *row <= after.as_u128());
                    let to = rows.partition_point(|row| *row <= until.as_u128());
                    seen.extend((from..to).step_by(100_000).map(|row| row / 100_000));
                }
            }
            dear.note(&Found { plan: &plan, looks: &looks, failed, ..found(&NOTHING) });
            // Nobody claimed for a while, and many slices are due.
            dear.slices_due = Instant::now().checked_sub(Duration::from_secs(60)).expect("later");
        }
        assert!(seen.len() >= 49, "{seen:?}");
    }

    #[test]
    fn a_higher_priority_with_a_job_for_every_claim_keeps_no_lower_one_waiting() {
        let mut dear = dear(&[(-5, at(0)), (3, at(0))]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let plan = dear.plan();
            // Once there is a job there is no time for another look.
            let first = plan.0.iter().position(|(_, reason)| rank_of_news(*reason).is_some());
            let made = first.map_or(plan.0.len(), |first| first + 1);
            let looks = vec![look(22, 1); made];
            let rank = rank_of_news(plan.0[made - 1].1);
            let rows: Vec<_> = rank.map(|rank| (rank, at(0))).into_iter().collect();
            seen.extend(rank);
            let claim = Claim { rows, ..NOTHING };
            dear.note(&Found { plan: &plan, looks: &looks, ..found(&claim) });
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-5, 0, 3]);
    }

    #[test]
    fn new_rows_that_fill_a_claim_are_looked_at_again_whatever_that_takes() {
        let mut dear = dear(&[]);
        for _ in 0..10 {
            let plan = dear.plan();
            let at_news = plan.0.iter().position(|(_, reason)| rank_of_news(*reason).is_some());
            let mut looks = vec![look(1, 0); at_news.expect("is looked at")];
            looks.push(look(60, 4));
            let claim = Claim { rows: vec![(0, at(0)); 4], full: true, ..NOTHING };
            dear.note(&Found { plan: &plan, looks: &looks, ..found(&claim) });
            assert!(new_of(&dear.plan(), 0).is_some());
        }
    }

    #[test]
    fn an_id_of_the_future_or_without_a_time_leaves_the_place_where_it_is() {
        let random = Uuid::from_u128(0xf234_5678_9abc_4def_8123_4567_89ab_cdef);
        for odd in [at(3_600), random] {
            let mut dear = dear(&[(0, at(-1))]);
            claim(&mut dear, &Claim { rows: vec![(0, odd), (4, odd)], ..NOTHING });
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
        claim(&mut dear, &Claim { took: 100, ..NOTHING });
        let plan = dear.plan();
        let Some(Span::Within { after, .. }) = new_of(&plan, 3) else {
            panic!("it is looked at at once: {plan:?}")
        };
        assert!(after >= slackened(slackened(at(0))), "{after}");
        // One at the same time may have waited for the same.
        claim(&mut dear, &Claim { took: 100, ..NOTHING });
        assert!(new_of(&dear.plan(), 3).is_some());
        // If a later one is as dear, they lie behind for good.
        claim(&mut dear, &Claim { took: 100, now: NOW + 4_000_000, ..NOTHING });
        assert_eq!(new_of(&dear.plan(), 3), None);
    }

    #[test]
    fn no_row_lies_in_two_parts_of_a_plan() {
        let mut dear = dear(&[(0, at(-3_600)), (7, at(-10))]);
        for step in 0..500 {
            let now = NOW + step * 40_000;
            let rows = vec![(0, at(step / 25 - 2)), (7, at(step / 25 + 9))];
            let took = 1 + (step as u64 % 7);
            let (plan, _) = claim(&mut dear, &Claim { rows, now, took, full: step % 3 == 0 });
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
        let rows: Vec<_> = (-40..40).map(|rank| (rank, at(0))).collect();
        let dear = dear(&rows);
        assert_eq!(dear.ranks.len(), MAX_RANKS);
        let mut gaps = Gaps::new();
        dear.ranks.keys().for_each(|rank| gaps.take_out(*rank));
        let of_both = |gaps: &Gaps| format!("{gaps:?}").split("at:").next().map(str::to_owned);
        assert_eq!(of_both(&dear.gaps), of_both(&gaps));
    }
}
