//! What a job tells while it runs, for tasks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::Client;
use super::awaiting::unless_over;
use super::hearing::hear;
use super::keeper::until_ended;
use super::lookout::MIN_ANSWER;
use super::reader::Reader;
use super::tracked::{FOR_EVER, LOST};
use super::updates::Update;
use crate::error::Error;
use crate::tools::front::Running;
use crate::tools::time::Instant;

/// What a job tells while it runs, as a stream; made by [`Updates::into_stream`](crate::Updates::into_stream).
///
/// It needs no runtime of any kind and occupies no thread while it waits. It can be read with [`next`](Self::next), or as a
/// [`Stream`]. Dropped, it leaves nothing behind.
pub struct UpdateStream<T> {
    client: Arc<Client>,
    limit: Duration,
    /// What is at hand, while no call is under way; gone after a panic.
    held: Option<Held>,
    waiting: Option<Waiting>,
    value: PhantomData<fn() -> T>,
}

/// A reader, or its look that was not over when the limit was.
enum Held {
    Reader(Box<Reader>),
    Looking(Running<Looked>, JobId),
}

/// A reader with what its look found.
type Looked = (Box<Reader>, Result<bool, Error>);

/// Waits until the reader found something, or until all is read.
type Waiting = Pin<Box<dyn Future<Output = (Held, Result<(), Error>)> + Send>>;

impl<T> fmt::Debug for UpdateStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateStream").finish_non_exhaustive()
    }
}

impl<T> UpdateStream<T> {
    pub(super) fn of(reader: Reader, limit: Duration) -> Self {
        let client = Arc::clone(&reader.client);
        Self {
            client,
            limit,
            held: Some(Held::Reader(Box::new(reader))),
            waiting: None,
            value: PhantomData,
        }
    }

    /// What comes next; `None` when the job ended. A future that is dropped has taken nothing.
    pub async fn next(&mut self) -> Option<Result<Update<T>, Error>>
    where
        T: DeserializeOwned,
    {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

/// Waits until the reader found something.
async fn find(held: Held, client: Arc<Client>, limit: Duration) -> (Held, Result<(), Error>) {
    let begun = Instant::now();
    let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
    let mut held = held;
    loop {
        let job = match &held {
            Held::Reader(reader) => reader.job.id,
            Held::Looking(_, job) => *job,
        };
        // Before the look, so that nothing is told in between that nobody hears.
        let mut watch = client.waiters.watch(job);
        let mut looking = match held {
            Held::Looking(running, _) => running,
            Held::Reader(mut reader) => {
                if let Some(rest) = reader.rests_until() {
                    client.pauses.until(rest.min(until)).await;
                    if Instant::now() >= until {
                        let error = reader.time_is_up(limit);
                        return (Held::Reader(reader), Err(error));
                    }
                }
                let left = limit.saturating_sub(begun.elapsed());
                client.looks.run(move || {
                    let looked = reader.look(left);
                    (reader, looked)
                })
            }
        };
        // It may wait in line behind others, whose databases hang.
        let at_most = client.pauses.until(until.max(Instant::now() + MIN_ANSWER));
        let Some((mut reader, looked)) = unless_over(&mut looking, at_most).await else {
            let error = Error::WaitTimeout { job, after: limit, database: None, state: None };
            return (Held::Looking(looking, job), Err(error));
        };
        let is_found = reader.has_something();
        match looked {
            Err(error) => return (Held::Reader(reader), Err(error)),
            Ok(_) if is_found => return (Held::Reader(reader), Ok(())),
            Ok(_) if Instant::now() >= until => {
                let error = reader.time_is_up(limit);
                return (Held::Reader(reader), Err(error));
            }
            Ok(true) => {
                held = Held::Reader(reader);
                continue;
            }
            Ok(false) => {}
        }
        let Some(database) = reader.awaited_in() else {
            client.pauses.until(until.min(Instant::now() + LOST)).await;
            held = Held::Reader(reader);
            continue;
        };
        hear(&client, &database);
        (watch.hears, watch.pause) = (Some(reader.known()), reader.pause);
        let again = reader.looks_again_at().min(until);
        loop {
            let idle = reader.idles_until(again);
            let is_told = until_ended(&client, &database, &mut watch, idle).await;
            if is_told || Instant::now() >= again || reader.note_ours() {
                break;
            }
        }
        reader.pause = watch.pause;
        if reader.has_something() {
            return (Held::Reader(reader), Ok(()));
        }
        held = Held::Reader(reader);
    }
}

impl<T: DeserializeOwned> Stream for UpdateStream<T> {
    type Item = Result<Update<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(Held::Reader(reader)) = &mut self.held {
                if let Some(found) = reader.take() {
                    return Poll::Ready(Some(found));
                }
                if reader.is_over() {
                    return Poll::Ready(None);
                }
            }
            let (limit, client) = (self.limit, Arc::clone(&self.client));
            if let Some(held) = self.held.take() {
                self.waiting = Some(Box::pin(find(held, client, limit)));
            }
            let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
            let Poll::Ready((held, found)) = waiting.as_mut().poll(context) else {
                return Poll::Pending;
            };
            (self.waiting, self.held) = (None, Some(held));
            if let Err(error) = found {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
