//! From the text of a filter to what it means.

use std::iter::Peekable;
use std::vec::IntoIter;

use chrono::{DateTime, Utc};

use super::condition::{Condition, Order, Sought};
use super::error::{FilterError, Place};
use super::expr::{Expr, Term};
use super::field::{self, Field, Kind, List};
use super::instant::{instant, span};
use super::pattern::Pattern;
use super::scan::{Operator, Value, Word, Written, scan};

/// Longer filters are refused.
const MAX_CHARS: usize = 10_000;

/// More parentheses and negations within each other are refused: each is a call within a call.
const MAX_DEPTH: usize = 64;

/// Reads a filter; spans and `now` count from this instant.
pub(super) fn parse(list: List, text: &str, now: DateTime<Utc>) -> Result<Expr, FilterError> {
    let length = text.chars().count();
    if length > MAX_CHARS {
        let place = Place { from: MAX_CHARS, to: MAX_CHARS };
        let reason = format!("a filter has at most {MAX_CHARS} characters, this one has {length}");
        return Err(FilterError::new(text, place, reason));
    }
    let words = scan(text)?.into_iter().peekable();
    let mut parser = Parser { list, text, now, words, depth: 0 };
    let expr = parser.any()?;
    match parser.words.next() {
        None => Ok(expr),
        Some((_, place)) => Err(parser.wrong(place, "a `)` without its `(`")),
    }
}

struct Parser<'t> {
    list: List,
    now: DateTime<Utc>,
    text: &'t str,
    words: Peekable<IntoIter<(Word, Place)>>,
    depth: usize,
}

impl Parser<'_> {
    fn wrong(&self, place: Place, reason: impl Into<String>) -> FilterError {
        FilterError::new(self.text, place, reason)
    }

    /// Parts with `OR` between them.
    fn any(&mut self) -> Result<Expr, FilterError> {
        let mut parts = vec![self.all()?];
        while let Some((_, place)) = self.words.next_if(|(word, _)| *word == Word::Or) {
            if parts.last().is_some_and(is_nothing) {
                return Err(self.wrong(place, "there is nothing before this OR"));
            }
            let part = self.all()?;
            if is_nothing(&part) {
                return Err(self.wrong(place, "there is nothing behind this OR"));
            }
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Or(parts) })
    }

    /// Parts behind each other, with or without `AND`.
    fn all(&mut self) -> Result<Expr, FilterError> {
        let mut parts = Vec::new();
        loop {
            if let Some((_, place)) = self.words.next_if(|(word, _)| *word == Word::And)
                && (parts.is_empty() || !self.begins_a_part())
            {
                return Err(self.wrong(place, "AND stands between two terms"));
            }
            if !self.begins_a_part() {
                break;
            }
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::And(parts) })
    }

    /// Whether the next word does.
    fn begins_a_part(&mut self) -> bool {
        matches!(self.words.peek(), Some((Word::Not | Word::Open | Word::Term(_), _)))
    }

    fn one(&mut self) -> Result<Expr, FilterError> {
        let Some((word, place)) = self.words.next() else { return Ok(Expr::And(Vec::new())) };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(
                place,
                format!("more than {MAX_DEPTH} parentheses and NOTs in each other"),
            ));
        }
        let expr = match word {
            Word::Not => {
                if !self.begins_a_part() {
                    return Err(self.wrong(place, "there is nothing behind this NOT"));
                }
                Expr::Not(Box::new(self.one()?))
            }
            Word::Open => {
                let inner = self.any()?;
                if !matches!(self.words.next(), Some((Word::Close, _))) {
                    return Err(self.wrong(place, "a `(` without its `)`"));
                }
                if is_nothing(&inner) {
                    return Err(self.wrong(place, "there is nothing in these parentheses"));
                }
                inner
            }
            Word::Term(written) => self.term(written, place)?,
            // Callers look before they call.
            Word::And | Word::Or | Word::Close => {
                return Err(self.wrong(place, "a term is missing here"));
            }
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn term(&self, written: Written, place: Place) -> Result<Expr, FilterError> {
        let name = Place { from: place.from, to: place.from + written.name.chars().count() };
        let (field, kind) =
            field::find(self.list, &written.name).map_err(|reason| self.wrong(name, reason))?;
        let takes_path = kind == Kind::Json;
        if !takes_path && !written.path.is_empty() {
            return Err(self.wrong(
                place,
                format!(
                    "only `meta` and `arg` have names behind a dot, `{}` has none",
                    written.name
                ),
            ));
        }
        if field == Field::Meta && written.path.is_empty() {
            return Err(self.wrong(name, "say which value: `meta.tenant=7`"));
        }
        let condition = self.condition(&written, kind, place)?;
        let has_classes = self.list == List::Exceptions;
        let field = match (field, &condition) {
            (Field::Error, Condition::Texts(_)) if has_classes => Field::Class,
            (field, _) => field,
        };
        let term = Expr::Term(Term { field, path: written.path, condition });
        Ok(if written.operator == Operator::IsNot { Expr::Not(Box::new(term)) } else { term })
    }

    fn condition(
        &self,
        written: &Written,
        kind: Kind,
        place: Place,
    ) -> Result<Condition, FilterError> {
        let Written { name, operator, values, .. } = written;
        let unfit = |known: &str| {
            self.wrong(
                place,
                format!("`{name}` cannot be asked with `{}`, but with {known}", operator.as_str()),
            )
        };
        if let Some(order) = order(*operator) {
            let [value] = &**values else {
                return Err(self.wrong(place, format!("`{}` takes one value", operator.as_str())));
            };
            return match kind {
                Kind::Number => Ok(Condition::Number(order, self.number(value)?)),
                Kind::Instant => {
                    let at = self.instant(value)?;
                    // Before and from: its beginning. After and up to: its end, which does not belong to it.
                    Ok(match order {
                        Order::Less | Order::MoreOrEqual => Condition::Instant(order, at.from),
                        Order::More => Condition::Instant(Order::MoreOrEqual, at.to),
                        Order::LessOrEqual => Condition::Instant(Order::Less, at.to),
                    })
                }
                Kind::Span => self.span(order, value),
                Kind::Json => match value.text.parse::<f64>() {
                    Ok(number) => Ok(Condition::JsonNumber(order, number)),
                    Err(_) => {
                        Err(self.wrong(value.place, format!("`{}` is not a number", value.text)))
                    }
                },
                Kind::YesNo | Kind::Id | Kind::Word(_) => Err(unfit("`:`, `=` and `!=`")),
                Kind::Text => Err(unfit("`:`, `=`, `!=` and `~`")),
            };
        }
        if *operator == Operator::Contains {
            let [value] = &**values else { return Err(self.wrong(place, "`~` takes one value")) };
            return match kind {
                Kind::Text | Kind::Json => Ok(Condition::Contains(value.text.to_lowercase())),
                Kind::Id | Kind::Word(_) | Kind::YesNo => Err(unfit("`:`, `=` and `!=`")),
                Kind::Number | Kind::Instant => {
                    Err(unfit("`:`, `=`, `!=`, `<`, `<=`, `>` and `>=`"))
                }
                Kind::Span => Err(unfit("`<`, `<=`, `>` and `>=`")),
            };
        }
        self.one_of(values, kind)
            .and_then(|made| made.ok_or_else(|| unfit("`<`, `<=`, `>` and `>=`")))
    }

    /// A value out of a list; `None` where no value is ever exactly met.
    fn one_of(&self, values: &[Value], kind: Kind) -> Result<Option<Condition>, FilterError> {
        let patterns = || values.iter().map(Value::pattern).collect();
        Ok(Some(match kind {
            Kind::Text => Condition::Texts(patterns()),
            Kind::Word(words) => {
                for value in values {
                    self.word_of(value, words)?;
                }
                Condition::Texts(patterns())
            }
            Kind::Id => Condition::Ids(each(values, |value| {
                let parsed = uuid::Uuid::parse_str(&value.text);
                parsed.map_err(|_| {
                    self.wrong(value.place, format!("`{}` is not an id: ids are UUIDs", value.text))
                })
            })?),
            Kind::Number => Condition::Numbers(each(values, |value| self.number(value))?),
            Kind::Instant => Condition::Within(each(values, |value| self.instant(value))?),
            Kind::YesNo => match values {
                [value] => match &*value.text {
                    "yes" | "true" => Condition::YesNo(true),
                    "no" | "false" => Condition::YesNo(false),
                    _ => return Err(self.wrong(value.place, "it is `yes` or `no`")),
                },
                [first, ..] => return Err(self.wrong(first.place, "it is `yes` or `no`")),
                [] => Condition::YesNo(true),
            },
            Kind::Json => Condition::Json(values.iter().map(Value::sought).collect()),
            Kind::Span => return Ok(None),
        }))
    }

    fn word_of(&self, value: &Value, words: &[&str]) -> Result<(), FilterError> {
        if words.contains(&&*value.text) {
            return Ok(());
        }
        Err(self.wrong(value.place, format!("`{}` is none of: {}", value.text, words.join(", "))))
    }

    fn number(&self, value: &Value) -> Result<i64, FilterError> {
        let parsed = value.text.parse();
        parsed
            .map_err(|_| self.wrong(value.place, format!("`{}` is not a whole number", value.text)))
    }

    fn instant(&self, value: &Value) -> Result<super::instant::Written, FilterError> {
        instant(&value.text, self.now).ok_or_else(|| {
            let reason = format!(
                "`{}` is not a time, such as 2026-11-27 or 2026-11-27T10:05 (UTC)",
                value.text
            );
            self.wrong(value.place, reason)
        })
    }

    fn span(&self, order: Order, value: &Value) -> Result<Condition, FilterError> {
        let span = span(&value.text).ok_or_else(|| {
            let reason =
                format!("`{}` is not a span of time, such as 90s, 10m, 1h30m or 2d", value.text);
            self.wrong(value.place, reason)
        })?;
        Ok(Condition::Span(order, span))
    }
}

impl Value {
    fn pattern(&self) -> Pattern {
        if self.quoted { Pattern::Exact(self.text.clone()) } else { Pattern::bare(&self.text) }
    }

    fn sought(&self) -> Sought {
        let scalar = || serde_json::from_str(&self.text).ok().filter(is_scalar);
        Sought { pattern: self.pattern(), scalar: if self.quoted { None } else { scalar() } }
    }
}

fn is_scalar(json: &serde_json::Value) -> bool {
    json.is_number() || json.is_boolean() || json.is_null()
}

fn each<T>(
    values: &[Value],
    read: impl Fn(&Value) -> Result<T, FilterError>,
) -> Result<Vec<T>, FilterError> {
    values.iter().map(read).collect()
}

fn order(operator: Operator) -> Option<Order> {
    match operator {
        Operator::Less => Some(Order::Less),
        Operator::LessOrEqual => Some(Order::LessOrEqual),
        Operator::More => Some(Order::More),
        Operator::MoreOrEqual => Some(Order::MoreOrEqual),
        Operator::Is | Operator::IsNot | Operator::Contains => None,
    }
}

fn is_nothing(expr: &Expr) -> bool {
    matches!(expr, Expr::And(parts) if parts.is_empty())
}
