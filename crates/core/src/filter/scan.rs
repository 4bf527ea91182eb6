//! The words of a filter, with their places.

use super::error::{FilterError, Place};

/// What stands between a field and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Is,
    IsNot,
    Contains,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

/// As they are written, the longer ones first.
const OPERATORS: &[(&str, Operator)] = &[
    ("!=", Operator::IsNot),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::MoreOrEqual),
    ("<", Operator::Less),
    (">", Operator::More),
    ("~", Operator::Contains),
    (":", Operator::Is),
    ("=", Operator::Is),
];

impl Operator {
    pub(super) fn as_str(self) -> &'static str {
        OPERATORS.iter().find(|(_, one)| *one == self).map_or("", |(text, _)| text)
    }
}

/// A value, with or without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) quoted: bool,
    pub(super) place: Place,
}

/// A field, what is asked of it, and the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) path: Vec<String>,
    pub(super) operator: Operator,
    pub(super) values: Vec<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Or,
    Not,
    Open,
    Close,
    Term(Written),
}

/// The words of a filter in their order.
pub(super) fn scan(text: &str) -> Result<Vec<(Word, Place)>, FilterError> {
    let mut scanner = Scanner { text, chars: text.chars().collect(), at: 0 };
    let mut words = Vec::new();
    while let Some(word) = scanner.next()? {
        words.push(word);
    }
    Ok(words)
}

/// Goes through a filter word by word.
struct Scanner<'t> {
    text: &'t str,
    chars: Vec<char>,
    at: usize,
}

impl Scanner<'_> {
    fn wrong(&self, place: Place, reason: impl Into<String>) -> FilterError {
        FilterError::new(self.text, place, reason)
    }

    fn next(&mut self) -> Result<Option<(Word, Place)>, FilterError> {
        while self.current().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let from = self.at;
        let word = match self.current() {
            None => return Ok(None),
            Some('(') => {
                self.at += 1;
                Word::Open
            }
            Some(')') => {
                self.at += 1;
                Word::Close
            }
            Some(_) => self.term_or_keyword(from)?,
        };
        Ok(Some((word, Place { from, to: self.at })))
    }

    fn current(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn term_or_keyword(&mut self, from: usize) -> Result<Word, FilterError> {
        let name = self.name();
        let Some(operator) = self.operator_behind_path(&name)? else {
            let keyword = match &*name.to_ascii_uppercase() {
                "AND" => Some(Word::And),
                "OR" => Some(Word::Or),
                "NOT" => Some(Word::Not),
                _ => None,
            };
            return keyword.ok_or_else(|| {
                while self.current().is_some_and(|one| !one.is_whitespace() && !matches!(one, '(' | ')')) {
                    self.at += 1;
                }
                let place = Place { from, to: self.at };
                self.wrong(place, "not a term: one is a field, an operator and a value, such as `ability:mail` or `age>10m`")
            });
        };
        let (path, operator) = operator;
        let values = self.values(operator)?;
        Ok(Word::Term(Written { name, path, operator, values }))
    }

    fn name(&mut self) -> String {
        let from = self.at;
        while self.current().is_some_and(|one| one.is_alphanumeric() || matches!(one, '_' | '-')) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    /// The names behind dots, and the operator; nothing, and no step further, where there is none.
    fn operator_behind_path(
        &mut self,
        name: &str,
    ) -> Result<Option<(Vec<String>, Operator)>, FilterError> {
        let start = self.at;
        let mut path = Vec::new();
        while !name.is_empty() && self.current() == Some('.') {
            self.at += 1;
            let part = match self.current() {
                Some('"') => self.quoted()?,
                _ => self.name(),
            };
            if part.is_empty() {
                break;
            }
            path.push(part);
        }
        let rest = &self.chars[self.at..];
        let is_next =
            |text: &str| text.chars().enumerate().all(|(i, one)| rest.get(i) == Some(&one));
        let found = OPERATORS.iter().find(|(text, _)| is_next(text));
        match found {
            Some((text, operator)) if !name.is_empty() => {
                self.at += text.len();
                Ok(Some((path, *operator)))
            }
            _ => {
                self.at = start;
                Ok(None)
            }
        }
    }

    fn values(&mut self, operator: Operator) -> Result<Vec<Value>, FilterError> {
        let mut values = Vec::new();
        loop {
            let from = self.at;
            let quoted = self.current() == Some('"');
            let text = if quoted { self.quoted()? } else { self.bare() };
            let place = Place { from, to: self.at };
            if text.is_empty() && !quoted {
                let reason = format!(
                    "a value is missing behind `{}`; an empty text is \"\"",
                    operator.as_str()
                );
                return Err(self.wrong(place, reason));
            }
            values.push(Value { text, quoted, place });
            match self.current() {
                Some(',') => self.at += 1,
                Some('"') => {
                    let place = Place { from: self.at, to: self.at + 1 };
                    return Err(self.wrong(place, "a quote in the middle of a value: put all of it in quotes, and a quote in it as \\\""));
                }
                Some(one) if quoted && !one.is_whitespace() && !matches!(one, '(' | ')') => {
                    let place = Place { from: self.at, to: self.at + 1 };
                    return Err(self.wrong(place, "a space or a comma is missing behind the quote"));
                }
                _ => return Ok(values),
            }
        }
    }

    fn bare(&mut self) -> String {
        let from = self.at;
        let ends = |one: char| one.is_whitespace() || matches!(one, ',' | '(' | ')' | '"');
        while self.current().is_some_and(|one| !ends(one)) {
            self.at += 1;
        }
        self.chars[from..self.at].iter().collect()
    }

    fn quoted(&mut self) -> Result<String, FilterError> {
        let from = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            match self.current() {
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    let Some(escaped @ ('"' | '\\')) = self.chars.get(self.at + 1) else {
                        let place = Place { from: self.at, to: self.at + 1 };
                        let reason = "within quotes, \\ stands before a quote or another \\";
                        return Err(self.wrong(place, reason));
                    };
                    text.push(*escaped);
                    self.at += 2;
                }
                Some(one) => {
                    text.push(one);
                    self.at += 1;
                }
                None => {
                    return Err(
                        self.wrong(Place { from, to: from + 1 }, "a quote that is not closed")
                    );
                }
            }
        }
    }
}

/// A text in quotes, as it can stand in a filter.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
