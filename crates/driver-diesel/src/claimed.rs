//! A claimed job as all engines read it.

use std::time::{Duration, Instant};

use diesel::deserialize;
use qudo_core::driver::{AbilityLease, ClaimRequest, ClaimedJob, Flags, JobFacts, Name};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::sql::{Columns, FromRow};
use crate::statements::facts::codec_name;
use crate::statements::lookup::instant;

/// The columns of a narrow row that a claim reads, in order.
pub(crate) const READY: &str =
    "r.id, r.claim_rank, r.ability, r.attempt, r.crashes, r.flags, r.ready_at";

/// The columns of the facts that a claim reads, in order: those that its ready row does not say already.
pub(crate) const FACTS: &str = "j.codec, j.arg, j.uniqkey, j.meta, j.enqueued_at";

/// A row of [`READY`] and [`FACTS`]; the facts may be missing.
pub(crate) struct ClaimRow {
    pub(crate) ready: ReadyRow,
    facts: Option<FactsRow>,
}

/// A row of [`READY`].
pub(crate) struct ReadyRow {
    pub(crate) id: Uuid,
    pub(crate) claim_rank: i32,
    pub(crate) ability: String,
    /// Before this run.
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) flags: Flags,
    /// Since when it is ready; `None` since it was enqueued.
    pub(crate) ready_at: Option<i64>,
}

/// A row of [`FACTS`].
pub(crate) struct FactsRow {
    codec: Name,
    arg: Vec<u8>,
    uniqkey: Option<String>,
    meta: Option<Box<str>>,
    enqueued_at: i64,
}

impl FromRow for ReadyRow {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            id: columns.id()?,
            claim_rank: columns.int()?,
            ability: columns.text()?,
            attempt: columns.int()?,
            crashes: columns.int()?,
            flags: Flags::from_bits(columns.int()?),
            ready_at: columns.opt_big()?,
        })
    }
}

impl FromRow for FactsRow {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let codec = columns.text()?;
        Self::after(&codec, columns)
    }
}

impl FactsRow {
    fn after(codec: &str, columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            codec: codec_name(codec),
            arg: columns.bytes()?,
            uniqkey: columns.opt_text()?,
            meta: columns.opt_text()?.map(Into::into),
            enqueued_at: columns.big()?,
        })
    }
}

impl FromRow for ClaimRow {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let ready = ReadyRow::from_row(columns)?;
        let codec = columns.opt_text()?;
        let facts = codec.map(|codec| FactsRow::after(&codec, columns)).transpose()?;
        Ok(Self { ready, facts })
    }
}

impl ClaimRow {
    pub(crate) fn has_facts(&self) -> bool {
        self.facts.is_some()
    }

    /// `None` without facts. `now` is the server's clock, in microseconds.
    pub(crate) fn into_claimed(self, request: &ClaimRequest<'_>, now: i64) -> Option<ClaimedJob> {
        Some(claimed(self.ready, self.facts?, request, now))
    }
}

/// Since when a job was ready, by our clock; all times by the server's, in microseconds. Never before it was there, although it may have been due.
pub(crate) fn ready_since(now: i64, ready_at: Option<i64>, enqueued_at: i64) -> Instant {
    let ready_at = ready_at.unwrap_or(enqueued_at).max(enqueued_at);
    let waited = Duration::from_micros(u64::try_from(now - ready_at).unwrap_or_default());
    let ours = Instant::now();
    ours.checked_sub(waited).unwrap_or(ours)
}

/// Puts the halves of a claimed job together. The names are those of the request, shared.
pub(crate) fn claimed(
    ready: ReadyRow,
    facts: FactsRow,
    request: &ClaimRequest<'_>,
    now: i64,
) -> ClaimedJob {
    let ability = match lease_of(request, &ready.ability) {
        Some(lease) => lease.name.clone(),
        None => Name::from(ready.ability),
    };
    ClaimedJob {
        id: JobId::from_uuid(ready.id),
        claim: request.claim,
        ordinal: 0,
        attempt: ready.attempt + 1,
        crashes: ready.crashes,
        flags: ready.flags,
        facts: JobFacts {
            ability,
            queue: request.queue.clone(),
            codec: facts.codec,
            arg: facts.arg,
            uniqkey: facts.uniqkey,
            priority: -ready.claim_rank,
            meta: facts.meta,
        },
        enqueued_at: instant(facts.enqueued_at),
        ready_since: ready_since(now, ready.ready_at, facts.enqueued_at),
    }
}

/// The request's word on an ability.
pub(crate) fn lease_of<'r>(
    request: &'r ClaimRequest<'_>,
    ability: &str,
) -> Option<&'r AbilityLease> {
    request.abilities.iter().find(|lease| *lease.name == *ability)
}

/// Numbers the jobs of a claim in the order of their ids.
pub(crate) fn number(jobs: &mut [ClaimedJob]) {
    if jobs.is_sorted_by_key(|job| job.id) {
        for (job, ordinal) in jobs.iter_mut().zip(0..) {
            job.ordinal = ordinal;
        }
        return;
    }
    let mut by_id: Vec<usize> = (0..jobs.len()).collect();
    by_id.sort_unstable_by_key(|at| jobs[*at].id);
    for (at, ordinal) in by_id.into_iter().zip(0..) {
        jobs[at].ordinal = ordinal;
    }
}
