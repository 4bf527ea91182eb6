use std::fmt;

/// A filter that cannot be read: why, and where.
///
/// Its text shows the filter with the place marked under it, so it has three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    text: String,
    position: usize,
    length: usize,
    reason: String,
}

impl FilterError {
    pub(super) fn new(text: &str, place: Place, reason: impl Into<String>) -> Self {
        let Place { from, to } = place;
        Self { text: text.to_owned(), position: from, length: to - from, reason: reason.into() }
    }

    /// The first character that is wrong, counted from 0.
    pub fn position(&self) -> usize {
        self.position
    }

    /// How many characters are wrong; 0 where something is missing.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Why, and what would be right.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Some characters of a filter: from this one on, up to that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) from: usize,
    pub(super) to: usize,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One character for another, so that the marks stay under their place.
        let line: String =
            self.text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
        let (space, marks) = (" ".repeat(self.position), "^".repeat(self.length.max(1)));
        write!(f, "{}\n  {line}\n  {space}{marks}", self.reason)
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked_under_the_filter() {
        let error = FilterError::new("a:1\tb", Place { from: 4, to: 5 }, "no such field");
        assert_eq!(error.to_string(), "no such field\n  a:1 b\n      ^");
        assert_eq!((error.position(), error.length(), error.reason()), (4, 1, "no such field"));
        let missing = FilterError::new("a:", Place { from: 2, to: 2 }, "no value");
        assert!(missing.to_string().ends_with("\n    ^"));
    }
}
