use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

/// What a client adds to a job beside its argument: named values and tags, for hooks, for the ability and for people.
///
/// A job that [replaces](https://docs.rs/qudo/latest/qudo/struct.Job.html#method.replace) another, and a job that is
/// redriven, inherit it. It is stored as one JSON object, in which the tags are the list `tags`.
///
/// ```
/// use qudo_hooks::Meta;
///
/// let mut meta = Meta::default();
/// meta.set("tenant", 7);
/// meta.tag("eu");
/// assert_eq!(meta.to_text().as_deref(), Some(r#"{"tags":["eu"],"tenant":7}"#));
/// assert_eq!(Meta::from_text(meta.to_text().as_deref()), meta);
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Meta {
    values: Map<String, Value>,
    tags: BTreeSet<String>,
}

/// The name of the list of tags in the stored object.
const TAGS: &str = "tags";

/// Without the values, which may hold secrets.
impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.values.keys().collect();
        f.debug_struct("Meta").field("names", &names).field("tags", &self.tags.len()).finish()
    }
}

impl Meta {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && self.tags.is_empty()
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The names and values, by name.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Sets a value; one of the same name is replaced.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.values.insert(name.into(), value.into());
    }

    /// Adds a tag; once is enough.
    pub fn tag(&mut self, tag: impl Into<String>) {
        self.tags.insert(tag.into());
    }

    /// The tags, in their order.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.contains(tag)
    }

    /// Takes over the values that it does not set itself, and the tags.
    pub fn inherit(&mut self, from: &Self) {
        for (name, value) in &from.values {
            if !self.values.contains_key(name) {
                self.values.insert(name.clone(), value.clone());
            }
        }
        self.tags.extend(from.tags.iter().cloned());
    }

    /// Removes a value, and tells which it was.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name)
    }

    /// Removes all values and tags.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// As it is stored; `None` if there is nothing in it.
    pub fn to_text(&self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let mut all = self.values.clone();
        if !self.tags.is_empty() {
            all.insert(TAGS.to_owned(), self.tags().map(Value::from).collect());
        }
        Some(Value::Object(all).to_string())
    }

    /// As it was stored. What another program wrote in another way is left out.
    pub fn from_text(text: Option<&str>) -> Self {
        let parsed = text.and_then(|text| serde_json::from_str(text).ok());
        let Some(Value::Object(mut values)) = parsed else { return Self::default() };
        let tags = values.remove(TAGS);
        let tags = tags.as_ref().and_then(Value::as_array).into_iter().flatten();
        let tags = tags.filter_map(Value::as_str).map(str::to_owned).collect();
        Self { values, tags }
    }

    /// The name that no value may have.
    pub const fn reserved() -> &'static str {
        TAGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_back_and_what_is_none_takes_no_room() {
        let mut meta = Meta::default();
        assert!(meta.is_empty() && meta.to_text().is_none());
        assert_eq!(Meta::from_text(None), meta);
        meta.set("trace", "a1");
        meta.set("trace", "b2");
        meta.tag("eu");
        meta.tag("eu");
        assert_eq!(meta.get("trace"), Some(&Value::from("b2")));
        assert_eq!((meta.tags().count(), meta.has_tag("eu"), meta.has_tag("us")), (1, true, false));
        assert_eq!(Meta::from_text(meta.to_text().as_deref()), meta);
        assert!(!format!("{meta:?}").contains("b2"));
    }

    #[test]
    fn a_text_of_another_shape_has_nothing() {
        for text in ["", "7", "[1]", "{\"tags\": 7}", "{\"tags\": [7]}"] {
            assert!(Meta::from_text(Some(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_inherited_gives_way_to_what_is_set() {
        let (mut parent, mut child) = (Meta::default(), Meta::default());
        parent.set("tenant", 7);
        parent.set("trace", "old");
        parent.tag("eu");
        child.set("trace", "new");
        child.tag("mail");
        child.inherit(&parent);
        assert_eq!(child.get("tenant"), Some(&Value::from(7)));
        assert_eq!(child.get("trace"), Some(&Value::from("new")));
        assert_eq!(child.tags().collect::<Vec<_>>(), ["eu", "mail"]);
    }
}
