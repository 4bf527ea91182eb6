//! The processes of a server: all those whose working directory lies in the server's directory.
//!
//! A process group would miss most of them, since every backend of PostgreSQL starts a session of
//! its own, and parenthood is lost when the postmaster dies first. The working directory is
//! inherited by each child and kept by orphans. Nobody else has business in that directory; a shell
//! that a developer opens there shares the server's fate.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long processes may take to disappear after SIGKILL.
const REAP_LIMIT: Duration = Duration::from_secs(10);

/// How often processes are looked for again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The living processes that work inside this directory, in ascending order.
pub(crate) fn inside(root: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<u32> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            // A zombie has no working directory any more, and so counts as gone.
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(root))
        })
        .collect();
    found.sort_unstable();
    found
}

/// Sends a signal to one process; one that is already gone is not an error worth reporting.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// Sends a signal to every process inside the directory.
pub(crate) fn send_all(root: &Path, signal: Signal) {
    send_each(&inside(root), signal);
}

fn send_each(pids: &[u32], signal: Signal) {
    for &pid in pids {
        send(pid, signal);
    }
}

/// Stops the main process, then all others, until no new one appears, and waits until each of their
/// threads stands still: a signal is sent before it is obeyed, and on a busy machine a thread would still
/// answer a call or two.
///
/// The main process is the one that forks, so it goes first.
pub(crate) fn freeze(root: &Path, main: u32) {
    send(main, Signal::STOP);
    let mut frozen = Vec::new();
    loop {
        let now = inside(root);
        if now == frozen {
            break;
        }
        send_each(&now, Signal::STOP);
        frozen = now;
    }
    let deadline = Instant::now() + REAP_LIMIT;
    while !frozen.iter().all(|pid| stands_still(*pid)) && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
}

/// Whether no thread of a process runs, or will before it is told to go on.
fn stands_still(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        // One that ended meanwhile has no file. The name in front of the state may hold blanks.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
    })
}

/// Kills every process inside the directory and waits until they are gone; answers those left.
///
/// The loop catches a child that was forked between the look and the kill.
pub(crate) fn kill_all(root: &Path) -> Vec<u32> {
    let deadline = Instant::now() + REAP_LIMIT;
    loop {
        let left = inside(root);
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        send_each(&left, Signal::KILL);
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::{freeze, inside, kill_all};

    /// A test that fails must not leave processes: they would hold its output open for their 600 s.
    struct Killed(PathBuf);

    impl Drop for Killed {
        fn drop(&mut self) {
            kill_all(&self.0);
        }
    }

    fn runs(pid: u32, program: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == program)
    }

    #[test]
    fn processes_are_found_by_their_directory_and_die_even_when_frozen() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let _killed = Killed(path.clone());
        // The shell runs the first sleep in a session of its own, as PostgreSQL runs a backend.
        let mut shell = Command::new("sh")
            .args(["-c", "setsid sleep 600 & sleep 600"])
            .current_dir(&path)
            .spawn()
            .unwrap();
        // Until both are started: a shell whose child is stopped between vfork and exec sleeps in the
        // kernel, where no signal stops it.
        while inside(&path).iter().filter(|pid| runs(**pid, "sleep")).count() < 2 {
            std::thread::yield_now();
        }
        freeze(&path, shell.id());
        assert!(inside(&path).iter().all(|pid| super::stands_still(*pid)));
        // The dead shell stays a zombie until it is waited for and must not count as alive.
        assert_eq!(kill_all(&path), Vec::<u32>::new());
        shell.wait().unwrap();
    }
}
