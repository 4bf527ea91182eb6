//! One file as a database: a step reads it, changes it, and puts a new one in its place, or leaves it as it was.

#![expect(unreachable_pub, reason = "its test has it as a module of its own")]

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use qudo::driver::{Deadline, DriverError, ErrorKind};

use super::state::State;

/// A file with the state of a queue. Its first line counts the steps that were written, the rest is JSON.
pub struct StateFile {
    path: PathBuf,
    /// What was read or written last, so that an unchanged file is not parsed again.
    known: Mutex<(u64, State)>,
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
        let directory = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| failed("make the directory", &error))?;
        let _lock = self.lock(Deadline::NONE)?;
        if self.is_there() {
            return Ok(false);
        }
        self.write(1, &State::default()).map(|()| true)
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
        let count = known.0 + 1;
        // Forgotten until it is stored: a panic or an error leaves what the file says.
        known.0 = 0;
        known.1.now = chrono::Utc::now();
        let done = step(&mut known.1);
        if deadline.is_over() {
            return Err(DriverError::too_late());
        }
        self.write(count, &known.1)?;
        known.0 = count;
        Ok(done)
    }

    /// Keeps all others away, of this process and of others, until it is dropped. The lock is a file beside
    /// ours, because ours is replaced.
    fn lock(&self, deadline: Deadline) -> Result<File, DriverError> {
        let path = self.path.with_extension("lock");
        let file = File::options().create(true).append(true).open(path);
        let file = file.map_err(|error| failed("open the lock", &error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if deadline.is_over() => {
                    return Err(DriverError::too_late());
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(200)),
                Err(TryLockError::Error(error)) => return Err(failed("lock the file", &error)),
            }
        }
    }

    fn refresh(&self, known: &mut (u64, State)) -> Result<(), DriverError> {
        let read = |error: std::io::Error| failed("read the file", &error);
        let mut file = BufReader::new(File::open(&self.path).map_err(read)?);
        let mut line = String::new();
        file.read_line(&mut line).map_err(read)?;
        let broken = |error: &dyn std::fmt::Display| {
            DriverError::new(ErrorKind::Other, format!("the file is broken: {error}"))
        };
        let count = line.trim().parse().map_err(|error| broken(&error))?;
        if known.0 != count {
            let mut text = Vec::new();
            file.read_to_end(&mut text).map_err(read)?;
            known.1 = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
            known.0 = count;
        }
        Ok(())
    }

    fn write(&self, count: u64, state: &State) -> Result<(), DriverError> {
        let mut text = format!("{count}\n").into_bytes();
        serde_json::to_writer(&mut text, state)
            .map_err(|error| DriverError::new(ErrorKind::Other, error.to_string()))?;
        let new = self.path.with_extension("new");
        let store = || {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            // The new name is in the directory, which has to reach the disk too.
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        // After the rename an error is ambiguous: the next reader may find the step.
        store().map_err(|error| failed("write the file", &error).ambiguous(true))
    }
}
