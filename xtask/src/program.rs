use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// How often a program with a time limit is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
/// reader; a failure is an error.
pub(crate) fn stream(command: &mut Command, mut reader: impl FnMut(&str)) -> Result<()> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_run(command, &error))?;
    let mut output = BufReader::new(child.stdout.take().ok_or("a pipe was asked for")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        io::stdout().flush()?;
        reader(&text);
        line.clear();
    }
    let status = child.wait()?;
    expect_success(command, status)
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
