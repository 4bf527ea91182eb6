//! Worker processes of a measurement: this program once more, with the same words up to the command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use qudo::Error;

use super::abilities::{Counter, Printing};
use super::counts::WORK_JOBS;
use super::patience::{Any, PATIENCE};
use super::{Report, Setting};

/// How often a worker process tells how far it is.
const EVERY: Duration = Duration::from_millis(10);

/// A number that a worker process printed, and which one it was.
pub(super) type Told = (usize, u64);

/// Worker processes that end when this is closed.
pub(super) struct Workers {
    children: Vec<Child>,
    told: mpsc::Receiver<Told>,
    patience: Duration,
}

impl Workers {
    pub(super) fn start(setting: &Setting, number: u32, report: Report) -> Any<Self> {
        let (sender, told) = mpsc::channel();
        let patience = PATIENCE + setting.pause;
        let mut workers = Self { children: Vec::new(), told, patience };
        for place in 0..number as usize {
            let mut child = command(setting, report)?.spawn()?;
            let output = child.stdout.take().ok_or("a worker has no output")?;
            workers.children.push(child);
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if line.parse().is_ok_and(|number| sender.send((place, number)).is_err()) {
                        return;
                    }
                }
            });
        }
        Ok(workers)
    }

    /// The next number that one of them prints.
    pub(super) fn next(&self) -> Any<Told> {
        let next = self.told.recv_timeout(self.patience);
        let seconds = self.patience.as_secs();
        next.map_err(|_| format!("no worker did anything for {seconds} s").into())
    }

    /// Waits until they have done so many jobs together.
    pub(super) fn await_jobs(&self, jobs: u32) -> Any<()> {
        let mut done = vec![0; self.children.len()];
        while done.iter().sum::<u64>() < u64::from(jobs) {
            let (place, number) = self.next()?;
            done[place] = number;
        }
        Ok(())
    }

    /// The most memory that one of them ever used, in MB; where the system tells it.
    pub(super) fn peak_memory(&self) -> Option<f64> {
        let peak = |child: &Child| -> Option<f64> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
        };
        self.children.iter().filter_map(peak).max_by(f64::total_cmp)
    }

    /// Lets them end: they settle what they did and stop.
    pub(super) fn close(mut self) -> Any<()> {
        // All first, so that they end together.
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for mut child in std::mem::take(&mut self.children) {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a worker ended with {status}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Those that a failed measurement leaves; one that ended is not found.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn command(setting: &Setting, report: Report) -> Any<Command> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let at = words.iter().position(|word| word == "bench").ok_or("no command bench")?;
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args(&words[..=at]).args(["--work", &setting.queue]);
    worker.args(["--workers", &setting.workers.to_string()]);
    worker.args(["--job-ms", &setting.pause.as_millis().to_string()]);
    worker.args(["--report", report.as_str()]);
    if let Some(jobs) = setting.jobs {
        worker.args(["--jobs", &jobs.to_string()]);
    }
    for dsn in &setting.databases {
        worker.args(["--database", dsn]);
    }
    worker.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(worker)
}

/// What a worker process does.
pub(super) fn work_until_input_ends(setting: &Setting, report: Report) -> Result<(), Error> {
    let counter = Counter::new(setting.pause, setting.jobs(WORK_JOBS));
    let builder = setting.builder().plugin(counter.clone());
    let manager = match report {
        Report::Starts => builder.plugin(Printing).build()?,
        Report::Progress => builder.build()?,
    };
    let working = manager.start()?;
    if report == Report::Progress {
        thread::spawn(move || tell(&counter));
    }
    // Nobody writes there: the read ends when the parent does, however it ends.
    let _ended = std::io::stdin().lines().count();
    working.stop();
    Ok(())
}

/// Prints the number of jobs done whenever it has grown.
fn tell(counter: &Counter) {
    let mut told = 0;
    loop {
        let begun = Instant::now();
        let done = counter.get();
        let mut out = std::io::stdout().lock();
        if done != told && writeln!(out, "{done}").and_then(|()| out.flush()).is_err() {
            return;
        }
        drop(out);
        told = done;
        thread::sleep(EVERY.saturating_sub(begun.elapsed()));
    }
}
