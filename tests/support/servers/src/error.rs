use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a private server could not be had, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program or header is missing from this machine; the advice says how to get it.
    #[error("{what} not found on this machine; {advice}")]
    NotInstalled {
        /// What is missing.
        what: String,
        /// What to install, or which variable to set instead.
        advice: String,
    },
    /// The mirror of packages cannot give something today; another day it may.
    #[error("{what} cannot be had just now, after {tries} tries: {reason}")]
    Unavailable {
        /// What.
        what: String,
        /// How often it was asked for.
        tries: u32,
        /// The answer to the last try.
        reason: String,
    },
    /// A helper program could not be run at all.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A helper program ran and reported failure.
    #[error("{program} failed ({status}):\n{output}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The server ended before it answered its first connection.
    #[error("{server} ended before it answered ({status}); its log ends with:\n{log}")]
    Ended {
        /// The server's name.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// The server lives and does not answer.
    #[error("{server} did not answer within {limit:?}; its log ends with:\n{log}")]
    Silent {
        /// The server's name.
        server: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// The last lines of its log.
        log: String,
    },
    /// Some process of the server outlived SIGKILL, which happens only to one that hangs in the
    /// kernel.
    #[error("{server} still has processes after SIGKILL: {processes:?}")]
    Alive {
        /// The server's name.
        server: &'static str,
        /// The process ids.
        processes: Vec<u32>,
    },
    /// The server was asked to pause, resume or stop while it was not running.
    #[error("{server} is not running; restart it first")]
    NotRunning {
        /// The server's name.
        server: &'static str,
    },
    /// No free port was found.
    #[error("no free port on 127.0.0.1 after {tries} tries")]
    NoPort {
        /// How many ports were tried.
        tries: u32,
    },
    /// The server was started as root and no unprivileged user exists to run it.
    #[error("servers refuse to run as root and none of these users exists: {0}")]
    NoAccount(String),
    /// A database URL or a database name cannot be used.
    #[error("{what}: {reason}")]
    Invalid {
        /// The URL's scheme or the name; never a password.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or directory of the server could not be handled.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The machine could not be asked for a port, a process or a signal.
    #[error("cannot {action}: {source}")]
    System {
        /// What was to be done.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl Error {
    /// Makes the function that `map_err` wants for an action on a file.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Makes the function that `map_err` wants for a request to the system.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}
