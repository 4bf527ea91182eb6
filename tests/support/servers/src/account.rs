use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::Error;

/// The user that a process runs as: another one when the tests run as root, else the same.
///
/// PostgreSQL refuses to run as root and MariaDB advises against it. The standard library changes
/// the user between fork and exec, so the server keeps the process id that the parent knows, which
/// a wrapper such as `runuser` would hide.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    /// The first of these users that exists when this process is root, else the user that it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoAccount`] when this process is root and none of the users exists.
    pub fn unprivileged(names: &[&str]) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { ids: None });
        }
        let path = "/etc/passwd";
        let users = fs::read_to_string(path).map_err(Error::file("read", path))?;
        names
            .iter()
            .find_map(|name| ids_of(name, &users))
            .map(|ids| Self { ids: Some(ids) })
            .ok_or_else(|| Error::NoAccount(names.join(", ")))
    }

    /// Lets the command run as this user, without the supplementary groups of root.
    pub fn apply(self, command: &mut Command) {
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file is missing or may not be given away.
    pub fn own(self, path: &Path) -> Result<(), Error> {
        match self.ids {
            Some((user, group)) => {
                chown(path, Some(user), Some(group)).map_err(Error::file("give away", path))
            }
            None => Ok(()),
        }
    }
}

/// The user and group ids that a line of `/etc/passwd` gives this user.
fn ids_of(name: &str, users: &str) -> Option<(u32, u32)> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (user, _password) = (fields.next()?, fields.next()?);
        let ids = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (user == name).then_some(ids)
    })
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\n\nmysqlx:x:7:7::/:\nmysql:x:101:103:,,,:/:\n";
        assert_eq!(ids_of("mysql", users), Some((101, 103)));
        assert_eq!(ids_of("nobody", users), None);
    }
}
