//! Messages of deserializers, without the values that they quote.

use std::error::Error;

/// Whether this error quotes what it could not read: the value is somebody's argument or reply.
pub(crate) fn quotes_values(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    #[cfg(feature = "msgpack")]
    if error.is::<rmp_serde::decode::Error>() {
        return true;
    }
    error.is::<serde_json::Error>() || error.is::<erased_serde::Error>()
}

/// What a message of serde says of the type, and where, without what it says of the value.
pub(crate) fn without_values(message: &str) -> String {
    let (text, place) = split_place(message);
    let safe = if let Some(rest) = text.strip_prefix("invalid type: ") {
        format!("invalid type: {}{}", kind(rest), expected(rest))
    } else if let Some(rest) = text.strip_prefix("invalid value: ") {
        format!("invalid value: {}{}", kind(rest), expected(rest))
    } else if text.starts_with("unknown variant") {
        format!("unknown variant{}", expected(text))
    } else if text.starts_with("unknown field") {
        format!("unknown field{}", expected(text))
    } else if OF_TYPES_OR_SYNTAX.iter().any(|start| text.starts_with(start)) {
        text.to_owned()
    } else {
        "the value is not valid".to_owned()
    };
    format!("{safe}{place}")
}

/// Messages that quote the type's own names or the format's characters only.
const OF_TYPES_OR_SYNTAX: [&str; 13] = [
    "missing field",
    "duplicate field",
    "invalid length",
    "expected `",
    "expected value",
    "expected ident",
    "EOF while parsing",
    "trailing ",
    "control character",
    "lone leading surrogate",
    "key must be",
    "recursion limit",
    "IO error while reading",
];

/// Cuts off ` at line 1 column 2`.
fn split_place(message: &str) -> (&str, &str) {
    let is_place = |tail: &str| {
        let mut words = tail.split(' ').filter(|word| !word.is_empty());
        let numbers = |word: Option<&str>| {
            word.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        };
        words.next() == Some("at")
            && words.next() == Some("line")
            && numbers(words.next())
            && words.next() == Some("column")
            && numbers(words.next())
            && words.next().is_none()
    };
    match message.rfind(" at line ") {
        Some(at) if is_place(&message[at..]) => message.split_at(at),
        _ => (message, ""),
    }
}

/// The kinds of values that serde tells apart.
const KINDS: [&str; 17] = [
    "boolean",
    "integer",
    "floating point",
    "character",
    "string",
    "byte array",
    "null",
    "unit value",
    "Option value",
    "newtype struct",
    "sequence",
    "map",
    "enum",
    "unit variant",
    "newtype variant",
    "tuple variant",
    "struct variant",
];

/// The kind of value, which stands before the value itself; nothing for one of somebody's own.
fn kind(rest: &str) -> &str {
    KINDS.into_iter().find(|kind| rest.starts_with(kind)).unwrap_or("a value")
}

/// What was wanted: the type's own words, behind the last comma in front of them. A value may hold the
/// same words, so only the last ones count.
fn expected(text: &str) -> &str {
    let found =
        [", expected ", ", there are no "].iter().filter_map(|words| text.rfind(words)).max();
    found.map_or("", |at| &text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_goes_and_the_type_and_the_place_stay() {
        for (message, safe) in [
            (
                "invalid type: string \"4111 1111\", expected u64 at line 1 column 11",
                "invalid type: string, expected u64 at line 1 column 11",
            ),
            (
                "invalid value: integer `4111`, expected u8 at line 1 column 4",
                "invalid value: integer, expected u8 at line 1 column 4",
            ),
            (
                "invalid type: string \"a, expected 4111\", expected u64",
                "invalid type: string, expected u64",
            ),
            ("invalid type: null, expected u64", "invalid type: null, expected u64"),
            ("unknown variant `4111`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            ("unknown field `4111`, there are no fields", "unknown field, there are no fields"),
            ("invalid type: 4111, expected u64", "invalid type: a value, expected u64"),
            ("missing field `name`", "missing field `name`"),
            ("expected value at line 1 column 1", "expected value at line 1 column 1"),
            ("4111 is no date at line 1 column 4", "the value is not valid at line 1 column 4"),
            ("4111 at line x column 4", "the value is not valid"),
        ] {
            assert_eq!(without_values(message), safe);
        }
    }
}
