use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold servers and are missing from the PATH of ordinary users.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/sbin"];

/// Where Debian and its kin keep one directory per major version of PostgreSQL.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// The first of these programs that PATH or a system directory holds.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> =
        env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from)).collect();
    names.iter().find_map(|name| directories.iter().find_map(|dir| program_in(dir, name)))
}

/// The directory with `postgres` and its companions: the one in PATH, else the newest installed.
pub(crate) fn postgres_directory() -> Option<PathBuf> {
    let in_path = find(&["postgres"])
        .and_then(|program| fs::canonicalize(program).ok())
        .and_then(|program| program.parent().map(Path::to_path_buf));
    in_path
        .filter(|directory| program_in(directory, "initdb").is_some())
        .or_else(|| newest_with(Path::new(DEBIAN_POSTGRES), "postgres"))
}

/// `psql` itself, in preference to the wrapper script that Debian puts into PATH.
pub(crate) fn psql() -> Option<PathBuf> {
    postgres_directory()
        .and_then(|directory| program_in(&directory, "psql"))
        .or_else(|| newest_with(Path::new(DEBIAN_POSTGRES), "psql").map(|dir| dir.join("psql")))
        .or_else(|| find(&["psql"]))
}

/// The command line client of MariaDB, by its present or its former name.
pub(crate) fn mariadb_client() -> Option<PathBuf> {
    find(&["mariadb", "mysql"])
}

/// The `bin` directory below the highest version number that holds the program.
fn newest_with(versions: &Path, program: &str) -> Option<PathBuf> {
    fs::read_dir(versions)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            program_in(&bin, program).map(|_| (version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
}

/// The program's path when the directory holds it.
fn program_in(directory: &Path, name: &str) -> Option<PathBuf> {
    let path = directory.join(name);
    path.is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::newest_with;

    #[test]
    fn the_newest_version_is_the_highest_number_that_has_the_program() {
        let root = tempfile::tempdir().unwrap();
        for (version, program) in
            [("9", "postgres"), ("15", "postgres"), ("17", "psql"), ("dev", "postgres")]
        {
            let bin = root.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join(program), "").unwrap();
        }
        assert_eq!(newest_with(root.path(), "postgres"), Some(root.path().join("15/bin")));
        assert_eq!(newest_with(root.path(), "mariadbd"), None);
    }
}
