use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

use crate::Result;

/// How often a program with a time limit is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long what a program left behind may go on: the guardians of test servers clean up.
const LEFT_FOR: Duration = Duration::from_secs(20);

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs a program in the sight of the developer; a failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    expect_success(command, status)
}

/// Runs a program and answers its standard output as text; a failure is an error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|error| cannot_run(command, &error))?;
    expect_success(command, output.status)?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a program whose standard output goes to the developer as it comes, and line by line to the
/// reader; a failure is an error, and so is a process that it leaves behind with its output open.
pub(crate) fn stream(command: &mut Command, mut reader: impl FnMut(&str)) -> Result<()> {
    // What the program leaves behind becomes a child of this one, so that it can be found.
    set_child_subreaper(Some(getpid()))?;
    let before = children();
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_run(command, &error))?;
    let output = BufReader::new(child.stdout.take().ok_or("a pipe was asked for")?);
    let (sender, lines) = mpsc::channel();
    // A thread of its own, because an output that somebody else holds open does not end.
    thread::spawn(move || read_lines(output, &sender));
    let (mut ended, mut killed) = (None, 0);
    let status = loop {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => {
                let text = String::from_utf8_lossy(&line?).into_owned();
                print!("{text}");
                io::stdout().flush()?;
                reader(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break child.wait()?,
            Err(RecvTimeoutError::Timeout) => {
                if ended.is_none() && child.try_wait()?.is_some() {
                    ended = Some(Instant::now());
                }
                if ended.is_some_and(|at| at.elapsed() > LEFT_FOR) {
                    let left: Vec<u32> =
                        children().into_iter().filter(|pid| !before.contains(pid)).collect();
                    killed += left.len();
                    for pid in left {
                        kill(pid);
                    }
                    ended = Some(Instant::now());
                }
            }
        }
    };
    expect_success(command, status)?;
    if killed > 0 {
        return Err(format!("`{}` left {killed} processes behind", shown(command)).into());
    }
    Ok(())
}

fn read_lines(mut output: impl io::BufRead, lines: &mpsc::Sender<io::Result<Vec<u8>>>) {
    loop {
        let mut line = Vec::new();
        let read = output.read_until(b'\n', &mut line);
        let is_end = !matches!(read, Ok(1..));
        if let Ok(0) = read {
            return;
        }
        if lines.send(read.map(|_| line)).is_err() || is_end {
            return;
        }
    }
}

/// The processes whose parent this one is, dead ones left out.
fn children() -> Vec<u32> {
    let own = std::process::id().to_string();
    let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_ours = |pid: &u32| {
        // The name before the state may hold blanks and brackets.
        let stat = stat(pid);
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(own.as_str())
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// Runs a program to its end and keeps what it prints; one that takes longer than the limit is
/// killed, which is an error. How it ends is for the caller to judge.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Output> {
    // Files, because a full pipe would stop the program while it is being waited for.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .map_err(|error| cannot_run(command, &error))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            let said = String::from_utf8_lossy(&contents(&mut stderr)?).into_owned();
            return Err(format!("`{}` did not end within {limit:?}\n{said}", shown(command)).into());
        }
        thread::sleep(LOOK_EVERY);
    };
    let stderr = String::from_utf8_lossy(&contents(&mut stderr)?).into_owned();
    Ok(Output { status, stdout: contents(&mut stdout)?, stderr })
}

/// Runs a program as [`capture`] does; a failure is an error that shows what the program printed.
pub(crate) fn capture_success(command: &mut Command, limit: Duration) -> Result<Output> {
    let output = capture(command, limit)?;
    if output.status.success() {
        return Ok(output);
    }
    let Output { status, stdout, stderr } = output;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    Err(format!("`{}` failed ({status})\n{stdout}{stderr}", shown(command)).into())
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn expect_success(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed ({status})", shown(command)).into())
}

fn cannot_run(command: &Command, error: &io::Error) -> String {
    format!("cannot run `{}`: {error}", shown(command))
}

/// The command as one types it. Its variables are left out, since they may hold a password.
fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name).chain(words).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{capture, capture_success, stream};

    #[test]
    fn a_stream_is_read_line_by_line_and_its_failure_is_seen() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        let failed = stream(command.args(["-c", "printf 'a\\nb'; exit 3"]), |line| {
            lines.push(line.trim_end().to_owned());
        });
        assert_eq!(lines, ["a", "b"]);
        assert!(failed.unwrap_err().to_string().contains("exit status: 3"));
    }

    #[test]
    fn what_a_program_leaves_behind_does_not_hold_up_the_run() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & kill -STOP $!; echo done"]);
        let mut lines = Vec::new();
        let failed = super::stream(&mut command, |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["done\n"]);
        assert!(failed.unwrap_err().to_string().contains("left 1 processes behind"));
    }

    #[test]
    fn output_larger_than_a_pipe_is_kept_whole() {
        let mut command = Command::new("head");
        let output = capture(command.args(["-c", "300000", "/dev/zero"]), Duration::from_secs(60));
        assert_eq!(output.unwrap().stdout.len(), 300_000);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let mut command = Command::new("sleep");
        let error = capture_success(command.arg("600"), Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
