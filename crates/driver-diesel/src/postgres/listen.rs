use std::time::{Duration, Instant};

use postgres::NoTls;
use postgres::fallible_iterator::FallibleIterator;
use qudo_core::driver::{DriverError, ErrorKind, Wake};

use super::connect::Source;
use super::notify::CHANNEL;

/// How often the listener looks up from its socket to see whether it should stop.
const TICK: Duration = Duration::from_secs(1);

/// How often it asks the server something: a connection that is half open answers nothing.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A server that was stopped takes the question and never answers.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Blocks on a connection of its own. diesel's notifications only poll, so another library listens.
pub(super) fn listen(
    source: &Source,
    on_wake: &mut dyn FnMut(Wake) -> bool,
) -> Result<(), DriverError> {
    let Some(config) = source.listen_config() else {
        return Ok(());
    };
    let lost = |error: postgres::Error| {
        DriverError::new(ErrorKind::Down, "the listening connection broke").with_source(error)
    };
    let mut client = config.connect(NoTls).map_err(lost)?;
    client.batch_execute(&format!("LISTEN {CHANNEL}")).map_err(lost)?;
    if !on_wake(Wake::Connected) {
        return Ok(());
    }
    let mut pinged = Instant::now();
    loop {
        let next = client.notifications().timeout_iter(TICK).next().map_err(lost)?;
        let wake = next.map_or(Wake::Tick, |sent| Wake::Queue(sent.payload().to_owned()));
        if !on_wake(wake) {
            return Ok(());
        }
        if pinged.elapsed() > PING_EVERY {
            client.is_valid(PING_LIMIT).map_err(lost)?;
            pinged = Instant::now();
        }
    }
}
