//! Panics of code that is not ours: hooks, abilities, drivers, observers, loggers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may panic; the error tells how. What it borrows is used as it was left: whoever calls this knows
/// that it is valid.
pub(crate) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| message(&*panic))
}

/// As [`guard`]; the error is the panic, which can go on in another thread.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(run))
}

/// Runs what must not matter if it panics, such as a log.
pub(crate) fn say(run: impl FnOnce()) {
    let _ = guard(run);
}

/// The message of a panic, as far as it has one.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("with a value that is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_message() {
        assert_eq!(guard(|| 7), Ok(7));
        assert_eq!(guard(|| panic!("oh no")), Err::<(), _>("panicked: oh no".to_owned()));
        assert_eq!(guard(|| panic!("{} no", "oh")), Err::<(), _>("panicked: oh no".to_owned()));
        let odd = guard(|| std::panic::panic_any(7));
        assert!(odd.expect_err("panicked").contains("no text"));
        say(|| panic!("nobody hears it"));
    }
}
