//! What the rooms above are made with. Threads, locks, condition variables, channels, clocks and random numbers
//! come from here and from nowhere else, so that a scheduler that decides what happens when can stand in for them;
//! a test holds the other files to that. Nothing here knows what a job is.

pub(crate) mod awake;
pub(crate) mod bell;
pub(crate) mod causes;
pub(crate) mod front;
pub(crate) mod guard;
pub(crate) mod pattern;
pub(crate) mod polling;
pub(crate) mod random;
pub(crate) mod reply;
pub(crate) mod secret;
pub(crate) mod sync;
pub(crate) mod threads;
pub(crate) mod time;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn threads_locks_time_and_chance_come_from_here_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(files.len() > 50, "{files:?}");
        let elsewhere = |path: &&PathBuf| {
            !path.starts_with(root.join("tools"))
                && !["asynchronous.rs", "bed.rs", "fixture.rs"]
                    .iter()
                    .any(|name| path.ends_with(name))
        };
        for path in files.iter().filter(elsewhere) {
            let text = fs::read_to_string(path).expect("text");
            // Tests may start threads and look at the clock as they like.
            let product = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in product.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let is_std = line.contains("std::sync")
                    && ["Mutex", "RwLock", "Condvar", "mpsc", "Barrier", "PoisonError"]
                        .iter()
                        .any(|one| line.contains(one));
                let is_clock = line.contains("std::time")
                    && ["Instant", "SystemTime"].iter().any(|one| line.contains(one));
                let others = [
                    "std::thread",
                    "fastrand",
                    "Utc::now",
                    "now_v7",
                    "catch_unwind",
                    "parking_lot",
                ];
                let is_other = others.iter().any(|one| line.contains(one));
                assert!(!(is_std || is_clock || is_other), "{}: {line}", path.display());
            }
        }
    }
}
