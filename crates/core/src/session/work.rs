//! The beginning and the end of a session.

use std::fmt;
use std::sync::{Arc, Weak};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Session;
use super::life::Life;
use super::shutdown::shut_down;
use super::start::{add_lane, start_workers};
use super::stop::Phase;
use crate::client::Client;
use crate::database::schema::schema_states;
use crate::driver::WorkerId;
use crate::error::Error;
use crate::job::Host;
use crate::tools::sync::Mutex;
use crate::tools::threads::spawn;

/// The session of a manager, while it works.
#[derive(Clone, Default)]
pub(crate) struct AtWork(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// Plugins and hooks are started, which is the user's code and may take its time. No lane is there yet.
    Starting,
    Working(Weak<Session>),
}

impl AtWork {
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        match &*self.0.lock() {
            State::Working(session) => session.upgrade(),
            State::Idle | State::Starting => None,
        }
    }

    /// Claims the place of the one session that a manager may have.
    fn begin(&self) -> Result<Starting<'_>, Error> {
        let mut state = self.0.lock();
        let State::Idle = *state else { return Err(Error::AlreadyWorking) };
        *state = State::Starting;
        Ok(Starting(Some(self)))
    }
}

/// Gives the place back if no session takes it.
struct Starting<'a>(Option<&'a AtWork>);

impl Starting<'_> {
    /// From here on the session's handle gives the place back.
    fn end(mut self, session: &Arc<Session>) {
        if let Some(at_work) = self.0.take() {
            *at_work.0.lock() = State::Working(Arc::downgrade(session));
        }
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if let Some(at_work) = self.0 {
            *at_work.0.lock() = State::Idle;
        }
    }
}

/// A manager at work in the background; made by [`Manager::start`](crate::Manager::start).
///
/// Dropping it stops the work softly and waits.
#[must_use = "dropping the handle stops the work"]
pub struct WorkHandle {
    session: Arc<Session>,
    at_work: AtWork,
    stopped: bool,
}

impl fmt::Debug for WorkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkHandle").field("worker", &self.session.worker).finish_non_exhaustive()
    }
}

impl WorkHandle {
    /// The identity of this worker process, as the databases know it.
    pub fn worker(&self) -> WorkerId {
        self.session.worker.id
    }

    /// How many settlements came too late because the lease was lost.
    pub fn lost_leases(&self) -> u64 {
        self.session.lost_leases()
    }

    /// Whether an operator [ordered](crate::Manager::order_worker) this process to stop, which stays so if the order is taken back. As long as the
    /// order stands it claims nothing; it ends with [`stop`](Self::stop).
    pub fn is_asked_to_stop(&self) -> bool {
        self.session.stop.phase() >= Phase::Asked
    }

    /// Blocks until an operator orders this process to stop.
    pub fn wait_until_asked(&self) {
        self.session.stop.wait_for_request();
    }

    /// Stops softly: running jobs may finish within the shutdown timeout.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            let session = &self.session;
            shut_down(session);
            let life = session.life.lock().take();
            if let Some(life) = life {
                life.stop(&session.client.program, &session.worker);
            }
            *self.at_work.0.lock() = State::Idle;
        }
    }
}

impl Drop for WorkHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Works until SIGTERM or SIGINT: the first signal stops softly, the second one at once, the third one ends the process.
/// During the start the default action of the signals ends the process: if they were taken before, only SIGKILL would end
/// a start that hangs, and a program whose start failed would be deaf, because they are never given back.
pub(crate) fn work(handle: WorkHandle) -> Result<(), Error> {
    let session = Arc::clone(&handle.session);
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|source| Error::System { action: "handle signals", source })?;
    let control = signals.handle();
    let listener = Arc::clone(&session);
    spawn("qudo-signals", move || {
        for (count, signal) in signals.forever().enumerate() {
            listener.stop.ask(count > 0);
            if count > 1 {
                // The stop itself hangs, in a hook or a plugin perhaps: the default action ends the process.
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        }
    })
    .map_err(Error::no_thread)?;
    session.stop.wait_for_request();
    handle.stop();
    control.close();
    Ok(())
}

/// Works in the background until the handle is dropped or stopped.
pub(crate) fn start(
    client: &Arc<Client>,
    host: Arc<dyn Host>,
    at_work: &AtWork,
) -> Result<WorkHandle, Error> {
    let program = &client.program;
    if program.abilities.is_empty() {
        return Err(Error::NoAbilities);
    }
    program.check_needs()?;
    let starting = at_work.begin()?;
    check_schemas(client)?;
    let session = Arc::new(Session::new(client, host));
    let life = Life::start(program, &session.worker)?;
    *session.life.lock() = Some(life);
    // Dropped after the set is free again: if the start fails, it stops plugins and hooks, which may enqueue.
    let handle =
        WorkHandle { session: Arc::clone(&session), at_work: at_work.clone(), stopped: false };
    // While a database is added or removed the set of lanes must not be made.
    client.databases.with_all(|databases| {
        starting.end(&session);
        for entry in program.abilities.iter() {
            log::debug!("can do {:?} ({})", entry.name, entry.location);
        }
        log::info!(
            "worker process {} starts: {} abilities, {} threads, databases {:?}",
            session.worker.name,
            session.abilities.len(),
            program.options.workers,
            &**databases
        );
        databases.iter().try_for_each(|database| add_lane(&session, database))
    })?;
    // Not inside: a start that fails is shut down, and nobody could enqueue meanwhile.
    start_workers(&session)?;
    Ok(handle)
}

/// A database that answers with a schema which will not do keeps the work from starting; one that is down does not.
fn check_schemas(client: &Client) -> Result<(), Error> {
    for one in schema_states(&client.databases) {
        match one {
            Err(error) if error.is_down() => {}
            other => other?,
        }
    }
    Ok(())
}
