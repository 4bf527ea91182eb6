//! What an error means: the one place where transient errors are told from others.
//!
//! diesel keeps no SQLSTATE and no error number, only a kind for a few of them and the server's
//! text. The texts below are those of PostgreSQL 13–18, MySQL 8–9, MariaDB 10.6–11 and SQLite 3.

use diesel::result::{DatabaseErrorKind, Error};
use qudo_core::driver::{DriverError, ErrorKind};

use crate::clock::TooLate;
use crate::statements::ledger::{Mismatch, inner};
use crate::tables::MissingTables;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The same call again, soon: deadlock, lock wait, busy, serialization.
    Retry,
    /// The database cannot be used now.
    Down,
    /// The tables are not there.
    Schema,
    /// The account may not do this.
    Permission,
    /// A row with this key is there already.
    Unique,
    /// A write that came after its deadline; nothing was stored.
    Late,
    /// The statement was ended by a limit or by somebody.
    Slow,
    /// The caller's error.
    Other,
}

const RETRY: &[&str] = &[
    "deadlock detected",
    "could not serialize access",
    "lock timeout",
    "deadlock found when trying to get lock",
    "lock wait timeout exceeded",
    "record has changed since last read",
    "table definition has changed, please retry",
    // MySQL's Group Replication.
    "plugin instructed the server to rollback",
    "database is locked",
    "database table is locked",
    "database schema is locked",
    MISMATCH,
];

/// What a statement of ours says that counts its rows inside itself.
const MISMATCH: &str = "qudo: rows do not add up";

const DOWN: &[&str] = &[
    // The connection.
    "server closed the connection",
    "connection to server",
    "could not connect",
    "could not receive data from server",
    "could not send data to server",
    "connection not open",
    "no connection to the server",
    "connection refused",
    "connection reset",
    "connection timed out",
    "connection is closed",
    "broken pipe",
    "ssl connection has been closed",
    "ssl syscall error",
    "lost connection",
    "server has gone away",
    "can't connect",
    "unknown server host",
    "could not translate host name",
    "connection was killed",
    // MySQL, of a session that was silent for longer than its wait_timeout.
    "disconnected by the server because of inactivity",
    "timed out waiting for connection",
    // ProxySQL.
    "max connect timeout reached",
    // The server.
    "terminating connection",
    "is starting up",
    "is shutting down",
    "shutdown in progress",
    "in recovery mode",
    "not yet accepting connections",
    "the database system is not accepting",
    "too many connections",
    "too many clients",
    "remaining connection slots",
    "out of memory",
    "no space left",
    "could not extend file",
    "could not write",
    // InnoDB's full disk.
    "' is full",
    // A Galera node that joins, or lost the others.
    "wsrep has not yet prepared",
    // Read-only: a standby after a failover, or a full disk.
    "read-only",
    "readonly database",
    "read only",
    // SQLite's file.
    "unable to open database file",
    "disk i/o error",
    "database or disk is full",
    "database disk image is malformed",
    "file is not a database",
    "locking protocol",
];

/// How SQLite's connections say that nobody made the file yet: it lacks its tables, as any other database may.
pub(crate) const NO_FILE: &str = "no such database file";

/// One statement took too long, or somebody ended it. That says nothing of the database.
const SLOW: &[&str] = &[
    "statement timeout",
    "execution was interrupted",
    "maximum statement execution time exceeded",
];

const PERMISSION: &[&str] = &[
    "permission denied",
    "command denied",
    "access denied",
    "authentication failed",
    "must be owner",
    "no pg_hba.conf entry",
    "is not authorized",
];

/// Classifies an error of diesel.
pub(crate) fn classify(error: &Error) -> Class {
    let (kind, text) = match error {
        Error::DatabaseError(kind, info) => (Some(kind), info.message().to_lowercase()),
        Error::BrokenTransactionManager => return Class::Down,
        // A view of the data that did not show everything: the next transaction has another.
        error if inner::<Mismatch>(error).is_some() => return Class::Retry,
        error if inner::<TooLate>(error).is_some() => return Class::Late,
        error if inner::<MissingTables>(error).is_some() => return Class::Schema,
        Error::RollbackErrorOnCommit { rollback_error, commit_error } => {
            return match classify(commit_error) {
                Class::Other => classify(rollback_error),
                class => class,
            };
        }
        other => (None, other.to_string().to_lowercase()),
    };
    match kind {
        Some(DatabaseErrorKind::UniqueViolation) => return Class::Unique,
        Some(DatabaseErrorKind::SerializationFailure) => return Class::Retry,
        Some(
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::UnableToSendCommand,
        ) => return Class::Down,
        _ => {}
    }
    classify_text(&text)
}

/// Whether it is our own count of rows that does not add up. Unlike a quarrel with others it may never
/// end, so it is not repeated for as long.
pub(crate) fn is_mismatch(error: &Error) -> bool {
    inner::<Mismatch>(error).is_some() || error.to_string().contains(MISMATCH)
}

/// Classifies the text of an error, in lower case.
pub(crate) fn classify_text(text: &str) -> Class {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(RETRY) {
        Class::Retry
    } else if has(SLOW) {
        Class::Slow
    } else if has(DOWN) {
        Class::Down
    } else if has(PERMISSION) {
        Class::Permission
    } else {
        Class::Other
    }
}

/// The error as the manager sees it. `wrote` says that a write may have been under way, so that
/// a lost connection leaves open whether it was committed.
pub(crate) fn to_driver_error(error: Error, wrote: bool) -> DriverError {
    let class = classify(&error);
    if class == Class::Late {
        return DriverError::too_late().with_source(error);
    }
    let kind = match class {
        Class::Down | Class::Late => ErrorKind::Down,
        Class::Retry | Class::Slow => ErrorKind::Contention,
        Class::Schema => ErrorKind::Schema,
        Class::Permission => ErrorKind::Permission,
        Class::Unique | Class::Other => ErrorKind::Other,
    };
    let message = match class {
        Class::Schema => format!(
            "the tables of qudo are missing or old ({error}); run `qudo migrate --database DSN` or \
             call Manager::migrate"
        ),
        _ => error.to_string(),
    };
    // A procedure may be ended behind its own commit.
    let unknown = matches!(class, Class::Down | Class::Slow);
    DriverError::new(kind, message).with_source(error).ambiguous(wrote && unknown)
}

/// An error from before anything was asked: nothing can have been written.
pub(crate) fn connect_error(message: &str) -> DriverError {
    // A database that refuses our account is as unusable as a dead one, and others go on.
    let kind = if message.starts_with(NO_FILE) { ErrorKind::Schema } else { ErrorKind::Down };
    // libpq's messages take several lines.
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    DriverError::new(kind, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_engine_are_told_apart() {
        for (text, class) in [
            ("Deadlock found when trying to get lock; try restarting transaction", Class::Retry),
            ("Lock wait timeout exceeded; try restarting transaction", Class::Retry),
            ("database is locked", Class::Retry),
            ("FATAL:  the database system is starting up", Class::Down),
            ("FATAL:  sorry, too many clients already", Class::Down),
            ("Lost connection to server during query", Class::Down),
            ("Lost connection to MySQL server at 'handshake'", Class::Down),
            (
                "The client was disconnected by the server because of inactivity. See wait_timeout and \
                 interactive_timeout for configuring this behavior.",
                Class::Down,
            ),
            ("cannot execute INSERT in a read-only transaction", Class::Down),
            (
                "The MariaDB server is running with the --read-only option so it cannot execute this",
                Class::Down,
            ),
            ("database or disk is full", Class::Down),
            ("The table 'qudo_job' is full", Class::Down),
            ("WSREP has not yet prepared node for application use", Class::Down),
            ("permission denied for table qudo_job", Class::Permission),
            ("ERROR: qudo: rows do not add up: 2 facts, 1 places put", Class::Retry),
            ("ERROR: canceling statement due to statement timeout", Class::Slow),
            (
                "Query execution was interrupted, maximum statement execution time exceeded",
                Class::Slow,
            ),
            ("Query execution was interrupted (max_statement_time exceeded)", Class::Slow),
            ("Plugin instructed the server to rollback the current transaction.", Class::Retry),
            ("Table definition has changed, please retry transaction", Class::Retry),
            ("Max connect timeout reached while reaching hostgroup 1 after 10000ms", Class::Down),
            ("relation \"customers\" does not exist", Class::Other),
            ("value too long for type character varying(100)", Class::Other),
        ] {
            assert_eq!(classify_text(&text.to_lowercase()), class, "{text}");
        }
    }
}
