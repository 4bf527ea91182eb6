use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::engine::Engine;
use crate::options::Options;
use crate::place::Place;
use crate::port::Port;
use crate::{Error, client, processes};

/// The database that each server has from the start.
pub(crate) const DATABASE: &str = "qudo_test";

/// How long a server may take until it answers. Recovery after a kill is included, and several
/// servers may be starting on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long a server may take to end by itself before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long a server that is to be thrown away may take before it is killed.
const DISCARD_LIMIT: Duration = Duration::from_secs(5);

/// How often a starting or ending server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How many ports the first start tries, when others keep taking them.
const PORT_TRIES: u32 = 5;

/// A private database server, running from the start until it is dropped.
///
/// Every method takes `&self`, so that the threads of a fault test may share the server; the calls
/// that change its state wait for each other.
#[derive(Debug)]
pub struct Server<E: Engine> {
    engine: E,
    options: Options,
    port: Port,
    version: String,
    /// The main process; `None` while the server is down.
    main: Mutex<Option<Child>>,
    place: Place,
}

impl<E: Engine> Server<E> {
    /// Starts a server in a new directory and waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] without the engine's programs, [`Error::Ended`] or [`Error::Silent`]
    /// with the end of the log when the server does not come up.
    pub fn start(options: Options) -> Result<Self, Error> {
        let engine = E::locate()?;
        let version = engine.version()?;
        let place = Place::make(E::PREFIX, E::USERS, &options)?;
        engine.initialise(&place)?;
        let (port, child) = launch_on_free_port(&engine, &place, &options)?;
        let main = Mutex::new(Some(child));
        let server = Self { engine, options, port, version, main, place };
        server.engine.furnish(&server.place, server.port())?;
        Ok(server)
    }

    /// The URL of the database `qudo_test`.
    pub fn url(&self) -> String {
        self.url_for(DATABASE)
    }

    /// The URL of another database of this server.
    pub fn url_for(&self, database: &str) -> String {
        E::url(self.port(), database)
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The engine with its version, such as `PostgreSQL 15.14`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The id of the main process, or `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.main().as_ref().map(Child::id)
    }

    /// The ids of all living processes of the server, with those of its backends.
    pub fn processes(&self) -> Vec<u32> {
        processes::inside(self.place.root())
    }

    /// Runs SQL in `qudo_test` through the engine's command line client; see
    /// [`run_sql`](crate::run_sql).
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the server's words when it refuses or is down.
    pub fn query(&self, sql: &str) -> Result<String, Error> {
        client::run_sql(&self.url(), sql)
    }

    /// Creates an empty database and answers its URL.
    ///
    /// # Errors
    ///
    /// Those of [`create_database`](crate::create_database).
    pub fn create_database(&self, name: &str) -> Result<String, Error> {
        client::create_database(&self.url(), name)
    }

    /// Kills all processes of the server at once with SIGKILL; when this returns, they are gone.
    ///
    /// Killing the main process alone would not do: the backends of PostgreSQL outlive it for a
    /// while and may still answer. A server that is down already stays so.
    ///
    /// # Errors
    ///
    /// [`Error::Alive`] when a process survives even that.
    pub fn kill(&self) -> Result<(), Error> {
        self.kill_locked(&mut self.main())
    }

    /// Stops all processes with SIGSTOP: the server keeps its connections, accepts new ones in the
    /// kernel's backlog, and answers nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] while the server is down.
    pub fn pause(&self) -> Result<(), Error> {
        let main = self.main();
        let child = main.as_ref().ok_or(Error::NotRunning { server: E::NAME })?;
        processes::freeze(self.place.root(), child.id());
        Ok(())
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] while the server is down.
    pub fn resume(&self) -> Result<(), Error> {
        let main = self.main();
        main.as_ref().ok_or(Error::NotRunning { server: E::NAME })?;
        processes::send_all(self.place.root(), Signal::CONT);
        Ok(())
    }

    /// Ends the server in the clean way: clients are cut off, everything is written. A paused
    /// server is resumed first; one that is down already stays so.
    ///
    /// # Errors
    ///
    /// [`Error::Alive`] when the server ends neither by itself nor by SIGKILL.
    pub fn stop(&self) -> Result<(), Error> {
        self.end(&mut self.main(), E::STOP, STOP_LIMIT)
    }

    /// Starts the server again on the same port and data, after a [`stop`](Self::stop) if it is
    /// still running, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
    pub fn restart(&self) -> Result<(), Error> {
        let mut main = self.main();
        self.end(&mut main, E::STOP, STOP_LIMIT)?;
        *main = Some(launch(&self.engine, &self.place, self.port(), &self.options)?);
        Ok(())
    }

    /// Asks the server to end, and kills what has not ended within the limit.
    fn end(&self, main: &mut Option<Child>, ask: Signal, limit: Duration) -> Result<(), Error> {
        if let Some(child) = main.as_mut() {
            processes::send(child.id(), ask);
            // The signal waits at a paused process until it goes on.
            processes::send_all(self.place.root(), Signal::CONT);
            wait_for_exit(child, limit);
        }
        self.kill_locked(main)
    }

    fn kill_locked(&self, main: &mut Option<Child>) -> Result<(), Error> {
        let processes = end_all(&self.place, main.take());
        if processes.is_empty() { Ok(()) } else { Err(Error::Alive { server: E::NAME, processes }) }
    }

    /// The main process, also after a thread panicked with the lock held: the value is replaced
    /// in one step, so it cannot be half changed.
    fn main(&self) -> MutexGuard<'_, Option<Child>> {
        self.main.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Engine> Drop for Server<E> {
    fn drop(&mut self) {
        if let Err(error) = self.end(&mut self.main(), E::DISCARD, DISCARD_LIMIT) {
            // A drop cannot fail, and a test that ends green should not hide a process that hangs.
            eprintln!("qudo-test-servers: {error}");
        }
        self.engine.forget(&self.place);
    }
}

/// The first start: another port is tried when somebody takes the one chosen between the check and
/// the server's own binding.
fn launch_on_free_port<E: Engine>(
    engine: &E,
    place: &Place,
    options: &Options,
) -> Result<(Port, Child), Error> {
    let mut tries = 1;
    loop {
        let port = Port::reserve()?;
        match launch(engine, place, port.number(), options) {
            Ok(child) => return Ok((port, child)),
            Err(Error::Ended { log, .. })
                if log.contains("Address already in use") && tries < PORT_TRIES => {}
            Err(error) => return Err(error),
        }
        tries += 1;
    }
}

/// Starts the server's main process and waits until it answers; leaves nothing when it does not.
fn launch<E: Engine>(
    engine: &E,
    place: &Place,
    port: u16,
    options: &Options,
) -> Result<Child, Error> {
    let log_start = place.log_length();
    let log = place.open_log()?;
    let errors = log.try_clone().map_err(Error::system("share the log of a server"))?;
    let mut command = engine.command(place, port, options);
    let mut child = command
        // Its own group, so that the Ctrl-C that ends the tests leaves the clean end to the drop
        // or to the guardian.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Run {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(status) = exited(&mut child) {
            end_all(place, None);
            let log = place.log_tail(log_start);
            return Err(Error::Ended { server: E::NAME, status, log });
        }
        if engine.answers(place, port) {
            return Ok(child);
        }
        if Instant::now() > deadline {
            end_all(place, Some(child));
            let log = place.log_tail(log_start);
            return Err(Error::Silent { server: E::NAME, limit: START_LIMIT, log });
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Kills every process of the place, the main one first because it is the one that forks; answers
/// the processes that survived.
fn end_all(place: &Place, main: Option<Child>) -> Vec<u32> {
    let Some(mut main) = main else {
        return processes::kill_all(place.root());
    };
    // Fails only when the process is gone, which is what it is for.
    let _gone = main.kill();
    let survivors = processes::kill_all(place.root());
    if survivors.is_empty() {
        // Not before: waiting for a process that hangs in the kernel would never end.
        let _reaped = main.wait();
    }
    survivors
}

/// Waits until the process ends, at most for the limit.
fn wait_for_exit(child: &mut Child, limit: Duration) {
    let deadline = Instant::now() + limit;
    while exited(child).is_none() && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
}

/// How the process ended, or `None` while it lives. Asking one's own child cannot fail before it
/// has been reaped, and afterwards the answer is kept.
fn exited(child: &mut Child) -> Option<ExitStatus> {
    child.try_wait().ok().flatten()
}
