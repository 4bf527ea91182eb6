//! Tickets that outlive their process.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Client;
use super::ticket::Ticket;
use super::tracked::Tracked;
use crate::tools::awake;
use crate::tools::time::utc_now;

/// A [`Ticket`] to be stored or sent, such as in a session's cookie or another job's argument: made by [`Ticket::save`], and a ticket again
/// by [`Manager::restore`](crate::Manager::restore), in any process whose manager has the job's database.
///
/// It says where the job was and when it was alive, so that the restored ticket knows what the saved one knew: that a job which is gone without a trace
/// has completed. That is known on Linux if the machine was not started since, and the clocks agree to a minute. Its JSON is an
/// object with `job`, and where they are known `database`, `identity` and `alive`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SavedTicket {
    /// The job: that of the ticket, or the one that goes on in its place as far as the ticket knows.
    pub job: JobId,
    /// The short name of the database where the job was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The id of that database's tables, by which it is known whatever it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Uuid>,
    /// When the job was alive for sure, by the clock of that machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<DateTime<Utc>>,
}

/// Earlier than it was, by so much: the clocks of two machines do not agree.
const CLOCKS: Duration = Duration::from_secs(1);

/// And a machine whose clock is ahead by more says nothing of when that was.
const AHEAD: TimeDelta = TimeDelta::minutes(1);

impl<R> Ticket<R> {
    /// What is to be stored of it; see [`SavedTicket`].
    pub fn save(&self) -> SavedTicket {
        let job = self.tracked().last();
        let age = job.alive_at().map(|at| awake::now().saturating_sub(at));
        let alive = age.and_then(|age| TimeDelta::from_std(age + CLOCKS).ok());
        let place = job.place();
        SavedTicket {
            job: job.id,
            database: place.as_ref().map(|one| one.name.to_string()),
            // One that was restored and not compared yet is passed on as it came.
            identity: job.expected().or_else(|| place?.orders.known().identity),
            alive: alive.and_then(|age| utc_now().checked_sub_signed(age)),
        }
    }
}

/// The ticket that was saved. A database that this manager does not have is as one that is not known.
pub(crate) fn restore<R>(client: &Arc<Client>, saved: &SavedTicket) -> Ticket<R> {
    // As far as databases have told already: nobody is asked here.
    let by_id = saved.identity.and_then(|id| client.databases.known_as(id));
    let named = || client.databases.found(saved.database.as_deref()?).ok();
    let database = by_id.or_else(named);
    let age = saved.alive.filter(|at| *at <= utc_now() + AHEAD);
    let age = age.map(|at| (utc_now() - at).to_std().unwrap_or_default());
    // It says something if that was since this machine's clock began.
    let alive = age.and_then(|age| awake::now().checked_sub(age));
    Ticket::of(Tracked::restored(client, saved.job, database, saved.identity, alive))
}
