use std::fmt;

/// What a look at the settings and tables of a database found that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remark {
    /// What it is about.
    pub about: About,
    /// A sentence for people, with what can be done.
    pub text: String,
}

impl Remark {
    /// A remark about this.
    pub fn new(about: About, text: impl Into<String>) -> Self {
        Self { about, text: text.into() }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about.as_str(), self.text)
    }
}

/// What a [`Remark`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum About {
    /// What is committed may be lost in a crash of the server or its machine.
    Durability,
    /// The server's clock and this machine's do not agree.
    Clock,
    /// Tables or functions are missing, or are not as the migrations made them.
    Tables,
    /// This account lacks a right.
    Rights,
}

impl About {
    /// The word for listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Durability => "durability",
            Self::Clock => "clock",
            Self::Tables => "tables",
            Self::Rights => "rights",
        }
    }
}
