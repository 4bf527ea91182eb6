use std::time::Duration;

use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::ticket::Ticket;
use crate::error::{Error, Placed};

/// What became of an enqueue.
#[derive(Debug, Clone)]
pub enum Enqueued {
    /// The job is stored; the ticket awaits its reply.
    New(Ticket),
    /// A live job holds the unique key; the ticket is for that one.
    Existing(Ticket),
    /// A hook or the caller suppressed the job; nothing is stored.
    Suppressed,
}

impl Enqueued {
    /// Whether a job was stored.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// The ticket of the new or the existing job.
    pub fn ticket(&self) -> Option<&Ticket> {
        match self {
            Self::New(ticket) | Self::Existing(ticket) => Some(ticket),
            Self::Suppressed => None,
        }
    }

    /// The id of the new or the existing job.
    pub fn id(&self) -> Option<JobId> {
        self.ticket().map(Ticket::id)
    }

    /// Waits for the reply; see [`Ticket::wait`]. A suppressed job has none.
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`].
    pub fn wait<T: DeserializeOwned + 'static>(&self, limit: Duration) -> Result<T, Error> {
        match self.ticket() {
            Some(ticket) => ticket.wait(limit),
            None => Err(Error::NoReply { job: JobId::from_uuid(uuid::Uuid::nil()) }),
        }
    }
}

impl From<Enqueued> for Placed {
    fn from(enqueued: Enqueued) -> Self {
        match enqueued {
            Enqueued::New(ticket) => Self::New(ticket.id()),
            Enqueued::Existing(ticket) => Self::Existing(ticket.id()),
            Enqueued::Suppressed => Self::Suppressed,
        }
    }
}
