//! Where the next claim of a queue looks.
//!
//! Claimed rows are deleted, but on servers with versions of rows they stay in the index until
//! vacuum or purge. A claim from the start of the queue steps over all of them, more with every
//! claim while some long transaction holds vacuum back. So a claim starts after the last row of
//! the one before, and from the start again every so often, for jobs of higher priority and for
//! retries, whose ids are older.
//!
//! While looks at the start are cheap, a claim that finds too few behind the cursor looks there as
//! well. Once they are dear, claims go behind the last row of each priority that was seen; what lies
//! before it is [swept](crate::sweep), and priorities that were not seen have their share of the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use crate::share::{is_dear, its_share};
use crate::sweep::{LONG, Slice, Sweep, is_over};

/// Claims look at the start of the queue this often: how long a job of higher priority waits at
/// most behind the cursor.
const FROM_START_EVERY: Duration = Duration::from_millis(100);

/// Ids are not committed in their order, and are made by clocks that differ: so far behind the last
/// row is looked as well, a twentieth of the time.
const SLACK_MILLIS: u128 = 5_000;

/// Of so many priorities the last row is remembered; jobs of others are found between them.
const MOST_RANKS: usize = 16;

/// The time in an id, in milliseconds since 1970, begins here.
const MILLI: u32 = 80;

/// A row's place in the order of the claim.
pub(crate) type Place = (i32, Uuid);

/// A part of a queue, in the order of the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    Whole,
    /// Behind a row, to the end of the queue. An engine may stop at the end of the row's rank.
    Behind(Place),
    /// Rows of one rank, behind the one id and up to the other.
    Within {
        rank: i32,
        after: Uuid,
        until: Uuid,
    },
    /// Ranks from the one to the other.
    Ranks {
        from: i32,
        to: i32,
    },
}

/// Why a part is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The cursor of a backlog.
    Cursor,
    Start,
    /// New rows of a rank.
    New(i32),
    /// The same, with those that were committed late.
    Recent(i32),
    /// A slice of the rows before those.
    Slice(i32),
    /// Ranks that were not seen yet: which of the gaps.
    Gap(usize),
}

/// What a claim looks at, one after the other until it has enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan(Vec<(Span, Reason)>);

impl Plan {
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.0.iter().map(|(span, _)| *span)
    }
}

/// What a claim found.
pub(crate) struct Found<'a> {
    pub(crate) plan: &'a Plan,
    /// How long the looks took, of those that were made.
    pub(crate) took: &'a [Duration],
    /// The rows, in the order in which they were found.
    pub(crate) rows: &'a [Place],
    /// As many as were asked for.
    pub(crate) full: bool,
    /// How long the server takes to answer anything.
    pub(crate) round_trip: Duration,
    /// A part that is cut in two makes two looks that are cheaper.
    pub(crate) ends_looks: bool,
}

/// A queue whose start is cheap and whose backlog is worked.
struct Backlog {
    /// The last row of a full claim.
    after: Place,
    from_start_at: Instant,
}

/// A queue whose start is dear.
struct Dear {
    ends_looks: bool,
    ranks: BTreeMap<i32, Rank>,
    /// Not before then a rank is looked at for late ones.
    recent_at: Instant,
    /// The rank whose slice is next.
    turn: usize,
    /// The others, from the one to the other, in order.
    gaps: Vec<(i32, i32)>,
    gap: usize,
    gap_at: Instant,
    /// What the gaps took since the first one.
    gaps_spent: Duration,
    gaps_are_clean: bool,
}

struct Rank {
    last: Uuid,
    /// Not before then it is looked at for new rows. Only where dead rows of others lie behind it, and a
    /// look does not end at its end, is that ever later.
    new_at: Instant,
    sweep: Sweep,
    /// The last sweep was cheap.
    is_clean: bool,
}

enum State {
    Backlog(Backlog),
    Dear(Dear),
}

/// The cursors of one database, by queue.
#[derive(Default)]
pub(crate) struct Cursors(Mutex<HashMap<Arc<str>, State>>);

impl Cursors {
    /// Where the next claim of this queue looks.
    pub(crate) fn plan(&self, queue: &str) -> Plan {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (Span::Whole, Reason::Start);
        match cursors.get(queue) {
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
        queues.iter().any(|queue| matches!(cursors.get(*queue), Some(State::Dear(_))))
    }

    /// Notes what a claim found.
    pub(crate) fn note(&self, queue: &Arc<str>, found: &Found<'_>) {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = found.rows.last().copied();
        if let Some(State::Dear(dear)) = cursors.get_mut(queue) {
            if dear.note(found) {
                cursors.remove(queue);
            }
            return;
        }
        let looks = found.plan.0.iter().zip(found.took);
        let mut start =
            looks.filter(|((_, reason), _)| *reason == Reason::Start).map(|(_, took)| *took);
        match (start.next_back(), cursors.get_mut(queue), last) {
            // A full claim is as long as its rows take.
            (Some(took), _, Some(after)) if found.full => {
                let from_start_at = its_share(took).max(Instant::now() + FROM_START_EVERY);
                let backlog = Backlog { after, from_start_at };
                cursors.insert(Arc::clone(queue), State::Backlog(backlog));
            }
            (Some(took), _, _) if is_dear(took, found.round_trip) => {
                let dear = Dear::new(found.rows, found.ends_looks);
                cursors.insert(Arc::clone(queue), State::Dear(dear));
            }
            (Some(_), _, _) => drop(cursors.remove(queue)),
            (None, Some(State::Backlog(backlog)), Some(after)) => backlog.after = after,
            _ => {}
        }
    }
}

impl Dear {
    /// Where nothing but these is left, and most jobs have no priority of their own.
    fn new(rows: &[Place], ends_looks: bool) -> Self {
        let now = Instant::now();
        let mut dear = Self {
            ends_looks,
            ranks: BTreeMap::new(),
            recent_at: now,
            turn: 0,
            gaps: vec![(i32::MIN, i32::MAX)],
            gap: 0,
            gap_at: now,
            gaps_spent: Duration::ZERO,
            gaps_are_clean: false,
        };
        dear.advance(&[(0, just_now())]);
        dear.advance(rows);
        dear
    }

    fn plan(&self) -> Plan {
        let now = Instant::now();
        let recent = now >= self.recent_at;
        let due = self.ranks.iter().filter(|(_, known)| now >= known.new_at);
        let news = due.map(|(rank, known)| {
            let after = if recent { slackened(known.last) } else { known.last };
            let span = Span::Within { rank: *rank, after, until: Uuid::max() };
            (span, if recent { Reason::Recent(*rank) } else { Reason::New(*rank) })
        });
        let mut plan: Vec<_> = news.collect();
        if now >= self.gap_at
            && let Some((from, to)) = self.gaps.get(self.gap)
        {
            plan.push((Span::Ranks { from: *from, to: *to }, Reason::Gap(self.gap)));
        }
        let turn = self.ranks.iter().cycle().skip(self.turn % self.ranks.len().max(1));
        let due = turn.take(self.ranks.len()).find_map(|(rank, known)| {
            Some((*rank, known.sweep.next(slackened(known.last).as_u128())?))
        });
        plan.extend(due.map(|(rank, Slice { after, until })| {
            let (after, until) = (Uuid::from_u128(after), Uuid::from_u128(until));
            (Span::Within { rank, after, until }, Reason::Slice(rank))
        }));
        Plan(plan)
    }

    /// Answers whether the start of the queue is cheap again.
    fn note(&mut self, found: &Found<'_>) -> bool {
        let mut recent = None;
        for ((_, reason), took) in found.plan.0.iter().zip(found.took) {
            let took = took.saturating_sub(found.round_trip);
            match reason {
                Reason::Recent(rank) | Reason::New(rank) => {
                    if matches!(reason, Reason::Recent(_)) {
                        *recent.get_or_insert(Duration::ZERO) += took;
                    }
                    if let Some(known) = self.ranks.get_mut(rank)
                        && !self.ends_looks
                        && took > LONG
                        && !found.full
                    {
                        known.new_at = its_share(took);
                    }
                }
                Reason::Gap(gap) => self.note_gap(*gap, took, found.full),
                Reason::Slice(rank) => {
                    self.turn = self.turn.wrapping_add(1);
                    if let Some(known) = self.ranks.get_mut(rank) {
                        let end = slackened(known.last).as_u128();
                        if let Some(all) = known.sweep.note(took, end) {
                            known.is_clean = is_over(all);
                        }
                    }
                }
                Reason::Cursor | Reason::Start => {}
            }
        }
        self.recent_at = recent.map_or(self.recent_at, its_share);
        self.advance(found.rows);
        self.gaps_are_clean && self.ranks.values().all(|known| known.is_clean)
    }

    /// A gap that is dear holds dead rows of some rank: it is cut in two until that is found.
    fn note_gap(&mut self, gap: usize, took: Duration, full: bool) {
        self.gap_at = its_share(took);
        if full {
            // It took as long as its rows did.
            return;
        }
        self.gaps_spent += took;
        self.gap = gap + 1;
        if took > LONG
            && self.ends_looks
            && let Some((from, to)) = self.gaps.get(gap).copied()
        {
            if from < to {
                let cut = middle(from, to);
                drop(self.gaps.splice(gap..=gap, [(from, cut), (cut + 1, to)]));
                self.gap += 1;
            } else if self.ranks.len() < MOST_RANKS {
                self.advance(&[(from, just_now())]);
            }
        }
        if self.gap >= self.gaps.len() {
            self.gap = 0;
            self.gaps_are_clean = is_over(std::mem::take(&mut self.gaps_spent));
        }
    }

    fn advance(&mut self, rows: &[Place]) {
        for (rank, id) in rows {
            if let Some(known) = self.ranks.get_mut(rank) {
                known.last = known.last.max(*id);
            } else if self.ranks.len() < MOST_RANKS {
                let end = slackened(*id).as_u128();
                let sweep =
                    if self.ends_looks { Sweep::new(end, 1 << MILLI) } else { Sweep::whole() };
                let new_at = Instant::now();
                self.ranks.insert(*rank, Rank { last: *id, new_at, sweep, is_clean: false });
                self.take_out(*rank);
            }
        }
    }

    /// A rank that is known is in no gap.
    fn take_out(&mut self, rank: i32) {
        let Some(at) = self.gaps.iter().position(|(from, to)| (*from..=*to).contains(&rank)) else {
            return;
        };
        let (from, to) = self.gaps[at];
        let parts = [(from, rank.saturating_sub(1)), (rank.saturating_add(1), to)];
        let is_part = |(part_from, part_to): &(i32, i32)| {
            part_from <= part_to && !(*part_from..=*part_to).contains(&rank)
        };
        drop(self.gaps.splice(at..=at, parts.into_iter().filter(is_part)));
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

/// The least id of a moment a little before.
fn just_now() -> Uuid {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    slackened(Uuid::from_u128(now.as_millis() << MILLI))
}

/// An id from a while before, if it tells the time.
fn slackened(id: Uuid) -> Uuid {
    let id_of = |millis: u128| Uuid::from_u128(millis << MILLI);
    let millis = id.as_u128() >> MILLI;
    let tells_time = id.get_version_num() == 7 || id == id_of(millis);
    if tells_time { id_of(millis.saturating_sub(SLACK_MILLIS)) } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: &str = "mail";

    /// A claim of which each look takes as many milliseconds as told, the last one for all others.
    fn claim(cursors: &Cursors, took: &[u64], rows: &[Place], full: bool) -> Plan {
        let plan = cursors.plan(QUEUE);
        let took: Vec<_> = (0..plan.0.len())
            .map(|at| Duration::from_millis(took[at.min(took.len() - 1)]))
            .collect();
        let round_trip = Duration::from_millis(1);
        let (plan_of, took_of) = (&plan, &took);
        let found =
            Found { plan: plan_of, took: took_of, rows, full, round_trip, ends_looks: true };
        cursors.note(&Arc::from(QUEUE), &found);
        plan
    }

    #[test]
    fn while_looks_are_cheap_only_a_full_claim_leaves_a_cursor() {
        let cursors = Cursors::default();
        let start = (Span::Whole, Reason::Start);
        let last = (0, Uuid::now_v7());
        assert_eq!(claim(&cursors, &[1], &[last], true).0, [start]);
        let behind = (Span::Behind(last), Reason::Cursor);
        assert_eq!(claim(&cursors, &[1], &[], false).0, [behind, start], "if too few are found");
        assert_eq!(cursors.plan(QUEUE).0, [start]);
    }

    #[test]
    fn once_looks_are_dear_each_priority_has_a_place_and_the_rest_its_share() {
        let cursors = Cursors::default();
        let (high, low) = ((-5, Uuid::now_v7()), (3, Uuid::now_v7()));
        claim(&cursors, &[2_000], &[high, low], false);
        assert!(cursors.are_dear(&["other", QUEUE]));
        let plan = claim(&cursors, &[2, 2, 2, 100, 100], &[], false);
        let reasons: Vec<_> = plan.0.iter().map(|(_, reason)| *reason).collect();
        let recent = [-5, 0, 3].map(Reason::Recent);
        assert_eq!(reasons[..3], recent);
        assert_eq!(reasons[3..], [Reason::Gap(0), Reason::Slice(-5)]);
        assert!(!plan.spans().any(|span| span == Span::Whole));
        // All of that was dear, so now only new rows are looked for, and the next slice.
        let plan = claim(&cursors, &[1], &[(-5, Uuid::now_v7())], false);
        let reasons: Vec<_> = plan.0.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons[..3], [-5, 0, 3].map(Reason::New));
        assert_eq!(reasons[3..], [Reason::Slice(0)]);
        let is_behind = |(span, _): &(Span, Reason)| {
            *span == Span::Within { rank: -5, after: high.1, until: Uuid::max() }
        };
        assert!(is_behind(&plan.0[0]));
        assert!(!is_behind(&cursors.plan(QUEUE).0[0]), "a newer one was found");
    }

    #[test]
    fn when_nothing_is_dear_any_more_the_start_is_looked_at_again() {
        let cursors = Cursors::default();
        claim(&cursors, &[2_000], &[], false);
        let mut claims = 0;
        while cursors.are_dear(&[QUEUE]) {
            claim(&cursors, &[1], &[], false);
            claims += 1;
            assert!(claims < 1_000_000, "for ever");
        }
        assert_eq!(cursors.plan(QUEUE).0, [(Span::Whole, Reason::Start)]);
    }

    /// Looks at the gaps, where the one with this rank is dear, until all are cheap.
    fn find(dear: &mut Dear, rank: i32) -> usize {
        let mut dear_looks = 0;
        for _ in 0..1_000 {
            let (from, to) = dear.gaps[dear.gap];
            let is_dear = (from..=to).contains(&rank);
            dear_looks += usize::from(is_dear);
            dear.note_gap(dear.gap, Duration::from_millis(if is_dear { 50 } else { 0 }), false);
        }
        dear_looks
    }

    #[test]
    fn a_priority_of_dead_rows_alone_is_found_within_few_looks() {
        for rank in [1, -1, 3, -10, 100, -1_000, i32::MAX, i32::MIN] {
            let mut dear = Dear::new(&[], true);
            let looks = find(&mut dear, rank);
            assert!(looks <= 40, "{looks} looks for {rank}");
            assert!(dear.ranks.contains_key(&rank) && dear.gaps_are_clean);
            // Every other rank is in one gap.
            let inside =
                |one: i32| dear.gaps.iter().filter(move |(from, to)| (*from..=*to).contains(&one));
            for one in [i32::MIN, -1_001, -10, -3, -1, 1, 2, 4, 99, 101, i32::MAX] {
                assert_eq!(
                    inside(one).count(),
                    usize::from(!dear.ranks.contains_key(&one)),
                    "{one}"
                );
            }
        }
    }

    #[test]
    fn of_more_priorities_than_are_remembered_the_others_are_in_the_gaps() {
        let rows: Vec<_> = (-20..20).map(|rank| (rank, Uuid::now_v7())).collect();
        let dear = Dear::new(&rows, true);
        assert_eq!(dear.ranks.len(), MOST_RANKS);
        let inside = |rank: &i32| dear.gaps.iter().any(|(from, to)| (*from..=*to).contains(rank));
        assert!((-20..20).all(|rank| inside(&rank) != dear.ranks.contains_key(&rank)));
    }

    #[test]
    fn ids_that_tell_no_time_are_left_as_they_are() {
        let random = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
        assert_eq!(slackened(random), random);
        let id = Uuid::now_v7();
        assert_eq!((id.as_u128() >> MILLI) - (slackened(id).as_u128() >> MILLI), SLACK_MILLIS);
    }
}
