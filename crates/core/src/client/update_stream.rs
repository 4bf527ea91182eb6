//! What a job tells while it runs, for tasks.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::de::DeserializeOwned;

use super::hearing::hear;
use super::keeper::until_ended;
use super::tracked::{FOR_EVER, LOST};
use super::updates::{Reader, Update};
use crate::error::Error;
use crate::tools::time::Instant;

/// What a job tells while it runs, as a stream; made by [`Updates::into_stream`](crate::Updates::into_stream).
///
/// It needs no runtime of any kind and occupies no thread while it waits. It can be read with [`next`](Self::next), or as a
/// [`Stream`]. Dropped, it leaves nothing behind.
pub struct UpdateStream<T> {
    limit: Duration,
    /// The reader, while no call is under way; gone after a panic.
    reader: Option<Reader>,
    waiting: Option<Waiting>,
    value: PhantomData<fn() -> T>,
}

/// Waits until the reader found something, or until all is read.
type Waiting = Pin<Box<dyn Future<Output = (Reader, Result<(), Error>)> + Send>>;

impl<T> fmt::Debug for UpdateStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateStream").finish_non_exhaustive()
    }
}

impl<T> UpdateStream<T> {
    pub(super) fn of(reader: Reader, limit: Duration) -> Self {
        Self { limit, reader: Some(reader), waiting: None, value: PhantomData }
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
async fn find(mut reader: Reader, limit: Duration) -> (Reader, Result<(), Error>) {
    let begun = Instant::now();
    let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
    let client = Arc::clone(&reader.client);
    loop {
        // Before the look, so that nothing is told in between that nobody hears.
        let mut watch = client.waiters.watch(reader.job.id);
        let left = limit.saturating_sub(begun.elapsed());
        let look = move || {
            let looked = reader.look(left);
            (reader, looked)
        };
        let looked;
        (reader, looked) = client.looks.run(look).await;
        match looked {
            Err(error) => return (reader, Err(error)),
            Ok(true) if !reader.has_something() => continue,
            Ok(_) if reader.has_something() => return (reader, Ok(())),
            Ok(_) => {}
        }
        if limit.saturating_sub(begun.elapsed()).is_zero() {
            let error = reader.time_is_up(limit);
            return (reader, Err(error));
        }
        match reader.awaited_in() {
            Some(database) => {
                hear(&client, &database);
                watch.hears = Some(reader.known());
                let until = reader.rests_until(until);
                until_ended(&client, &database, &mut watch, until).await;
            }
            None => client.pauses.until(until.min(Instant::now() + LOST)).await,
        }
    }
}

impl<T: DeserializeOwned> Stream for UpdateStream<T> {
    type Item = Result<Update<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(reader) = &mut self.reader {
                if let Some(found) = reader.take() {
                    return Poll::Ready(Some(found));
                }
                if reader.is_over() {
                    return Poll::Ready(None);
                }
            }
            let limit = self.limit;
            if let Some(reader) = self.reader.take() {
                self.waiting = Some(Box::pin(find(reader, limit)));
            }
            let Some(waiting) = &mut self.waiting else { return Poll::Ready(None) };
            let Poll::Ready((reader, found)) = waiting.as_mut().poll(context) else {
                return Poll::Pending;
            };
            (self.waiting, self.reader) = (None, Some(reader));
            if let Err(error) = found {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}
