use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::guardian::Guardian;
use crate::options::Options;
use crate::{Account, Error};

/// How many of the log's last lines an error shows.
const TAIL_LINES: usize = 30;

/// The longest path that the sockets in the directory may have, with room below the system's 107.
const MAX_SOCKET: usize = 100;

/// The directory of one server and the user that it belongs to.
///
/// The fields are dropped in order: the guardian must be dismissed before the directory goes.
#[derive(Debug)]
pub struct Place {
    root: PathBuf,
    account: Account,
    _guardian: Guardian,
    _directory: TempDir,
}

impl Place {
    /// Makes an empty directory for a server that is to run as the first of the users.
    pub(crate) fn make(prefix: &str, users: &[&str], options: &Options) -> Result<Self, Error> {
        let account = Account::unprivileged(users)?;
        let parent = options.parent();
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&parent)
            .map_err(Error::file("make a directory in", &parent))?;
        // The true path, because processes are recognised by it.
        let root = directory
            .path()
            .canonicalize()
            .map_err(Error::file("find the true path of", directory.path()))?;
        if root.as_os_str().len() + "/.s.PGSQL.65535.lock".len() > MAX_SOCKET {
            return Err(Error::Invalid {
                what: root.display().to_string(),
                reason: "the path is too long for a unix socket".into(),
            });
        }
        account.own(&root)?;
        let guardian =
            Guardian::watch(&root).map_err(Error::system("start the guardian of the server"))?;
        Ok(Self { root, account, _guardian: guardian, _directory: directory })
    }

    /// The server's own directory; its sockets are here.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// A command that runs here, as the server's user, in an environment that holds nothing of the
    /// developer's: a stray `PGDATA` or the library path of cargo must not reach a server.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.root)
            .env("TMPDIR", &self.root)
            .env("LC_ALL", "C");
        // Where the locales are of a server whose messages are to be in another language.
        if let Some(locales) = env::var_os("LOCPATH") {
            command.env("LOCPATH", locales);
        }
        self.account.apply(&mut command);
        command
    }

    /// The log, opened for appending; it takes all that the server prints.
    pub(crate) fn open_log(&self) -> Result<File, Error> {
        let path = self.log_path();
        OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("open", path))
    }

    /// How long the log is now, in bytes.
    pub(crate) fn log_length(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len())
    }

    /// The last lines of the log, of those after this position.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let recent = log.get(from as usize..).unwrap_or_default();
        let recent = String::from_utf8_lossy(recent);
        let lines: Vec<&str> = recent.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.root.join("server.log")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::Place;
    use crate::{Error, Options};

    #[test]
    fn the_tail_of_the_log_starts_where_the_last_start_did() {
        let place = Place::make("qudo-place-", &["nobody"], &Options::default()).unwrap();
        place.open_log().unwrap().write_all(b"yesterday\n").unwrap();
        let from = place.log_length();
        for line in 0..50 {
            writeln!(place.open_log().unwrap(), "line {line}").unwrap();
        }
        let tail = place.log_tail(from);
        assert!(tail.starts_with("line 20\n") && tail.ends_with("line 49"), "{tail}");
    }

    #[test]
    fn a_directory_too_deep_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let deep = parent.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let options = Options { parent: Some(deep), ..Options::default() };
        let refused = Place::make("qudo-place-", &["nobody"], &options).unwrap_err();
        assert!(matches!(refused, Error::Invalid { .. }), "{refused}");
    }
}
