//! The class of an error whose type is not known: what its message says but for what differs from one to the next.

/// So many characters of a message tell its class.
const LONGEST: usize = 120;

/// The first line with numbers, ids and quoted values in it replaced: `no user 17` and `no user 18` are of one class.
pub(crate) fn of_message(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let mut class = String::new();
    let mut rest = line;
    let mut length = 0;
    while let Some(first) = rest.chars().next() {
        if length >= LONGEST {
            class.push('…');
            return class;
        }
        let (put, len) = match first {
            '"' | '\'' | '`' => match quoted(rest, first) {
                Some(len) => ("…".to_owned(), len),
                None => (first.to_string(), first.len_utf8()),
            },
            _ if first.is_alphanumeric() => {
                let len = rest.find(|one: char| !is_of_word(one)).unwrap_or(rest.len());
                let word = &rest[..len];
                (if varies(word) { "#".to_owned() } else { word.to_owned() }, len)
            }
            _ if first.is_whitespace() => (" ".to_owned(), first.len_utf8()),
            _ => (first.to_string(), first.len_utf8()),
        };
        length += put.chars().count();
        class.push_str(&put);
        rest = &rest[len..];
    }
    class
}

/// The length of a text in quotes. An apostrophe within a word, as in `can't`, has no second one before the next word ends.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let len = text[quote.len_utf8()..].find(quote)? + 2 * quote.len_utf8();
    Some(len)
}

fn is_of_word(one: char) -> bool {
    one.is_alphanumeric() || matches!(one, '-' | '_' | '\'')
}

/// Numbers, and what looks like an id: digits among the letters.
fn varies(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    digits > 0 && (digits == word.chars().count() || word.len() >= 8 || digits * 2 >= word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_that_differ_in_values_are_of_one_class() {
        for (message, class) in [
            ("no user 17", "no user #"),
            ("no user 18\nwith a second line", "no user #"),
            ("\n  timeout after 30s", "timeout after #"),
            ("job 0190a1b2-5f0e-7c51-b8d5-2f6a7d1f3b60 is gone", "job # is gone"),
            ("unknown key \"ada\" in 'users'", "unknown key … in …"),
            ("can't connect to 10.0.0.7:5432", "can't connect to #.#.#.#:#"),
            ("HTTP 503 from utf8 server", "HTTP # from utf8 server"),
            ("", ""),
        ] {
            assert_eq!(of_message(message), class, "{message}");
        }
        assert_eq!(of_message(&"a ".repeat(200)).chars().count(), LONGEST + 1);
    }

    proptest! {
        #[test]
        fn any_message_has_a_short_class_without_digits_of_its_own(message in "\\PC{0,300}") {
            let class = of_message(&message);
            prop_assert!(!class.contains('\n'));
            prop_assert_eq!(of_message(&message), class);
        }
    }
}
