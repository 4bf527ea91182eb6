//! Texts in which `*` stands for any characters.

/// What a text is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    Exact(String),
    /// The pieces between the `*`; at least two.
    Wild(Vec<String>),
}

impl Pattern {
    /// As written without quotes.
    pub(super) fn bare(text: &str) -> Self {
        if text.contains('*') {
            Self::Wild(text.split('*').map(str::to_owned).collect())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let pieces = match self {
            Self::Exact(exact) => return exact == text,
            Self::Wild(pieces) => pieces,
        };
        let [first, middle @ .., last] = &**pieces else { return false };
        let Some(rest) = text.strip_prefix(&**first) else { return false };
        let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
        // The first place of each piece leaves the most for those behind it.
        for piece in middle {
            match rest.find(&**piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let yes = [
            ("gl.*", "gl.accounting"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
            ("*mail", "mail"),
            ("a**c", "ac"),
            ("*ä*", "käse"),
        ];
        let no =
            [("gl.*", "gl"), ("a*a", "a"), ("a*b*c", "a-c"), ("mail", "mails"), ("*x*", "abc")];
        for (pattern, text) in yes {
            assert!(Pattern::bare(pattern).matches(text), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!Pattern::bare(pattern).matches(text), "{pattern} {text}");
        }
        assert!(!Pattern::Exact("a*".to_owned()).matches("ab"), "quoted");
    }
}
