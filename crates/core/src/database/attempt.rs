//! What becomes of jobs at one database.

use std::time::Duration;

use crate::driver::{DriverError, ErrorKind, Inserted};

/// Why a drained database takes no job.
pub(crate) const DRAINING: &str = "it is draining";

/// How soon an insert is repeated whose answer was lost.
pub(super) const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// An attempt to store jobs in a database.
pub(crate) struct Tried {
    pub(crate) outcome: Attempt,
    /// An answer was lost and the insert repeated: should the first have been stored, and the job have run and ended
    /// before the second, it runs again.
    pub(crate) repeated: bool,
}

/// What became of it.
pub(crate) enum Attempt {
    /// One answer for each job.
    Stored(Vec<Inserted>),
    /// Nothing is stored: the database is down, drained or does not answer.
    Away(String),
    /// Nothing is stored: its tables are missing or of another version, or the account lacks a right. Another
    /// database may take the jobs.
    Unfit(DriverError),
    /// Nobody knows whether they are stored.
    Uncertain(DriverError),
    /// Nothing is stored, and another database would most likely answer the same.
    Failed(DriverError),
}

impl From<Result<Vec<Inserted>, DriverError>> for Attempt {
    fn from(answer: Result<Vec<Inserted>, DriverError>) -> Self {
        match answer {
            Ok(answers) => Self::Stored(answers),
            Err(error) if error.is_ambiguous() => Self::Uncertain(error),
            Err(error) if error.is_down() => Self::Away(crate::tools::causes::with_causes(&error)),
            Err(error) => match error.kind() {
                ErrorKind::Schema | ErrorKind::Permission => Self::Unfit(error),
                _ => Self::Failed(error),
            },
        }
    }
}

/// Whether an insert is to be repeated: its answer was lost, and the database does not hang.
pub(super) fn is_lost(answer: &Result<Vec<Inserted>, DriverError>) -> bool {
    answer.as_ref().is_err_and(|error| error.is_ambiguous() && error.is_down() && !error.is_hung())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> DriverError {
        DriverError::new(kind, "no")
    }

    #[test]
    fn an_answer_says_whether_another_database_may_take_the_jobs() {
        let of = |error| Attempt::from(Err(error));
        assert!(matches!(Attempt::from(Ok(Vec::new())), Attempt::Stored(_)));
        assert!(matches!(of(error(ErrorKind::Down)), Attempt::Away(_)));
        assert!(matches!(of(error(ErrorKind::Down).ambiguous(true)), Attempt::Uncertain(_)));
        assert!(matches!(of(error(ErrorKind::Other).ambiguous(true)), Attempt::Uncertain(_)));
        assert!(matches!(of(error(ErrorKind::Schema)), Attempt::Unfit(_)));
        assert!(matches!(of(error(ErrorKind::Permission)), Attempt::Unfit(_)));
        assert!(matches!(of(error(ErrorKind::Other)), Attempt::Failed(_)));
        assert!(matches!(of(error(ErrorKind::Contention)), Attempt::Failed(_)));
    }

    #[test]
    fn one_that_hangs_is_not_asked_a_second_time() {
        let lost = error(ErrorKind::Down).ambiguous(true);
        assert!(is_lost(&Err(lost.shared())));
        assert!(!is_lost(&Err(lost.hung(true))));
        assert!(!is_lost(&Err(error(ErrorKind::Down))));
        assert!(!is_lost(&Ok(Vec::new())));
    }
}
