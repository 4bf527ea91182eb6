//! LISTEN on a connection of its own. diesel's notifications only poll, so another library listens, which
//! knows neither libpq's environment and files nor, by itself, TLS: the rest of this folder.

mod hosts;
mod login;
mod parameters;
mod passfile;
mod tls;

use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use qudo_core::driver::{DriverError, ErrorKind, Heard, Wake};

use login::ListenLogin;

use super::news::{ENDED, TOLD, WORKER, jobs_of};
use super::notify::{ASKED, ORDERS};

/// How often the listener looks up from its socket to see whether it should stop.
const TICK: Duration = Duration::from_secs(1);

/// How often it asks the server something: a connection that is half open answers nothing.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A server that was stopped takes the question and never answers.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Whether this data source can be listened at, as far as that shows before a login.
pub(super) fn check(url: &url::Url) -> Result<(), String> {
    ListenLogin::of(url).map(drop)
}

/// Blocks on the connection's socket and reports work; without a URL there is a reason why.
pub(super) fn listen(
    url: &Result<String, String>,
    channel: &str,
    on_wake: &mut dyn FnMut(Wake) -> bool,
) -> Result<(), DriverError> {
    listen_on(url, channel, &mut |said| {
        on_wake(match said {
            Said::Connected => Wake::Connected,
            Said::Nothing => Wake::Tick,
            Said::Payload(ORDERS) => Wake::Orders,
            Said::Payload(ASKED) => Wake::Asked,
            Said::Payload(queue) => Wake::Queue(queue.to_owned()),
        })
    })
}

/// The same for news of jobs.
pub(super) fn listen_for_news(
    url: &Result<String, String>,
    channel: &str,
    on_news: &mut dyn FnMut(Heard) -> bool,
) -> Result<(), DriverError> {
    listen_on(url, channel, &mut |said| {
        on_news(match said {
            Said::Connected => Heard::Connected,
            Said::Payload(WORKER) => Heard::Worker,
            Said::Payload(text) => match text.strip_prefix(ENDED) {
                Some(ids) => Heard::Ended(jobs_of(ids)),
                None => Heard::Told(jobs_of(text.strip_prefix(TOLD).unwrap_or_default())),
            },
            Said::Nothing => Heard::Tick,
        })
    })
}

/// What comes from a channel.
enum Said<'a> {
    Connected,
    Payload(&'a str),
    Nothing,
}

fn listen_on(
    url: &Result<String, String>,
    channel: &str,
    on_said: &mut dyn FnMut(Said<'_>) -> bool,
) -> Result<(), DriverError> {
    let url = url.as_deref().map_err(Clone::clone);
    let url = url.and_then(|url| url::Url::parse(url).map_err(|error| error.to_string()));
    let login = url.and_then(|url| ListenLogin::of(&url));
    let login = login.map_err(|reason| DriverError::new(ErrorKind::Permission, reason))?;
    let lost = |error: postgres::Error| {
        DriverError::new(ErrorKind::Down, "the listening connection broke").with_source(error)
    };
    let mut client = login.connect().map_err(refused)?;
    client.batch_execute(&format!("LISTEN \"{channel}\"")).map_err(lost)?;
    if !on_said(Said::Connected) {
        return Ok(());
    }
    let mut pinged = Instant::now();
    loop {
        let next = client.notifications().timeout_iter(TICK).next().map_err(lost)?;
        let said = next.as_ref().map_or(Said::Nothing, |sent| Said::Payload(sent.payload()));
        if !on_said(said) {
            return Ok(());
        }
        if pinged.elapsed() > PING_EVERY {
            client.is_valid(PING_LIMIT).map_err(lost)?;
            pinged = Instant::now();
        }
    }
}

/// A login that the server, or the look at its certificate, refused does not mend itself soon.
fn refused(error: postgres::Error) -> DriverError {
    let by_server = error.code().is_some_and(|code| code.code().starts_with("28"));
    let tls = ["TLS", "certificate", "invalid peer", "channel binding", "authentication"];
    let mut causes = vec![error.to_string()];
    let mut cause = std::error::Error::source(&error);
    while let Some(one) = cause {
        causes.push(one.to_string());
        cause = one.source();
    }
    let by_us = causes.iter().any(|text| tls.iter().any(|word| text.contains(word)));
    let kind = if by_server || by_us { ErrorKind::Permission } else { ErrorKind::Down };
    DriverError::new(kind, "cannot log in to listen").with_source(error)
}
