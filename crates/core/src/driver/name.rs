use std::borrow::{Borrow, Cow};
use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The name of an ability, a queue or a codec.
///
/// Thousands of claimed jobs carry a few names. A short name (up to 23 bytes) lies in the value itself,
/// and a longer name is shared, so that a clone allocates nothing.
///
/// ```
/// use qudo_core::driver::Name;
///
/// const MAIL: Name = Name::from_static("mail");
/// assert_eq!(MAIL, "mail");
/// assert_eq!(Name::from("gl.accounting").as_str(), "gl.accounting");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Name(SmolStr);

impl Name {
    /// A name that is known when the program is built.
    pub const fn from_static(name: &'static str) -> Self {
        Self(SmolStr::new_static(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The hash and the order are those of the text, so maps can be asked with one.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<Cow<'static, str>> for Name {
    fn from(name: Cow<'static, str>) -> Self {
        match name {
            Cow::Borrowed(name) => Self::from_static(name),
            Cow::Owned(name) => name.into(),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<Name> for str {
    fn eq(&self, other: &Name) -> bool {
        other == self
    }
}

impl PartialEq<String> for Name {
    fn eq(&self, other: &String) -> bool {
        self.0 == other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    #[test]
    fn a_map_of_names_is_asked_with_a_text_short_or_long() {
        let long = "a.queue.with.a.long.name.that.is.shared";
        for text in ["mail", long] {
            let name = Name::from(text.to_owned());
            assert!(HashSet::from([name.clone()]).contains(text));
            assert!(BTreeSet::from([name.clone()]).contains(text));
            assert_eq!((&*name, name.to_string(), name == *text), (text, text.to_owned(), true));
            assert_eq!(name, Name::from(Cow::Owned(text.to_owned())));
        }
    }
}
