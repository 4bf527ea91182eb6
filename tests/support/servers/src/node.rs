use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::program::run;
use crate::unpacked::cache;
use crate::{Error, binaries};

/// What is fetched; the last is compiled for no machine, and can be had without a compiler.
const DRIVERS: [&str; 3] = ["pg@8.23.1", "mysql2@3.24.6", "node-sqlite3-wasm@0.8.60"];

/// The name of their directory; another one for other versions.
const DIRECTORY: &str = "node-drivers-1";

/// How often npm is asked before they count as not to be had.
const TRIES: u32 = 3;

/// The directory from which Node loads the drivers, if they are there: the value of `NODE_PATH`.
pub fn drivers() -> Option<PathBuf> {
    let place = cache().join(DIRECTORY).join("node_modules");
    (place.is_dir() && binaries::find(&["node"]).is_some()).then_some(place)
}

/// Fetches them into a cache outside the checkout.
pub(crate) fn fetch() -> Result<(), Error> {
    let Some(npm) = binaries::find(&["npm"]) else {
        return Err(Error::NotInstalled {
            what: "npm".to_owned(),
            advice: "install Node with npm, so that the drivers of other languages can be tried"
                .to_owned(),
        });
    };
    let cache = cache();
    fs::create_dir_all(&cache).map_err(Error::file("make", &cache))?;
    // Beside its place and renamed at the end: two runs at once do not see half of it.
    let place = tempfile::Builder::new()
        .prefix("fetching-")
        .tempdir_in(&cache)
        .map_err(Error::file("make a directory in", &cache))?;
    let manifest = place.path().join("package.json");
    fs::write(&manifest, "{\"private\":true}").map_err(Error::file("write", &manifest))?;
    let mut tries = 1;
    loop {
        let mut install = Command::new(&npm);
        install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]).args(DRIVERS);
        match run(install.current_dir(place.path())) {
            Ok(_) => break,
            Err(error) if tries < TRIES => {
                eprintln!("npm did not give the drivers (try {tries}): {error}");
                tries += 1;
            }
            Err(error) => {
                return Err(Error::Unavailable {
                    what: DRIVERS.join(" "),
                    tries: TRIES,
                    reason: error.to_string(),
                });
            }
        }
    }
    let root = cache.join(DIRECTORY);
    match fs::rename(place.path(), &root) {
        Ok(()) => Ok(()),
        // Another run was first.
        Err(_) if drivers().is_some() => Ok(()),
        Err(error) => Err(Error::file("move the drivers to", &root)(error)),
    }
}
