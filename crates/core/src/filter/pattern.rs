//! What a text is compared with.

use crate::tools::pattern;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(String),
    /// With `*` for any characters.
    Wild(String),
}

impl Pattern {
    /// As written without quotes.
    pub(super) fn bare(text: &str) -> Self {
        let text = text.to_owned();
        if text.contains('*') { Self::Wild(text) } else { Self::Exact(text) }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Wild(wild) => pattern::matches(wild, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_an_ordinary_character_in_quotes() {
        assert!(Pattern::bare("a*").matches("ab"));
        assert!(!Pattern::Exact("a*".to_owned()).matches("ab"));
        assert!(Pattern::Exact("a*".to_owned()).matches("a*"));
    }
}
