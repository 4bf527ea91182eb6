use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::run;
use crate::{Error, binaries};

/// How often a suite is asked before it counts as not to be had.
const TRIES: u32 = 3;

/// A mark in the directory: everything is unpacked.
const COMPLETE: &str = ".complete";

/// Packages of another suite of Debian, unpacked beside the system and without touching it: a
/// server that the system's own suite does not have.
///
/// They lie in a cache outside the checkout, so that they are fetched once per machine. A program
/// from there runs with the loader and the libraries that were unpacked with it.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    root: PathBuf,
}

impl Unpacked {
    /// The packages, if they were unpacked before.
    pub(crate) fn find(suite: &str, package: &str) -> Option<Self> {
        let root = cache().join(format!("{suite}-{package}"));
        root.join(COMPLETE).is_file().then_some(Self { root })
    }

    /// The packages; fetched and unpacked if this machine does not have them yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] on a system that is not Debian or its kin, [`Error::Unavailable`]
    /// when the mirror cannot give the packages just now.
    pub(crate) fn fetch(suite: &str, package: &str) -> Result<Self, Error> {
        if let Some(found) = Self::find(suite, package) {
            return Ok(found);
        }
        for tool in ["apt-get", "dpkg-deb", "tar"] {
            if binaries::find(&[tool]).is_none() {
                return Err(Error::NotInstalled {
                    what: format!("{package} of Debian {suite}"),
                    advice: format!("this machine has no {tool} to unpack it with"),
                });
            }
        }
        let cache = cache();
        fs::create_dir_all(&cache).map_err(Error::file("make", &cache))?;
        // Beside its place and renamed at the end: two runs at once do not see half of it.
        let place = tempfile::Builder::new()
            .prefix("unpacking-")
            .tempdir_in(&cache)
            .map_err(Error::file("make a directory in", &cache))?;
        let mut tries = 1;
        loop {
            match unpack(suite, package, place.path()) {
                Ok(()) => break,
                Err(error @ Error::Failed { .. }) if tries < TRIES => {
                    eprintln!("Debian {suite} did not give {package} (try {tries}): {error}");
                    tries += 1;
                }
                Err(error @ Error::Failed { .. }) => {
                    return Err(Error::Unavailable {
                        what: format!("{package} of Debian {suite}"),
                        tries: TRIES,
                        reason: error.to_string(),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        let complete = place.path().join(COMPLETE);
        fs::write(&complete, "").map_err(Error::file("write", &complete))?;
        open_to_all(place.path())?;
        let root = cache.join(format!("{suite}-{package}"));
        match fs::rename(place.path(), &root) {
            Ok(()) => {}
            // Another run was first.
            Err(_) if root.join(COMPLETE).is_file() => {}
            Err(error) => return Err(Error::file("move the unpacked packages to", &root)(error)),
        }
        Ok(Self { root })
    }

    /// The directory that stands for `/usr`.
    pub(crate) fn usr(&self) -> PathBuf {
        self.root.join("usr")
    }

    /// The loader of the programs, and the arguments that make it use the libraries beside it and run
    /// this one.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] when the packages do not hold what they should.
    pub(crate) fn program(
        &self,
        program: &str,
        libraries: &[&str],
    ) -> Result<(PathBuf, Vec<String>), Error> {
        let missing = |what: &str| Error::NotInstalled {
            what: format!("{what} in {}", self.root.display()),
            advice: "remove the directory, so that it is fetched anew".to_owned(),
        };
        let loader = entries(&self.root.join("lib64"))
            .chain(entries(&self.root.join("lib")))
            .find(|path| has_prefix(path, "ld-linux"))
            .ok_or_else(|| missing("a loader"))?;
        let base = entries(&self.usr().join("lib"))
            .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .ok_or_else(|| missing("libraries"))?;
        let path = self.usr().join(program);
        if !path.is_file() {
            return Err(missing(program));
        }
        let paths: Vec<String> = std::iter::once(base.clone())
            .chain(libraries.iter().map(|library| base.join(library)))
            .map(|path| path.display().to_string())
            .collect();
        Ok((loader, vec!["--library-path".to_owned(), paths.join(":"), path.display().to_string()]))
    }
}

/// Programs of another suite of Debian as if they were installed: a directory with a script for each, which
/// comes first in the PATH of a test run. Each program is named with its path below `/usr`; `arguments` are
/// added behind those of the caller, `{usr}` in them stands for the unpacked `/usr`.
///
/// # Errors
///
/// [`Error::Unavailable`] when the mirror cannot give the package just now.
pub fn unpacked_programs(
    suite: &str,
    package: &str,
    programs: &[(&str, &str)],
    arguments: &str,
) -> Result<PathBuf, Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let unpacked = Unpacked::fetch(suite, package)?;
    let usr = unpacked.usr();
    let (base, usr) = (unpacked.root.join("scripts"), usr.display().to_string());
    let bin = base.join("bin");
    fs::create_dir_all(&bin).map_err(Error::file("make", &bin))?;
    // Where a program looks for its files beside itself.
    let share = base.join("share");
    if !share.exists() {
        std::os::unix::fs::symlink(unpacked.usr().join("share"), &share)
            .map_err(Error::file("link", &share))?;
    }
    // MariaDB's installer looks for the server here, from version 11 on.
    let sbin = base.join("sbin");
    if !sbin.exists() {
        std::os::unix::fs::symlink(&bin, &sbin).map_err(Error::file("link", &sbin))?;
    }
    for (name, program) in programs {
        let path = unpacked.usr().join(program);
        if !path.is_file() {
            // Of another package, and as good as this machine's.
            let here = binaries::find(&[name]).ok_or_else(|| Error::NotInstalled {
                what: (*name).to_owned(),
                advice: format!("it is neither in {package} nor installed"),
            })?;
            let script = bin.join(name);
            if !script.exists() {
                std::os::unix::fs::symlink(&here, &script).map_err(Error::file("link", &script))?;
            }
            continue;
        }
        let is_script = fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"#!"));
        let text = if is_script {
            // Of MariaDB, which wants its first argument first.
            let base = base.display();
            format!(
                "first=$1; shift; exec sh {} \"$first\" --basedir={base} \"$@\"",
                path.display()
            )
        } else {
            let (loader, words) = unpacked.program(program, &[])?;
            let arguments = arguments.replace("{usr}", &usr);
            format!("exec {} {} \"$@\" {arguments}", loader.display(), words.join(" "))
        };
        let script = bin.join(name);
        fs::write(&script, format!("#!/bin/sh\n{text}\n"))
            .map_err(Error::file("write", &script))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .map_err(Error::file("open to all", &script))?;
    }
    Ok(bin)
}

/// Where unpacked packages are kept: root's servers run as another user, who cannot enter root's home.
pub(crate) fn cache() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/qudo-test-servers");
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache
        .or_else(|| home.map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("qudo-test-servers")
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

fn has_prefix(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// A temporary directory is its owner's alone.
fn open_to_all(directory: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        .map_err(Error::file("open to all", directory))
}

/// The mirror that apt uses on this machine.
fn mirror() -> Option<String> {
    let lists = entries(Path::new("/etc/apt/sources.list.d"));
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(lists);
    files.filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| mirror_in(&text))
}

/// The first address in a list of sources that ends in `/debian`.
fn mirror_in(list: &str) -> Option<String> {
    list.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .find(|word| word.starts_with("http") && word.ends_with("/debian"))
        .map(str::to_owned)
}

/// Downloads a package with all that it needs, as if nothing were installed, and unpacks it.
fn unpack(suite: &str, package: &str, root: &Path) -> Result<(), Error> {
    let mirror = mirror().ok_or_else(|| Error::NotInstalled {
        what: format!("{package} of Debian {suite}"),
        advice: "apt knows no mirror of Debian here".to_owned(),
    })?;
    let state = root.join(".apt");
    let write = |name: &str, text: &str| {
        let path = state.join(name);
        fs::write(&path, text).map_err(Error::file("write", path))
    };
    for directory in ["lists/partial", "cache/archives/partial"] {
        let path = state.join(directory);
        fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
    }
    write("status", "")?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    write("sources.list", &format!("deb [signed-by={keys}] {mirror} {suite} main\n"))?;
    apt(&state, &["update"])?;
    apt(&state, &["--no-install-recommends", "--download-only", "-y", "install", package])?;
    // As on a system with one tree: some packages still name the old places.
    for directory in ["bin", "sbin", "lib", "lib64"] {
        let path = root.join("usr").join(directory);
        fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
        let link = root.join(directory);
        if !link.exists() {
            std::os::unix::fs::symlink(format!("usr/{directory}"), &link)
                .map_err(Error::file("link", &link))?;
        }
    }
    for archive in entries(&state.join("cache/archives")) {
        if archive.extension().is_some_and(|extension| extension == "deb") {
            extract(&archive, root)?;
        }
    }
    fs::remove_dir_all(&state).map_err(Error::file("remove", &state))
}

fn apt(state: &Path, arguments: &[&str]) -> Result<(), Error> {
    let mut command = Command::new("apt-get");
    command.arg("-q").env("DEBIAN_FRONTEND", "noninteractive");
    for (option, value) in [
        ("Dir::Etc::SourceList", state.join("sources.list").display().to_string()),
        ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
        ("Dir::State::Lists", state.join("lists").display().to_string()),
        ("Dir::Cache", state.join("cache").display().to_string()),
        ("Dir::State::status", state.join("status").display().to_string()),
        ("APT::Sandbox::User", "root".to_owned()),
        ("Acquire::Retries", "3".to_owned()),
        ("Debug::NoLocking", "1".to_owned()),
    ] {
        command.arg("-o").arg(format!("{option}={value}"));
    }
    run(command.args(arguments)).map(drop)
}

/// Unpacks one archive. What cannot be made here, such as a device, no server needs.
fn extract(archive: &Path, root: &Path) -> Result<(), Error> {
    let failed = |source| Error::Run { program: "dpkg-deb".to_owned(), source };
    let mut packed = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let Some(tar) = packed.stdout.take() else {
        return Err(failed(std::io::Error::other("its output is not piped")));
    };
    let unpacked = Command::new("tar")
        .args(["-x", "--keep-directory-symlink", "--no-same-owner", "-C"])
        .arg(root)
        .stdin(tar)
        .stderr(Stdio::null())
        .status()
        .map_err(|source| Error::Run { program: "tar".to_owned(), source });
    packed.wait().map_err(failed)?;
    unpacked.map(drop)
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn the_mirror_is_found_in_both_forms_of_a_list() {
        for list in [
            "# deb http://commented.example/debian trixie main\n\
             deb [trusted=yes] http://mirror.example/debian bookworm main\n",
            "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\n",
        ] {
            assert_eq!(mirror_in(list).as_deref(), Some("http://mirror.example/debian"));
        }
        assert_eq!(mirror_in("deb http://mirror.example/debian-security x main"), None);
    }
}
