use std::fmt;

/// Where in the source something was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLocation {
    file: &'static str,
    line: u32,
}

impl SourceLocation {
    /// Names a place; the macros call it with `file!()` and `line!()`.
    pub const fn new(file: &'static str, line: u32) -> Self {
        Self { file, line }
    }

    /// The place that called a `#[track_caller]` function.
    #[track_caller]
    pub fn caller() -> Self {
        let caller = std::panic::Location::caller();
        Self::new(caller.file(), caller.line())
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
