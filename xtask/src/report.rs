use std::process::ExitCode;
use std::time::Instant;

use crate::Result;
use crate::tally::Tally;

/// The course of a run: its steps with their durations, and the count of its tests.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tally: Tally,
    closing: Vec<String>,
}

impl Report {
    /// Runs one step, announced before and timed after; an error names the step that failed.
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut Tally) -> Result<T>,
    ) -> Result<T> {
        println!("==> {name}");
        let start = Instant::now();
        let outcome = step(&mut self.tally);
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("==> {name}: {word} in {:.1} s", start.elapsed().as_secs_f64());
        outcome.map_err(|error| format!("{name}: {error}").into())
    }

    /// Lines to be printed at the end, before the count.
    pub(crate) fn close_with(&mut self, lines: Vec<String>) {
        self.closing.extend(lines);
    }

    /// Prints the error, if there is one, and the count as the very last line.
    pub(crate) fn finish(mut self, outcome: Result<()>) -> ExitCode {
        let code = match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("\nFAILED {error}");
                self.tally.fail_if_unexplained();
                ExitCode::FAILURE
            }
        };
        self.closing.iter().for_each(|line| println!("{line}"));
        println!("{}", self.tally.summary());
        code
    }
}
