//! What a filter asks of one value.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value as Json;
use uuid::Uuid;

use super::instant::Written;
use super::pattern::Pattern;

/// What a row has in a field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'r> {
    /// It was not read, or cannot be.
    Unknown,
    Absent,
    Text(Cow<'r, str>),
    /// One of them is enough.
    Texts(Vec<Cow<'r, str>>),
    Id(Uuid),
    Number(i64),
    Instant(DateTime<Utc>),
    Span(TimeDelta),
    YesNo(bool),
    Json(&'r Json),
}

impl<'r> Value<'r> {
    pub(crate) fn text(text: impl Into<Cow<'r, str>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn opt_text(text: Option<&'r str>) -> Self {
        text.map_or(Self::Absent, Self::text)
    }
}

/// How two values stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::More => ordering.is_gt(),
            Self::MoreOrEqual => ordering.is_ge(),
        }
    }
}

/// A value of a list, for what lies in JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sought {
    /// As a text.
    pub(super) pattern: Pattern,
    /// As a number, `true`, `false` or `null`, if it was written without quotes and is one.
    pub(super) scalar: Option<Json>,
}

/// What is asked of a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// It is one of these.
    Texts(Vec<Pattern>),
    Ids(Vec<Uuid>),
    Numbers(Vec<i64>),
    Within(Vec<Written>),
    Json(Vec<Sought>),
    YesNo(bool),
    /// It has this text in it, whatever the case; in small letters.
    Contains(String),
    Number(Order, i64),
    Instant(Order, DateTime<Utc>),
    Span(Order, TimeDelta),
    JsonNumber(Order, f64),
}

impl Condition {
    /// Whether a value has what is asked; `None` where the value is unknown.
    pub(super) fn holds(&self, value: &Value<'_>) -> Option<bool> {
        Some(match (self, value) {
            (_, Value::Unknown) => return None,
            (Self::Texts(patterns), Value::Text(text)) => is_any(patterns, text),
            (Self::Texts(patterns), Value::Texts(texts)) => {
                texts.iter().any(|text| is_any(patterns, text))
            }
            (Self::Contains(part), Value::Text(text)) => text.to_lowercase().contains(part),
            (Self::Contains(part), Value::Texts(texts)) => {
                texts.iter().any(|text| text.to_lowercase().contains(part))
            }
            (Self::Ids(ids), Value::Id(id)) => ids.contains(id),
            (Self::Numbers(numbers), Value::Number(number)) => numbers.contains(number),
            (Self::Number(order, with), Value::Number(number)) => order.holds(number.cmp(with)),
            (Self::Within(all), Value::Instant(at)) => {
                all.iter().any(|one| one.from <= *at && *at < one.to)
            }
            (Self::Instant(order, with), Value::Instant(at)) => order.holds(at.cmp(with)),
            (Self::Span(order, with), Value::Span(span)) => order.holds(span.cmp(with)),
            (Self::YesNo(wanted), Value::YesNo(is)) => wanted == is,
            (_, Value::Json(json)) => self.holds_in(json),
            // What is absent, or of another kind.
            _ => false,
        })
    }

    /// A list has what one of its elements has.
    fn holds_in(&self, json: &Json) -> bool {
        if let Json::Array(elements) = json {
            return elements.iter().any(|one| self.holds_in(one));
        }
        match self {
            Self::Json(all) => all.iter().any(|sought| sought.is(json)),
            Self::Contains(part) => {
                json.as_str().is_some_and(|text| text.to_lowercase().contains(part))
            }
            Self::JsonNumber(order, with) => json
                .as_f64()
                .and_then(|number| number.partial_cmp(with))
                .is_some_and(|ordering| order.holds(ordering)),
            _ => false,
        }
    }

    /// The texts of which a value is one, if they are told without `*`.
    pub(super) fn exact_texts(&self) -> Option<Vec<String>> {
        let Self::Texts(patterns) = self else { return None };
        let exact = |pattern: &Pattern| match pattern {
            Pattern::Exact(text) => Some(text.clone()),
            Pattern::Wild(_) => None,
        };
        patterns.iter().map(exact).collect()
    }

    pub(super) fn yes_or_no(&self) -> Option<bool> {
        match self {
            Self::YesNo(wanted) => Some(*wanted),
            _ => None,
        }
    }

    /// The ids of which a value is one.
    pub(super) fn ids(&self) -> Option<Vec<Uuid>> {
        match self {
            Self::Ids(ids) => Some(ids.clone()),
            _ => None,
        }
    }
}

fn is_any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Sought {
    fn is(&self, json: &Json) -> bool {
        match json {
            Json::String(text) => self.pattern.matches(text),
            // 7 and 7.0 are one number.
            Json::Number(number) => self.scalar.as_ref().is_some_and(|scalar| {
                scalar == json
                    || scalar.as_f64().is_some_and(|with| {
                        number.as_f64() == Some(with) && !is_exact(json, scalar)
                    })
            }),
            Json::Bool(_) | Json::Null => self.scalar.as_ref() == Some(json),
            Json::Array(_) | Json::Object(_) => false,
        }
    }
}

/// Whether both are whole numbers, which are compared as such: as floats two large ones may be the same.
fn is_exact(one: &Json, other: &Json) -> bool {
    one.is_i64() | one.is_u64() && other.is_i64() | other.is_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sought(text: &str) -> Condition {
        let scalar = serde_json::from_str(text).ok().filter(|json: &Json| !json.is_string());
        Condition::Json(vec![Sought { pattern: Pattern::bare(text), scalar }])
    }

    #[test]
    fn what_is_unknown_holds_neither_way_and_what_is_absent_does_not_hold() {
        let condition = Condition::Texts(vec![Pattern::bare("*")]);
        assert_eq!(condition.holds(&Value::Unknown), None);
        assert_eq!(condition.holds(&Value::Absent), Some(false));
        assert_eq!(condition.holds(&Value::text("")), Some(true));
        assert_eq!(condition.holds(&Value::Number(1)), Some(false), "of another kind");
    }

    #[test]
    fn a_value_in_json_is_compared_as_it_is_written() {
        for (text, json) in [
            ("7", json!(7)),
            ("7", json!("7")),
            ("7", json!(7.0)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("eu*", json!("europe")),
            ("7", json!([1, 7])),
            ("9007199254740993", json!(9_007_199_254_740_993_i64)),
        ] {
            assert_eq!(sought(text).holds(&Value::Json(&json)), Some(true), "{text} {json}");
        }
        for (text, json) in [
            ("7", json!(8)),
            ("true", json!(1)),
            ("7", json!({ "a": 7 })),
            ("9007199254740992", json!(9_007_199_254_740_993_i64)),
        ] {
            assert_eq!(sought(text).holds(&Value::Json(&json)), Some(false), "{text} {json}");
        }
    }

    #[test]
    fn orders_and_parts() {
        let more = Condition::JsonNumber(Order::More, 3.5);
        assert_eq!(more.holds(&Value::Json(&json!(4))), Some(true));
        assert_eq!(more.holds(&Value::Json(&json!("4"))), Some(false));
        let at_least = Condition::Number(Order::MoreOrEqual, 3);
        assert_eq!(
            [2, 3, 4].map(|one| at_least.holds(&Value::Number(one))),
            [Some(false), Some(true), Some(true)]
        );
        let part = Condition::Contains("time".to_owned());
        assert_eq!(part.holds(&Value::text("SmtpTimeout")), Some(true));
        assert_eq!(part.holds(&Value::Texts(vec!["a".into(), "Time".into()])), Some(true));
        assert_eq!(part.holds(&Value::Json(&json!(["x", "TIMES"]))), Some(true));
    }
}
