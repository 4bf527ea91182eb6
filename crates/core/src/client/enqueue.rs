//! One enqueue from the caller's job to its ticket.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{HookSet, JobId};

use super::Client;
use super::batch::{Batch, Group, Way};
use super::draft::{call_post_enqueue, encode, pass_hooks};
use super::enqueued::Enqueued;
use super::route::{Route, route};
use super::store::{Stored, store, time_left};
use super::ticket::Ticket;
use crate::database::Database;
use crate::database::inserter::insert_limit;
use crate::driver::{Inserted, JobRecord};
use crate::error::Error;
use crate::new_job::NewJob;
use crate::observe::Event;
use crate::spans::Span;
use crate::tools::awake;
use crate::tools::polling::warn_if_polled;
use crate::tools::time::Instant;

/// A job that went through the hooks and is encoded, with where it may go.
struct Prepared {
    record: JobRecord,
    route: Route,
    /// When the time of its enqueue is over.
    until: Instant,
}

/// The most jobs for which a bulk enqueue allocates in advance: a wrong `size_hint` must not allocate without bound.
const MAX_EXPECTED: usize = 65_536;

/// Stores a job durably and tells what became of it.
pub(crate) fn enqueue(client: &Arc<Client>, job: NewJob) -> Result<Enqueued, Error> {
    warn_if_polled("enqueue", "enqueue_async");
    let span = Span::of_enqueue(&job);
    let hooks = client.program.hooks();
    let Some(prepared) = prepare(client, job, &hooks)? else {
        return Ok(Enqueued::Suppressed);
    };
    let (until, asked) = (prepared.until, awake::now());
    if let Some((holder, database)) = held_at_former_home(&prepared.record, &prepared.route, until)?
    {
        return Ok(Enqueued::Existing(Ticket::stored(client, holder, database, asked)));
    }
    let record = Arc::new(vec![prepared.record]);
    let stored = store(client, &record, &prepared.route, until)?;
    stored.database.ring_for(&record, client.program.options.delay);
    span.note_stored(&stored.database.name, &record[0], stored.answers[0]);
    Ok(conclude(client, &record[0], stored.answers[0], &stored, &hooks, asked))
}

/// Stores many jobs in few statements; answers one for one.
pub(crate) fn enqueue_many(
    client: &Arc<Client>,
    jobs: impl IntoIterator<Item = NewJob>,
) -> Result<Vec<Enqueued>, Error> {
    warn_if_polled("enqueue_many", "enqueue_many_async");
    let span = Span::of_enqueue_many();
    let hooks = client.program.hooks();
    let jobs = jobs.into_iter();
    let expected = jobs.size_hint().0.min(MAX_EXPECTED);
    let (mut answers, mut batch) = (Vec::with_capacity(expected), Batch::new(expected));
    let (until, asked) = (time_for(client, 1), awake::now());
    for (place, mut job) in jobs.enumerate() {
        answers.push(Enqueued::Suppressed);
        // The way depends on the unique key, which a hook may set: so hooks first.
        if !pass_hooks(&client.program, &mut job, &hooks)? {
            continue;
        }
        // All of them share one limit, but the caller's iterator may take its time.
        let until = until.max(Instant::now() + client.program.options.call_limit / 10);
        let way = batch.way(&client.databases, &job, until)?;
        let record = encode(&client.program, job)?;
        if let Way::Own(route) = &way
            && let Some((holder, database)) = held_at_former_home(&record, route, until)?
        {
            answers[place] = Enqueued::Existing(Ticket::stored(client, holder, database, asked));
            continue;
        }
        batch.add(way, place, record);
    }
    span.note_count(answers.len());
    let (mut sent, mut stored, total) = (false, 0, answers.len());
    let mut groups = batch.into_groups().into_iter();
    while let Some(Group { route, records, places }) = groups.next() {
        let records = Arc::new(records);
        let inserted = store(client, &records, &route, time_for(client, records.len()));
        let group = match inserted {
            Ok(group) => group,
            Err(source) if !sent => return Err(source),
            Err(source) => {
                let unsent = groups.flat_map(|group| group.places);
                let unsent: HashSet<usize> = places.into_iter().chain(unsent).collect();
                let answers = answers.into_iter().enumerate();
                let answers = answers.map(|(at, one)| (!unsent.contains(&at)).then(|| one.into()));
                let (answers, source) = (answers.collect(), Box::new(source));
                return Err(Error::PartlyEnqueued { stored, total, answers, source });
            }
        };
        sent = true;
        stored += group.answers.iter().filter(|one| **one == Inserted::New).count();
        group.database.ring_for(&records, client.program.options.delay);
        for ((place, record), answer) in places.into_iter().zip(&*records).zip(&group.answers) {
            answers[place] = conclude(client, record, *answer, &group, &hooks, asked);
        }
    }
    Ok(answers)
}

/// When an enqueue of so many jobs ends that begins now, however many databases do not answer.
fn time_for(client: &Client, jobs: usize) -> Instant {
    Instant::now() + insert_limit(client.program.options.call_limit, jobs)
}

fn prepare(client: &Client, mut job: NewJob, hooks: &HookSet) -> Result<Option<Prepared>, Error> {
    // The route needs the unique key, which a hook may set: so hooks first.
    if !pass_hooks(&client.program, &mut job, hooks)? {
        return Ok(None);
    }
    // Hooks take their own time.
    let until = time_for(client, 1);
    let route = route(&client.databases, &job, until)?;
    let record = encode(&client.program, job)?;
    Ok(Some(Prepared { record, route, until }))
}

/// A drained database may still hold the unique key; then nothing is stored elsewhere.
fn held_at_former_home(
    job: &JobRecord,
    route: &Route,
    until: Instant,
) -> Result<Option<(JobId, Arc<Database>)>, Error> {
    let Some(key) = &job.facts.uniqkey else { return Ok(None) };
    for database in &route.former_homes {
        let (ability, key) = (job.facts.ability.clone(), key.clone());
        let asked =
            database.begin("look up a unique key", move |driver| driver.holder(&ability, &key));
        match asked.wait_at_most(time_left(until)) {
            Ok(None) => {}
            Ok(Some(holder)) => return Ok(Some((holder, Arc::clone(database)))),
            // With `UniqPolicy::Available` a key may live twice rather than not at all.
            Err(error) if error.is_down() && !route.home_only => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// `post_enqueue` hooks, the observer, the ticket. The job was alive after `asked`.
fn conclude(
    client: &Arc<Client>,
    record: &JobRecord,
    inserted: Inserted,
    stored: &Stored,
    hooks: &HookSet,
    asked: Duration,
) -> Enqueued {
    let database = &stored.database;
    let ticket = |id| Ticket::stored(client, id, Arc::clone(database), asked);
    let id = match inserted {
        Inserted::New => record.id,
        Inserted::Existing(id) => return Enqueued::Existing(ticket(id)),
    };
    let doubtful: Vec<_> = stored.doubtful.iter().map(|one| &*one.name).collect();
    client.program.tell(|| Event::Enqueued {
        job: record,
        database: &database.name,
        doubtful: &doubtful,
        key_may_double: stored.key_may_double,
        begun: stored.begun,
    });
    call_post_enqueue(&client.program, hooks, record, &database.name);
    Enqueued::New(ticket(id))
}
