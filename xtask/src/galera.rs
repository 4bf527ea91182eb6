use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Result;

/// Three nodes of a Galera cluster, gone with this value.
pub(crate) struct Galera {
    first: u16,
    script: Child,
    _directory: TempDir,
}

impl Galera {
    /// Starts the nodes; needs root, `galera-4` and `rsync`.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("qudo-galera-").tempdir()?;
        // Forty ports in a row, which nobody else is likely to use.
        let first = fastrand::u16(20_000..28_000);
        let mut script = Command::new("bash")
            .args(["-c", include_str!("galera.sh"), "galera.sh"])
            .arg(directory.path())
            .arg(first.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = script.stdout.take().ok_or("the script's output is not piped")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err("the cluster did not start; are galera-4 and rsync installed?".into());
        }
        Ok(Self { first, script, _directory: directory })
    }

    /// A way to the one database through each node.
    pub(crate) fn urls(&self) -> Vec<String> {
        (1..=3)
            .map(|node| format!("mysql://qudo:secret@127.0.0.1:{}/qudo", self.first + node))
            .collect()
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        // The script ends the nodes when its input does.
        drop(self.script.stdin.take());
        if let Err(error) = self.script.wait() {
            eprintln!("the cluster may be left behind: {error}");
        }
    }
}
