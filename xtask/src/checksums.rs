use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use qudo_test_servers::{Account, FreshDatabase};
use tempfile::TempDir;

use crate::Result;
use crate::cargo::Cargo;
use crate::databases::Databases;
use crate::program::{self, Output};
use crate::tally::Tally;
use crate::tree::Tree;

/// How long one run of an example may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// Checks that the example prints what `sha256sum` prints for the same files sorted by path, on
/// each engine and on all of them at once, and that it treats an unreadable file alike.
pub(crate) fn run(
    cargo: &Cargo,
    executable: &Path,
    databases: &Databases,
    tally: &mut Tally,
) -> Result<()> {
    let site = Site::prepare(cargo, executable)?;
    tally.check("example checksums, default database", || site.agrees(&[]));
    tally.check("example checksums, sqlite", || site.agrees(&[site.sqlite("one.db")]));
    let servers = [
        ("postgres", databases.postgres()),
        ("mariadb", databases.mariadb()),
        ("mysql", databases.mysql()),
    ];
    for (name, server) in servers {
        let Some(server) = server else { continue };
        tally.check(&format!("example checksums, {name}"), || {
            let database = FreshDatabase::beside(server, "checksums")?;
            site.agrees(&[database.url().to_owned()])
        });
    }
    if servers.iter().any(|(_, server)| server.is_some()) {
        tally.check("example checksums, all databases at once", || {
            let fresh: Vec<_> = servers
                .into_iter()
                .filter_map(|(_, server)| server)
                .map(|server| FreshDatabase::beside(server, "checksums_mixed"))
                .collect::<std::result::Result<_, _>>()?;
            let mut all = vec![site.sqlite("mixed.db")];
            all.extend(fresh.iter().map(|one| one.url().to_owned()));
            site.agrees(&all)
        });
    }
    // Last, because the file stays unreadable.
    tally.check("example checksums, unreadable file", || site.agrees_on_an_unreadable_file());
    Ok(())
}

/// The tree and everything else that the runs of the example need.
struct Site<'a> {
    cargo: &'a Cargo,
    directory: TempDir,
    executable: PathBuf,
    account: Account,
    seed: u64,
    tree: Tree,
}

impl<'a> Site<'a> {
    /// Grows a tree, and copies the example to where the user of the runs can reach it. Root can
    /// read every file, so that user is another one when the checks run as root.
    fn prepare(cargo: &'a Cargo, executable: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let account = Account::unprivileged(&["nobody"])?;
        let copy = directory.path().join("checksums");
        fs::copy(executable, &copy)?;
        fs::create_dir(directory.path().join("home"))?;
        account.own(&directory.path().join("home"))?;
        let seed = fastrand::u64(..);
        let tree = Tree::grow(&directory.path().join("tree"), seed)?;
        Ok(Self { cargo, directory, executable: copy, account, seed, tree })
    }

    /// The directory where the runs may write.
    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// The URL of a SQLite database that does not exist yet.
    fn sqlite(&self, file: &str) -> String {
        format!("sqlite:{}", self.home().join(file).display())
    }

    /// An error unless the example succeeds on these databases and prints the right lines.
    fn agrees(&self, databases: &[String]) -> Result<()> {
        let output = self.example(databases)?;
        if !output.status.success() {
            return Err(format!("the example failed ({})\n{}", output.status, output.stderr).into());
        }
        self.compare(&output)
    }

    /// An error unless the example does as `sha256sum` does: it prints all other files, names the
    /// unreadable one on its error output, and ends with a failure.
    fn agrees_on_an_unreadable_file(&self) -> Result<()> {
        let forbidden = self.tree.forbid_one()?.to_string_lossy();
        let output = self.example(&[])?;
        if output.status.success() {
            return Err("the example succeeded with an unreadable file in the tree".into());
        }
        if !output.stderr.contains(forbidden.as_ref()) {
            return Err(format!("{forbidden} is not named in:\n{}", output.stderr).into());
        }
        self.compare(&output)
    }

    fn example(&self, databases: &[String]) -> Result<Output> {
        let mut command = self.as_user(self.cargo.program(&self.executable));
        command.arg(self.tree.root());
        for database in databases {
            command.arg("--database").arg(database);
        }
        program::capture(&mut command, LIMIT)
    }

    /// An error at the first line that differs from what `sha256sum` prints.
    fn compare(&self, output: &Output) -> Result<()> {
        let mut command = self.as_user(Command::new("sha256sum"));
        let expected = program::capture(command.arg("--").args(self.tree.paths()), LIMIT)?.stdout;
        if output.stdout == expected {
            return Ok(());
        }
        let (expected, got) =
            (String::from_utf8_lossy(&expected), String::from_utf8_lossy(&output.stdout));
        let (number, expected, got) = first_difference(&expected, &got);
        let seed = self.seed;
        Err(format!(
            "line {number} differs (tree of seed {seed})\nsha256sum: {expected}\nexample:   {got}\n{}",
            output.stderr
        )
        .into())
    }

    /// The command as that user, in a directory where it may write.
    fn as_user(&self, mut command: Command) -> Command {
        let home = self.home();
        command.current_dir(&home).env("HOME", &home).env("TMPDIR", &home);
        self.account.apply(&mut command);
        command
    }
}

/// The number of the first line in which two texts differ, and that line in each of them.
fn first_difference<'t>(expected: &'t str, got: &'t str) -> (usize, &'t str, &'t str) {
    let mut pairs = (expected.split('\n'), got.split('\n'));
    for number in 1.. {
        match (pairs.0.next(), pairs.1.next()) {
            (None, None) => break,
            (expected, got) if expected == got => {}
            (expected, got) => {
                let end = "(nothing more)";
                return (number, expected.unwrap_or(end), got.unwrap_or(end));
            }
        }
    }
    (0, "", "")
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_difference_is_a_line_or_a_missing_end() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), (2, "b", "c"));
        assert_eq!(first_difference("a\n", "a"), (2, "", "(nothing more)"));
    }
}
