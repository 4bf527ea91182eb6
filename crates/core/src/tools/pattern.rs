//! Texts in which `*` stands for any characters.

/// Whether a text is one of those that a pattern stands for.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, last) = rest.rsplit_once('*').map_or(("", rest), |(middle, last)| (middle, last));
    let Some(text) = text.strip_prefix(first) else { return false };
    let Some(mut text) = text.strip_suffix(last) else { return false };
    // The first place of each piece leaves the most for those behind it.
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    true
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
            ("mail", "mail"),
        ];
        let no = [
            ("gl.*", "gl"),
            ("a*a", "a"),
            ("a*b*c", "a-c"),
            ("mail", "mails"),
            ("*x*", "abc"),
            ("", "a"),
        ];
        for (pattern, text) in yes {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
