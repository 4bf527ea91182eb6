//! The end of a group of runs of every kind, in one statement.

use std::collections::HashSet;

use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, ExceptionRecord, Settled, Settlement, StatusRecord, Verdict};
use uuid::Uuid;

use super::Postgres;
use super::runs::Runs;
use crate::engine::{Engine, micros};
use crate::held_key::HeldKey;
use crate::sql::{Array, Bind, Sql};
use crate::statements::settle::{
    again, answers, ended_keys, has_twins, insert_replacements, is_gone, is_plain,
};

/// What the function says when it changed nothing because a lease is not ours, or a job has no facts.
const NOT_HELD: &str = "qudo: not all leases are held";

/// Settles a group whose leases are all held; `None` when they are not, and nothing is changed.
///
/// One statement is one round trip and one commit, and what a job brings beside its end costs the others
/// nothing. Only with replacements, whose keys others may hold, there is a transaction around it.
pub(super) fn settle_held(
    engine: &Postgres,
    worker: &Uuid,
    settlements: &[Settlement],
) -> Result<Option<Vec<Settled>>, DriverError> {
    if has_twins(settlements) {
        return Ok(None);
    }
    let replaces = |one: &Settlement| {
        one.extras.as_ref().is_some_and(|extras| !extras.replacements.is_empty())
    };
    let has_replacements = settlements.iter().any(replaces);
    let ours: Vec<&Settlement> = settlements.iter().collect();
    let leases = Runs::of(ours.iter().map(|one| &*one.job)).leases();
    let is_plain = is_plain(settlements);
    let beside = if is_plain { Vec::new() } else { beside(&ours) };
    let mut binds = vec![Bind::Id(worker)];
    binds.extend(leases.iter().chain(&beside).map(Bind::Array));
    let function = if is_plain { "qudo_complete" } else { "qudo_settle" };
    let call = call(function, binds.len(), engine.source.options.relaxed);
    engine.sessions.with(true, |conn| {
        let settled = if has_replacements {
            conn.transaction(|conn| {
                end(conn, &call, &binds)?;
                insert_replacements::<Postgres>(conn, &ours)
            })
        } else {
            let settle = |conn: &mut Sql<'_, _>| end(conn, &call, &binds);
            engine.sessions.attempt(conn, settle).map(|()| HashSet::new())
        };
        match settled {
            Ok(refused) => Ok(Some(answers(settlements, |_| true, &refused))),
            Err(error) if error.to_string().contains(NOT_HELD) => Ok(None),
            Err(error) => Err(error),
        }
    })
}

/// The statement that calls a function, without waiting for the disk if asked to.
fn call(function: &str, arguments: usize, is_relaxed: bool) -> String {
    let marks = vec!["?"; arguments].join(", ");
    if is_relaxed {
        format!(
            "SELECT ended.* FROM set_config('synchronous_commit', 'off', true), {function}({marks}) AS ended"
        )
    } else {
        format!("SELECT {function}({marks})")
    }
}

fn end(
    conn: &mut Sql<'_, <Postgres as Engine>::Conn>,
    call: &str,
    binds: &[Bind<'_>],
) -> QueryResult<()> {
    match conn.row::<i64>(call, binds)? {
        None | Some(0) => {}
        Some(missing) => log::error!("{missing} ended jobs had no facts"),
    }
    Ok(())
}

/// The arguments of `qudo_settle` behind those of `qudo_complete`.
fn beside<'a>(ours: &[&'a Settlement]) -> Vec<Array<'a>> {
    let gone = ours.iter().filter(|one| is_gone(one)).map(|one| &*one.job);
    let mut columns = Vec::from(Runs::of(gone).facts());
    columns.extend(agains(ours));
    columns.extend(exceptions(ours));
    columns.extend(replies(ours));
    columns.extend(statuses(ours));
    columns.extend(keys(ended_keys(ours)));
    columns
}

fn agains<'a>(ours: &[&'a Settlement]) -> [Array<'a>; 8] {
    let with: Vec<_> =
        ours.iter().filter_map(|one| Some((&*one.job, again(one.verdict)?))).collect();
    let all = with.iter();
    [
        Array::Ids(all.clone().map(|(job, _)| *job.id.as_uuid()).collect()),
        Array::Texts(all.clone().map(|(job, _)| &*job.facts.queue).collect()),
        Array::Ints(all.clone().map(|(job, _)| -job.facts.priority).collect()),
        Array::Texts(all.clone().map(|(job, _)| &*job.facts.ability).collect()),
        Array::Ints(all.clone().map(|(job, (_, spared))| job.attempt - spared).collect()),
        Array::Ints(all.clone().map(|(job, _)| job.crashes).collect()),
        Array::Ints(all.clone().map(|(job, _)| job.flags.bits()).collect()),
        Array::Bigs(all.map(|(_, (after, _))| *after).collect()),
    ]
}

fn keys(mut keys: Vec<HeldKey<'_>>) -> [Array<'_>; 3] {
    keys.sort_unstable();
    [
        Array::Texts(keys.iter().map(|key| key.ability).collect()),
        Array::Texts(keys.iter().map(|key| key.uniqkey).collect()),
        Array::Ids(keys.iter().map(|key| *key.id).collect()),
    ]
}

fn replies<'a>(ours: &[&'a Settlement]) -> [Array<'a>; 4] {
    let (mut jobs, mut seqs, mut codecs, mut bodies) = (vec![], vec![], vec![], vec![]);
    for (one, extras) in ours.iter().filter_map(|one| Some((one, one.extras.as_deref()?))) {
        for (reply, seq) in extras.replies.iter().zip(0..) {
            jobs.push(*one.job.id.as_uuid());
            seqs.push(seq);
            codecs.push(&*reply.codec);
            bodies.push(&reply.body[..]);
        }
    }
    [Array::Ids(jobs), Array::Ints(seqs), Array::Texts(codecs), Array::Bytes(bodies)]
}

fn statuses<'a>(ours: &[&'a Settlement]) -> [Array<'a>; 9] {
    let with: Vec<(&Settlement, &StatusRecord)> =
        ours.iter().filter_map(|one| Some((*one, one.extras.as_ref()?.status.as_ref()?))).collect();
    let all = with.iter();
    [
        Array::Ids(all.clone().map(|_| Uuid::now_v7()).collect()),
        Array::Ids(all.clone().map(|(one, _)| *one.job.id.as_uuid()).collect()),
        Array::Texts(all.clone().map(|(one, _)| &*one.job.facts.ability).collect()),
        Array::Texts(all.clone().map(|(_, status)| status.status).collect()),
        Array::Ints(all.clone().map(|(one, _)| one.job.attempt).collect()),
        Array::OptTexts(all.clone().map(|(one, _)| one.job.facts.uniqkey.as_deref()).collect()),
        Array::Bigs(all.clone().map(|(one, _)| one.job.enqueued_at.timestamp_micros()).collect()),
        Array::Bigs(all.clone().map(|(_, status)| micros(status.took)).collect()),
        Array::OptTexts(all.map(|(_, status)| status.message.as_deref()).collect()),
    ]
}

fn exceptions<'a>(ours: &[&'a Settlement]) -> [Array<'a>; 9] {
    let with: Vec<(&Settlement, &ExceptionRecord)> = ours
        .iter()
        .filter_map(|one| Some((*one, one.extras.as_ref()?.exception.as_ref()?)))
        .collect();
    let all = with.iter();
    let is_last = |one: &Settlement| i32::from(one.verdict == Verdict::Discard);
    [
        Array::Ids(all.clone().map(|(_, record)| *record.id.as_uuid()).collect()),
        Array::Ids(all.clone().map(|(one, _)| *one.job.id.as_uuid()).collect()),
        Array::Ints(all.clone().map(|(one, _)| one.job.attempt).collect()),
        Array::Texts(all.clone().map(|(_, record)| record.kind.as_str()).collect()),
        Array::OptTexts(all.clone().map(|(_, record)| record.class.as_deref()).collect()),
        Array::Texts(all.clone().map(|(_, record)| &*record.message).collect()),
        Array::OptTexts(all.clone().map(|(_, record)| record.worker_name.as_deref()).collect()),
        Array::OptTexts(all.clone().map(|(_, record)| record.version.as_deref()).collect()),
        Array::Ints(all.map(|(one, _)| is_last(one)).collect()),
    ]
}
