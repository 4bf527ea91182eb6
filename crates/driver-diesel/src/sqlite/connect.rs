use std::path::{Path, PathBuf};

use diesel::{Connection, SqliteConnection};

use crate::classify::NO_FILE;
use crate::options::Options;
use crate::sql::Sql;

/// The file of `sqlite:FILE` or `sqlite://FILE`, and what stands after a `?`.
pub(super) fn parse(dsn: &str) -> Result<(PathBuf, Options), String> {
    let rest = dsn.strip_prefix("sqlite:").unwrap_or(dsn);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (file, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (options, unknown) = Options::split(query)?;
    let options = options.without_schema()?;
    if !unknown.is_empty() {
        return Err(format!(
            "{unknown:?} is unknown; SQLite has the parameters durability and table_prefix"
        ));
    }
    if options.pooler {
        return Err("pooler is a parameter for PostgreSQL only".to_owned());
    }
    if file.is_empty() {
        return Err("it names no file; expected something like sqlite:jobs.db".to_owned());
    }
    if file.contains(":memory:") || file.starts_with("file:") {
        return Err("qudo needs a plain file, because it opens several connections; \
                    for tests use memory:NAME"
            .to_owned());
    }
    if file.contains('\0') {
        return Err("a file's name cannot contain a NUL byte".to_owned());
    }
    Ok((PathBuf::from(file), options))
}

/// Makes the file if it is not there.
pub(super) fn make(path: &Path) -> Result<(), String> {
    if !is_missing(path) {
        return Ok(());
    }
    match std::fs::OpenOptions::new().create(true).append(true).open(path) {
        // Without its directory; opening it says so.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("cannot make the file {}: {error}", path.display())),
        Ok(_) => Ok(()),
    }
}

/// Whether there is no such file, and not only no way to see.
pub(super) fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn open(path: &Path, pragmas: &str) -> Result<SqliteConnection, String> {
    let text = path.to_str().ok_or("the file's name is not UTF-8")?;
    let wrong = |error: &dyn std::fmt::Display| format!("{text}: {error}");
    // SQLite says only that it cannot open the file; this is the most common reason.
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
        && !parent.is_dir()
    {
        return Err(format!("unable to open database file {text}: its directory does not exist"));
    }
    // SQLite would make it: a look at a file whose name is mistyped would leave an empty one behind, and jobs would
    // wait in it for workers that look elsewhere. A migration makes it before.
    if is_missing(path) {
        return Err(format!(
            "{NO_FILE}: {text}; run `qudo migrate --database DSN` or call Manager::migrate"
        ));
    }
    let mut conn = SqliteConnection::establish(text).map_err(|error| wrong(&error))?;
    Sql::plain(&mut conn).batch(pragmas).map_err(|error| wrong(&error))?;
    Ok(conn)
}

/// The busy timeout comes first: switching to WAL needs a lock itself. FULL makes every commit
/// durable; in WAL mode that is one sync of the log.
///
/// A file that grew in a burst is cut to 64 MiB at the next checkpoint. Where a log cannot be had SQLite
/// goes on without one and without an error; readers would hold up writers then.
pub(super) fn writer(path: &Path) -> Result<SqliteConnection, String> {
    let mut conn = open(
        path,
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA cache_size = -32000; PRAGMA temp_store = MEMORY; \
         PRAGMA journal_size_limit = 67108864;",
    )?;
    let mode: Option<String> =
        Sql::plain(&mut conn).row("PRAGMA journal_mode", &[]).map_err(|error| error.to_string())?;
    match mode.as_deref() {
        Some("wal") => Ok(conn),
        other => Err(format!(
            "unable to open database file {}: it cannot have a write-ahead log (its journal mode is \
             {other:?}); is it on a network's file system?",
            path.display()
        )),
    }
}

/// A connection that cannot write by mistake.
pub(super) fn reader(path: &Path) -> Result<SqliteConnection, String> {
    open(path, "PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;")
}
