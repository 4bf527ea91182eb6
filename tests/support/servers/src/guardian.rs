use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the guardian does once its input ends.
///
/// SIGQUIT lets PostgreSQL give back its shared memory, and ends MariaDB as well; whoever does not
/// follow within five seconds is killed.
const SCRIPT: &str = r#"
root=$1
while read -r _; do :; done
inside() {
    for process in /proc/[0-9]*; do
        case "$(readlink "$process/cwd")/" in
            "$root"/*) echo "${process#/proc/}" ;;
        esac
    done
}
for signal in QUIT CONT; do
    for pid in $(inside); do kill -s "$signal" "$pid"; done
done
tries=0
while [ -n "$(inside)" ] && [ "$tries" -lt 20 ]; do
    tries=$((tries + 1))
    sleep 0.25
done
for pid in $(inside); do kill -s KILL "$pid"; done
while [ -n "$(inside)" ] && [ "$tries" -lt 40 ]; do
    tries=$((tries + 1))
    sleep 0.25
done
rm -rf -- "$root"
"#;

/// A shell that cleans up after a test process that died without dropping its server.
///
/// A server kept in a `static` is never dropped, and neither is one whose process aborts or is
/// killed. The guardian holds the reading end of a pipe from this process: when the pipe closes,
/// whatever the cause, it ends the server and removes the directory.
#[derive(Debug)]
pub(crate) struct Guardian {
    shell: Child,
}

impl Guardian {
    /// Starts a guardian for the server in this directory.
    pub(crate) fn watch(root: &Path) -> io::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(root)
            .current_dir("/")
            // Its own group, so that the Ctrl-C that ends the tests does not end it too.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Guardian {
    /// Dismisses the guardian: its server has been ended in the orderly way.
    fn drop(&mut self) {
        let _gone = self.shell.kill();
        let _reaped = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::Guardian;

    #[test]
    fn the_guardian_kills_and_removes_when_its_pipe_closes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        fs::write(path.join("a file"), "").unwrap();
        let mut server = Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
        let mut guardian = Guardian::watch(&path).unwrap();
        drop(guardian.shell.stdin.take());
        assert!(!server.wait().unwrap().success());
        guardian.shell.wait().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_dismissed_guardian_touches_nothing() {
        let root = tempfile::tempdir().unwrap();
        drop(Guardian::watch(root.path()).unwrap());
        assert!(root.path().exists());
    }
}
