use std::sync::Arc;
use std::sync::atomic::Ordering;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Manager;
use super::session::{Request, Session};
use crate::Error;
use crate::driver::{AbilityLease, WorkerId, WorkerInfo};
use crate::tools::threads::spawn;

/// A manager at work in the background; made by [`Manager::start`].
///
/// Dropping it stops the work softly and waits.
#[must_use = "dropping the handle stops the work"]
pub struct WorkHandle {
    session: Arc<Session>,
    stopped: bool,
}

impl std::fmt::Debug for WorkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        let lanes = self.session.lanes();
        let now: u64 = lanes.iter().map(|lane| lane.lost_leases.load(Ordering::Relaxed)).sum();
        now + self.session.lost_leases.load(Ordering::Relaxed)
    }

    /// Stops softly: running jobs may finish within the shutdown timeout.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.session.shut_down();
            *self.session.manager.inner.session.lock() = None;
        }
    }
}

impl Drop for WorkHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Manager {
    /// Works for ever on the calling thread and the worker threads, until SIGTERM or SIGINT.
    ///
    /// The first signal stops softly: no more claims, unstarted jobs given back, running ones may
    /// finish within `shutdown_timeout`. A second signal returns at once; what was running is
    /// rescued by another process. Databases that are down, now or later, are taken up when they
    /// are back. The signals' default action is not restored afterwards.
    ///
    /// # Errors
    ///
    /// When no ability is there, a reachable database has the wrong schema, the manager already
    /// works, or the system refuses threads or signal handlers.
    pub fn work(&self) -> Result<(), Error> {
        let handle = self.start()?;
        let session = Arc::clone(&handle.session);
        let mut signals = Signals::new([SIGTERM, SIGINT])
            .map_err(|source| Error::System { action: "handle signals", source })?;
        let control = signals.handle();
        let listener = Arc::clone(&session);
        spawn("qudo-signals", move || {
            for (count, _) in signals.forever().enumerate() {
                listener.request(if count == 0 { Request::Soft } else { Request::Hard });
            }
        })
        .map_err(Error::no_thread)?;
        session.wait_for_request();
        handle.stop();
        control.close();
        Ok(())
    }

    /// Works in the background until the handle is dropped or stopped; handles no signals.
    ///
    /// # Errors
    ///
    /// As [`work`](Self::work).
    pub fn start(&self) -> Result<WorkHandle, Error> {
        if self.inner.abilities.is_empty() {
            return Err(Error::NoAbilities);
        }
        self.check_schemas()?;
        let session = Arc::new(Session::new(self));
        // While a database is added or removed the set of lanes must not be made.
        let databases = self.inner.databases.read();
        let mut current = self.inner.session.lock();
        if current.is_some() {
            return Err(Error::AlreadyWorking);
        }
        *current = Some(Arc::downgrade(&session));
        drop(current);
        let handle = WorkHandle { session: Arc::clone(&session), stopped: false };
        for entry in self.inner.abilities.iter() {
            log::debug!("can do {:?} ({})", entry.name, entry.location);
        }
        log::info!(
            "worker process {} starts: {} abilities, {} threads, databases {:?}",
            session.worker.name,
            session.abilities.len(),
            self.options().workers,
            &**databases
        );
        for database in databases.iter() {
            session.add_lane(database)?;
        }
        drop(databases);
        session.start_workers()?;
        Ok(handle)
    }

    fn check_schemas(&self) -> Result<(), Error> {
        for one in self.schema_states() {
            match one {
                Err(error) if error.is_down() => {}
                other => other?,
            }
        }
        Ok(())
    }

    pub(super) fn worker_info(&self) -> WorkerInfo {
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "host",
            name => name,
        };
        WorkerInfo {
            id: WorkerId::new(),
            name: format!("{host}:{}", std::process::id()),
            dead_after: self.options().dead_after,
        }
    }

    pub(super) fn leases(&self) -> Arc<[AbilityLease]> {
        let default = self.options().grab_for;
        self.inner
            .abilities
            .names()
            .map(|(name, entry)| AbilityLease {
                name: Arc::clone(name),
                grab_for: entry.options.grab_for.unwrap_or(default),
            })
            .collect()
    }

    pub(super) fn queues(&self) -> Vec<Arc<str>> {
        self.options().queues.clone().unwrap_or_else(|| self.inner.abilities.queues())
    }
}
