//! The claim of one job by its id. Inside a transaction.

use diesel::result::QueryResult;
use qudo_core::driver::{ClaimedJob, JobClaim};
use qudo_hooks::JobId;

use super::ledger::{Orphans, balance};
use super::moving::Record;
use super::waiting::{take, waiting_each};
use super::{STAND, Since, Stand};
use crate::bulk::Keyed;
use crate::claimed::ready_since;
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Sql};
use crate::statements::facts::FACTS;

/// Leases a job that waits, ready or scheduled; `None` if it does not wait. One that is leased under this number already was
/// leased by an earlier try whose answer was lost.
///
/// Locking: its waiting row, as a claim that locks it first wins; the new lease is of an id that is in no other narrow table.
pub(crate) fn claim_job<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    claim: &JobClaim,
) -> QueryResult<Option<ClaimedJob>> {
    let ids = [*claim.job.as_uuid()];
    let found = waiting_each::<E>(conn, &ids)?.pop();
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let (stand, since) = match found {
        Some(row) => {
            let taken = take::<E>(conn, std::slice::from_ref(&row))?;
            let stand = Stand { attempt: row.stand.attempt + 1, ..row.stand };
            balance("claim one job", taken, put_lease::<E>(conn, claim, &stand)?)?;
            // One that was not due yet did not wait.
            (stand, row.run_after.map_or(row.since, |at| Since::At(at.min(now))))
        }
        None => match leased::<E>(conn, claim)? {
            Some(stand) => (stand, Since::Now),
            None => return Ok(None),
        },
    };
    let columns = format!("id, enqueued_at, {FACTS}");
    let job = Keyed::table("qudo_job");
    let facts = E::rows_by_id::<Record>(conn, &columns, &job, &ids, E::CURRENT)?.pop();
    let Some(Record { record, enqueued_at }) = facts else {
        return Orphans::refuse(ids.to_vec()).map(|()| None);
    };
    let ready_at = match since {
        Since::At(at) => Some(at),
        Since::Enqueue => None,
        Since::Now => Some(now),
    };
    Ok(Some(ClaimedJob {
        id: JobId::from_uuid(stand.id),
        claim: claim.claim,
        ordinal: 0,
        attempt: stand.attempt,
        crashes: stand.crashes,
        flags: stand.flags,
        facts: record.facts,
        enqueued_at,
        ready_since: ready_since(now, ready_at, enqueued_at.timestamp_micros()),
    }))
}

fn put_lease<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    claim: &JobClaim,
    stand: &Stand,
) -> QueryResult<usize> {
    let sql = format!(
        "INSERT INTO qudo_lease ({STAND}, worker, claim, leased_until) VALUES (?,?,?,?,?,?,?,?,?,{} + ?)",
        E::NOW
    );
    let binds = [
        Bind::Id(&stand.id),
        Bind::Text(&stand.queue),
        Bind::Int(stand.claim_rank),
        Bind::Text(&stand.ability),
        Bind::Int(stand.attempt),
        Bind::Int(stand.crashes),
        Bind::Int(stand.flags.bits()),
        Bind::Id(claim.worker.as_uuid()),
        Bind::Big(claim.claim),
        Bind::Big(micros(claim.grab_for)),
    ];
    conn.run(&sql, &binds)
}

/// The lease that this claim has already.
fn leased<E: Engine>(conn: &mut Sql<'_, E::Conn>, claim: &JobClaim) -> QueryResult<Option<Stand>> {
    let sql = format!("SELECT {STAND} FROM qudo_lease WHERE id = ? AND worker = ? AND claim = ?");
    let (job, worker) = (claim.job.as_uuid(), claim.worker.as_uuid());
    conn.row(&sql, &[Bind::Id(job), Bind::Id(worker), Bind::Big(claim.claim)])
}
