use crate::Result;

/// How many tests and checks passed, failed and were ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds what a test program reports, if this line of its output is the report.
    pub(crate) fn read(&mut self, line: &str) {
        if !line.starts_with("test result: ") {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1].trim_end_matches(';') {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    /// Adds one test, if this line of a test program's output is about it and its name is one that counts.
    pub(crate) fn read_test(&mut self, line: &str, counts: impl FnOnce(&str) -> bool) {
        let told = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let Some((name, outcome)) = told.filter(|(name, _)| counts(name)) else { return };
        match outcome.trim() {
            "ok" => self.passed += 1,
            "FAILED" => self.failed += 1,
            _ => println!("no outcome of {name}: {outcome}"),
        }
    }

    /// Makes one check that is no test of cargo's, counts it and says how it went. The checks after
    /// a failed one are still made, so that one run shows all that is wrong.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        match check() {
            Ok(()) => {
                self.passed += 1;
                println!("check {name} ... ok");
            }
            Err(error) => {
                self.failed += 1;
                println!("check {name} ... FAILED\n{error}");
            }
        }
    }

    /// Counts ignored tests as failed ones from here on, and answers how many there are.
    pub(crate) fn refuse_ignored(&mut self) -> u64 {
        let ignored = std::mem::take(&mut self.ignored);
        self.failed += ignored;
        ignored
    }

    /// Counts the failure of something that is not a test, unless a failed test explains it.
    pub(crate) fn fail_if_unexplained(&mut self) {
        self.failed = self.failed.max(1);
    }

    /// How many passed and failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.passed, self.failed)
    }

    /// An error when anything has failed.
    pub(crate) fn verdict(&self) -> Result<()> {
        match self.failed {
            0 => Ok(()),
            failed => Err(format!("{failed} failed").into()),
        }
    }

    /// The line that sums up the whole run.
    pub(crate) fn summary(&self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn the_reports_of_test_programs_add_up_and_other_lines_do_not_count() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test a_test ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.1s",
            "test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 2 passed; 5 failed; 0 ignored; 0 measured",
            "it printed: test result: ok. 99 passed; 99 failed",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 5, failed: 5, ignored: 1 });
        assert_eq!(tally.refuse_ignored(), 1);
        assert_eq!(tally.summary(), "5 passed, 6 failed");
    }

    #[test]
    fn tests_are_counted_by_their_names() {
        let mut tally = Tally::default();
        for line in [
            "test base::postgres::work ... ok",
            "test base::mariadb::work ... ok",
            "test base::postgres::reply ... FAILED",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.1s",
            "a test that prints ... ok",
        ] {
            tally.read_test(line, |name| name.contains("postgres"));
        }
        assert_eq!(tally, Tally { passed: 1, failed: 1, ignored: 0 });
    }

    #[test]
    fn a_run_that_fails_without_a_failed_test_never_reports_zero_failures() {
        let mut tally = Tally::default();
        tally.verdict().unwrap();
        tally.fail_if_unexplained();
        assert_eq!(tally.summary(), "0 passed, 1 failed");
        tally.verdict().unwrap_err();
    }
}
