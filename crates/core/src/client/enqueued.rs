use std::fmt;
use std::time::Duration;

use qudo_hooks::JobId;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ticket::Ticket;
use crate::error::{Error, Placed};

/// What became of an enqueue. `R` is the type of the ability's reply.
pub enum Enqueued<R = Value> {
    /// The job is stored; the ticket awaits its reply.
    New(Ticket<R>),
    /// A live job holds the unique key; the ticket is for that job.
    Existing(Ticket<R>),
    /// A hook or the caller suppressed the job; nothing is stored.
    Suppressed,
}

impl<R> fmt::Debug for Enqueued<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New(ticket) => f.debug_tuple("New").field(ticket).finish(),
            Self::Existing(ticket) => f.debug_tuple("Existing").field(ticket).finish(),
            Self::Suppressed => f.write_str("Suppressed"),
        }
    }
}

impl<R> Clone for Enqueued<R> {
    fn clone(&self) -> Self {
        match self {
            Self::New(ticket) => Self::New(ticket.clone()),
            Self::Existing(ticket) => Self::Existing(ticket.clone()),
            Self::Suppressed => Self::Suppressed,
        }
    }
}

impl<R> Enqueued<R> {
    /// Whether a job was stored.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// The ticket of the new or the existing job.
    pub fn ticket(&self) -> Option<&Ticket<R>> {
        match self {
            Self::New(ticket) | Self::Existing(ticket) => Some(ticket),
            Self::Suppressed => None,
        }
    }

    /// The id of the new or the existing job.
    pub fn id(&self) -> Option<JobId> {
        self.ticket().map(Ticket::id)
    }

    /// Waits for the reply; see [`Ticket::wait`].
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`], and [`Error::Suppressed`].
    pub fn wait(&self, limit: Duration) -> Result<R, Error>
    where
        R: DeserializeOwned,
    {
        self.wait_as(limit)
    }

    /// Waits for a reply of this type; see [`Ticket::wait_as`].
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`], and [`Error::Suppressed`].
    pub fn wait_as<T: DeserializeOwned>(&self, limit: Duration) -> Result<T, Error> {
        self.ticket().ok_or(Error::Suppressed)?.wait_as(limit)
    }

    /// Waits until the job completed, whatever it replied; see [`Ticket::wait_done`].
    ///
    /// # Errors
    ///
    /// As [`Ticket::wait`], and [`Error::Suppressed`].
    pub fn wait_done(&self, limit: Duration) -> Result<(), Error> {
        self.ticket().ok_or(Error::Suppressed)?.wait_done(limit)
    }

    /// The same with a reply of another type.
    pub(crate) fn typed<T>(self) -> Enqueued<T> {
        match self {
            Self::New(ticket) => Enqueued::New(ticket.typed()),
            Self::Existing(ticket) => Enqueued::Existing(ticket.typed()),
            Self::Suppressed => Enqueued::Suppressed,
        }
    }
}

impl<R> From<Enqueued<R>> for Placed {
    fn from(enqueued: Enqueued<R>) -> Self {
        match enqueued {
            Enqueued::New(ticket) => Self::New(ticket.id()),
            Enqueued::Existing(ticket) => Self::Existing(ticket.id()),
            Enqueued::Suppressed => Self::Suppressed,
        }
    }
}
