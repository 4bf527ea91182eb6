//! One file as a database: a step reads it, changes it, and puts a new one in its place, or leaves it as it was.

#![expect(unreachable_pub, reason = "its test has it as a module of its own")]

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use qudo::driver::{Deadline, DriverError, ErrorKind};

use uuid::Uuid;

use super::state::State;

/// Another process may hold the lock for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file with the state of a queue. Its first line is new with each step, the rest is JSON.
pub struct StateFile {
    path: PathBuf,
    /// What was read or written last, so that an unchanged file is not parsed again.
    known: Mutex<(Uuid, State)>,
}

/// What stands in the way when no error of the file explains it.
fn failed(what: &str, error: &std::io::Error) -> DriverError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::Schema,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        _ => ErrorKind::Down,
    };
    DriverError::new(kind, format!("cannot {what}: {error}"))
}

impl StateFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_there(&self) -> bool {
        self.path.is_file()
    }

    /// Makes an empty file, unless there is one; tells whether it did.
    pub fn create(&self) -> Result<bool, DriverError> {
        std::fs::create_dir_all(self.directory())
            .map_err(|error| failed("make the directory", &error))?;
        let _lock = self.lock(Deadline::NONE)?;
        if self.is_there() {
            return Ok(false);
        }
        self.write(&State::default(), Deadline::NONE).map(|_| true)
    }

    pub fn remove(&self) -> Result<(), DriverError> {
        let _lock = self.lock(Deadline::NONE)?;
        std::fs::remove_file(&self.path).map_err(|error| failed("remove the file", &error))
    }

    /// Looks at the state.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, DriverError> {
        let _lock = self.lock(Deadline::NONE)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut known)?;
        known.1.now = chrono::Utc::now();
        Ok(look(&known.1))
    }

    /// Takes a step: all of it is stored when this returns, or nothing.
    pub fn step<T>(
        &self,
        deadline: Deadline,
        step: impl FnOnce(&mut State) -> T,
    ) -> Result<T, DriverError> {
        let _lock = self.lock(deadline)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut known)?;
        // Forgotten until it is stored: after a panic or an error what counts is what the file says.
        known.0 = Uuid::nil();
        known.1.now = chrono::Utc::now();
        let done = step(&mut known.1);
        known.0 = self.write(&known.1, deadline)?;
        Ok(done)
    }

    /// Keeps all others away, of this process and of others, until it is dropped. The lock is a file beside
    /// ours, because ours is replaced.
    fn lock(&self, deadline: Deadline) -> Result<File, DriverError> {
        let path = self.path.with_extension("lock");
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|error| failed("open the lock", &error))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if deadline.is_over() => {
                    return Err(DriverError::too_late());
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                    return Err(DriverError::new(ErrorKind::Contention, "the file is locked"));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(200)),
                Err(TryLockError::Error(error)) => return Err(failed("lock the file", &error)),
            }
        }
    }

    fn refresh(&self, known: &mut (Uuid, State)) -> Result<(), DriverError> {
        let read = |error: std::io::Error| failed("read the file", &error);
        let mut file = BufReader::new(File::open(&self.path).map_err(read)?);
        let mut line = String::new();
        file.read_line(&mut line).map_err(read)?;
        let broken = |error: &dyn std::fmt::Display| {
            DriverError::new(ErrorKind::Other, format!("the file is broken: {error}"))
        };
        let version = line.trim().parse().map_err(|error| broken(&error))?;
        if known.0 != version {
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(read)?;
            known.1 = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
            known.0 = version;
        }
        Ok(())
    }

    /// Writes the state under a name that no other state ever has.
    fn write(&self, state: &State, deadline: Deadline) -> Result<Uuid, DriverError> {
        let version = Uuid::now_v7();
        let mut text = format!("{version}\n").into_bytes();
        serde_json::to_writer(&mut text, state)
            .map_err(|error| DriverError::new(ErrorKind::Other, error.to_string()))?;
        let new = self.path.with_extension("new");
        let written = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()
        };
        written().map_err(|error| failed("write the file", &error))?;
        // At the last moment, because the disk may have taken its time.
        if deadline.is_over() {
            return Err(DriverError::too_late());
        }
        std::fs::rename(&new, &self.path).map_err(|error| failed("put the file there", &error))?;
        // The new name is in the directory, which has to reach the disk too. The step is there for the next reader
        // all the same, so from here on an error says nothing of it.
        let synced = File::open(self.directory()).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed("sync the directory", &error).ambiguous(true))?;
        Ok(version)
    }

    fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}
