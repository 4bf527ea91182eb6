//! Conditions put together, with three outcomes: yes, no, and not known yet.

use uuid::Uuid;

use super::condition::{Condition, Value};
use super::field::Field;

/// A condition on a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Term {
    pub(super) field: Field,
    /// Where in the JSON value of the field.
    pub(super) path: Vec<String>,
    pub(super) condition: Condition,
}

/// A filter as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Term(Term),
    Not(Box<Self>),
    /// Of none it is true.
    And(Vec<Self>),
    /// Of none it is false.
    Or(Vec<Self>),
}

/// Tells the value of a field, or of what lies in it at a path.
pub(super) type Look<'l, 'r> = &'l dyn Fn(Field, &[String]) -> Value<'r>;

impl Expr {
    /// Whether a row is meant; `None` as long as that hangs on an unknown value.
    pub(super) fn holds(&self, look: Look<'_, '_>) -> Option<bool> {
        match self {
            Self::Term(term) => term.condition.holds(&look(term.field, &term.path)),
            Self::Not(inner) => inner.holds(look).map(|holds| !holds),
            Self::And(all) => Self::first(all, look, false),
            Self::Or(any) => Self::first(any, look, true),
        }
    }

    /// The outcome that decides if one part has it; else unknown if one is; else the other.
    fn first(parts: &[Self], look: Look<'_, '_>, decides: bool) -> Option<bool> {
        let mut outcome = Some(!decides);
        for part in parts {
            match part.holds(look) {
                Some(holds) if holds == decides => return Some(decides),
                Some(_) => {}
                None => outcome = None,
            }
        }
        outcome
    }

    /// The values of which this field must have one for a row to be meant, as far as conditions tell them; `None`
    /// if it may have any.
    fn only<T: PartialEq + Clone>(
        &self,
        field: Field,
        told: fn(&Condition) -> Option<Vec<T>>,
    ) -> Option<Vec<T>> {
        match self {
            Self::Term(term) if term.field == field => told(&term.condition).map(unique),
            Self::Term(_) | Self::Not(_) => None,
            Self::And(all) => {
                all.iter().filter_map(|part| part.only(field, told)).reduce(|mut one, other| {
                    one.retain(|value| other.contains(value));
                    one
                })
            }
            Self::Or(any) => {
                let mut all: Vec<T> = Vec::new();
                for part in any {
                    for value in part.only(field, told)? {
                        if !all.contains(&value) {
                            all.push(value);
                        }
                    }
                }
                Some(all)
            }
        }
    }

    /// Whether this field must be yes, or must be no.
    pub(super) fn only_yes_or_no(&self, field: Field) -> Option<bool> {
        match &*self.only(field, |condition| condition.yes_or_no().map(|one| vec![one]))? {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// The texts of which this field must have one.
    pub(super) fn only_texts(&self, field: Field) -> Option<Vec<String>> {
        self.only(field, Condition::exact_texts)
    }

    /// The ids of which this field must have one.
    pub(super) fn only_ids(&self, field: Field) -> Option<Vec<Uuid>> {
        self.only(field, Condition::ids)
    }

    /// Whether any part asks for this field.
    pub(super) fn asks_for(&self, field: Field) -> bool {
        match self {
            Self::Term(term) => term.field == field,
            Self::Not(inner) => inner.asks_for(field),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.asks_for(field)),
        }
    }
}

/// Each value once.
fn unique<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut all = Vec::with_capacity(values.len());
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Pattern;
    use super::*;

    fn term(field: Field, values: &[&str]) -> Expr {
        let patterns = values.iter().map(|text| Pattern::bare(text)).collect();
        Expr::Term(Term { field, path: Vec::new(), condition: Condition::Texts(patterns) })
    }

    fn not(inner: Expr) -> Expr {
        Expr::Not(Box::new(inner))
    }

    /// Knows that the queue is `q`, and nothing else.
    fn partly(field: Field, _: &[String]) -> Value<'static> {
        if field == Field::Queue { Value::text("q") } else { Value::Unknown }
    }

    #[test]
    fn what_is_unknown_matters_only_where_nothing_else_decides() {
        let (yes, no) = (|| term(Field::Queue, &["q"]), || term(Field::Queue, &["x"]));
        let unknown = || term(Field::Key, &["k"]);
        let holds = |expr: Expr| expr.holds(&partly);
        assert_eq!(holds(Expr::And(vec![unknown(), no()])), Some(false));
        assert_eq!(holds(Expr::And(vec![unknown(), yes()])), None);
        assert_eq!(holds(Expr::Or(vec![unknown(), yes()])), Some(true));
        assert_eq!(holds(Expr::Or(vec![unknown(), no()])), None);
        assert_eq!(holds(not(unknown())), None);
        assert_eq!(holds(not(no())), Some(true));
        assert_eq!((holds(Expr::And(vec![])), holds(Expr::Or(vec![]))), (Some(true), Some(false)));
    }

    #[test]
    fn the_values_that_a_field_must_have() {
        let of = |expr: &Expr| expr.only_texts(Field::Queue);
        let a = || term(Field::Queue, &["a", "b"]);
        let b = || term(Field::Queue, &["b", "c"]);
        let other = || term(Field::Ability, &["x"]);
        let texts = |all: &[&str]| Some(all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&a()), texts(&["a", "b"]));
        assert_eq!(of(&term(Field::Queue, &["a", "b", "a"])), texts(&["a", "b"]), "each once");
        let yes = |wanted| {
            let condition = Condition::YesNo(wanted);
            Expr::Term(Term { field: Field::Discarded, path: Vec::new(), condition })
        };
        let discarded = |expr: Expr| expr.only_yes_or_no(Field::Discarded);
        assert_eq!(discarded(Expr::And(vec![a(), yes(true)])), Some(true));
        assert_eq!(discarded(Expr::Or(vec![yes(false), yes(true)])), None);
        assert_eq!((discarded(a()), discarded(not(yes(true)))), (None, None));
        assert_eq!(of(&Expr::And(vec![a(), other(), b()])), texts(&["b"]));
        assert_eq!(of(&Expr::Or(vec![a(), b()])), texts(&["a", "b", "c"]));
        assert_eq!(of(&Expr::Or(vec![a(), other()])), None);
        assert_eq!(of(&not(a())), None);
        assert_eq!(of(&term(Field::Queue, &["a*"])), None);
        assert_eq!(of(&Expr::And(vec![])), None);
        assert_eq!(of(&Expr::And(vec![term(Field::Queue, &["a*"]), b()])), texts(&["b", "c"]));
    }
}
