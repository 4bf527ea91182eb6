//! How the tables of one installation are named: with a prefix, and on PostgreSQL in a schema.
//!
//! SQL is written with the names of the default, `qudo_job` and so on, so that it can be read and tried as it
//! stands. For another installation it is rendered: at the beginning of a word `qudo_` becomes the schema and
//! the prefix, within a word, as in the name of an index, the prefix alone; `'qudo'` becomes the channel. Names
//! are always qualified, because neither a transaction pooler nor a caller's connection lets us set a search
//! path.

use std::borrow::Cow;

use diesel::result::Error;

/// The name of the default's channel, and with an underscore what every other name begins with in our texts.
const NAME: &str = "qudo";

/// The prefix of the default.
const WRITTEN: &str = "qudo_";

/// The longest name behind the prefix has 17 bytes; PostgreSQL cuts names at 63.
const MAX_PREFIX: usize = 40;

/// The longest name that PostgreSQL keeps whole.
const MAX_NAME: usize = 63;

/// The words of servers that miss a table, a column, a function, or a schema.
const MISSING: [&str; 6] = [
    "does not exist",
    "doesn't exist",
    "no such table",
    "no such column",
    "unknown column",
    "has no column",
];

/// What our names end with.
const NOUNS: [&str; 29] = [
    "job",
    "ready",
    "scheduled",
    "lease",
    "unique",
    "exception",
    "reply",
    "worker",
    "moving",
    "cancel",
    "operation",
    "stat",
    "control",
    "schema_migrations",
    "insert",
    "claim",
    "take",
    "remove",
    "complete",
    "settle",
    "now",
    "refuse",
    "text",
    "enqueue",
    "check",
    "new_id",
    "store",
    "sent",
    "progress",
];

/// The names of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tables {
    schema: Option<Cow<'static, str>>,
    prefix: Cow<'static, str>,
}

impl Default for Tables {
    fn default() -> Self {
        Self::DEFAULT.clone()
    }
}

impl Tables {
    /// Those of an installation that nobody named otherwise.
    pub(crate) const DEFAULT: &'static Self =
        &Self { schema: None, prefix: Cow::Borrowed(WRITTEN) };

    /// In this schema; the text may stand in a data source name.
    pub(crate) fn in_schema(self, schema: &str) -> Result<Self, String> {
        let is_fine = |one: char| one.is_ascii_alphanumeric() || one == '_';
        let reason = if schema.is_empty() {
            "it is empty"
        } else if schema.len() > MAX_NAME {
            "it takes more than 63 bytes"
        } else if !schema.chars().all(is_fine)
            || schema.starts_with(|one: char| one.is_ascii_digit())
        {
            "it may have letters, digits and underscores only, and no digit at its beginning"
        } else if schema.to_lowercase().starts_with("pg_") {
            "names that begin with pg_ are PostgreSQL's own"
        } else {
            return Self { schema: Some(Cow::Owned(schema.to_owned())), ..self }.checked();
        };
        Err(format!("schema {schema:?}: {reason}"))
    }

    /// With this prefix.
    pub(crate) fn with_prefix(self, prefix: &str) -> Result<Self, String> {
        let is_fine = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '_';
        let reason = if prefix.is_empty() {
            "it is empty"
        } else if prefix.len() > MAX_PREFIX {
            "it takes more than 40 bytes"
        } else if !prefix.chars().all(is_fine)
            || prefix.starts_with(|one: char| one.is_ascii_digit())
        {
            "it may have small letters, digits and underscores only, and no digit at its beginning"
        } else if !prefix.ends_with('_') {
            // Else `re` would make a table `release`, which is a word of MySQL's.
            "it has to end with an underscore"
        } else if prefix.starts_with("sqlite_") {
            "names that begin with sqlite_ are SQLite's own"
        } else {
            return Self { prefix: Cow::Owned(prefix.to_owned()), ..self }.checked();
        };
        Err(format!("table_prefix {prefix:?}: {reason}"))
    }

    /// A channel has a name like any other, and a longer one is refused by the server.
    fn checked(self) -> Result<Self, String> {
        if self.channel().len() <= MAX_NAME {
            return Ok(self);
        }
        Err("schema and table_prefix together take more than 62 bytes".to_owned())
    }

    /// The schema, where one is named.
    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// What every name begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn is_default(&self) -> bool {
        self == Self::DEFAULT
    }

    /// A text with the names of the default as one with these names.
    pub(crate) fn render<'s>(&self, sql: &'s str) -> Cow<'s, str> {
        if self.is_default() {
            return Cow::Borrowed(sql);
        }
        let mut rendered = String::with_capacity(sql.len() + 64);
        let mut rest = sql;
        while let Some(at) = rest.find(NAME) {
            let (before, behind) = rest.split_at(at);
            rendered.push_str(before);
            rest = &behind[NAME.len()..];
            let is_within = rendered.ends_with(|one: char| one.is_alphanumeric() || one == '_');
            if let Some(behind) = rest.strip_prefix('_') {
                if let (Some(schema), false) = (&self.schema, is_within) {
                    rendered.push('"');
                    rendered.push_str(schema);
                    rendered.push_str("\".");
                }
                rendered.push_str(&self.prefix);
                rest = behind;
            } else if rendered.ends_with('\'') && rest.starts_with('\'') {
                rendered.push_str(&self.channel());
            } else {
                rendered.push_str(NAME);
            }
        }
        rendered.push_str(rest);
        Cow::Owned(rendered)
    }

    /// The channel of PostgreSQL's notifications, which are those of the whole database.
    pub(crate) fn channel(&self) -> String {
        match (&self.schema, &*self.prefix) {
            (None, WRITTEN) => NAME.to_owned(),
            (schema, prefix) => format!("{}.{prefix}", schema.as_deref().unwrap_or_default()),
        }
    }

    /// The channel on which it is told of jobs while and when they end; none where its name would be cut.
    #[cfg(feature = "postgres")]
    pub(crate) fn news_channel(&self) -> Option<String> {
        let name = format!("{} news", self.channel());
        (name.len() <= MAX_NAME).then_some(name)
    }

    /// What tells this installation from the others of its database in names and texts: `#jobs` is a schema,
    /// `#mail_*` a prefix, `#jobs.mail_*` both; empty for the default.
    pub(crate) fn suffix(&self) -> String {
        let prefix = (self.prefix != WRITTEN).then(|| format!("{}*", self.prefix));
        match (self.schema.as_deref(), prefix) {
            (None, None) => String::new(),
            (Some(schema), None) => format!("#{schema}"),
            (None, Some(prefix)) => format!("#{prefix}"),
            (Some(schema), Some(prefix)) => format!("#{schema}.{prefix}"),
        }
    }

    /// Whether a name is that of a table of ours, with or without its schema.
    pub(crate) fn owns(&self, table: &str) -> bool {
        let table = table.rsplit('.').next().unwrap_or(table);
        table.trim_matches(['"', '`']).starts_with(&*self.prefix)
    }

    /// An error for want of a table or a function of ours, told from one that concerns others'.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let text = error.to_string().to_lowercase();
        let schema = self.schema.as_ref().map(|schema| format!("\"{}\"", schema.to_lowercase()));
        let names_ours = schema.is_some_and(|schema| text.contains(&schema))
            || NOUNS.iter().any(|noun| has_word(&text, &format!("{}{noun}", self.prefix)));
        if names_ours && MISSING.iter().any(|words| text.contains(words)) {
            return Error::QueryBuilderError(Box::new(MissingTables(error)));
        }
        error
    }
}

/// Whether a word of a text begins so; behind an underscore no word begins, but for the name of an index.
fn has_word(text: &str, beginning: &str) -> bool {
    text.match_indices(beginning).any(|(at, _)| {
        let before = &text[..at];
        before.ends_with("ix_")
            || !before.ends_with(|one: char| one.is_alphanumeric() || one == '_')
    })
}

/// A statement that did not find a table, a column or a function of ours.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MissingTables(#[source] Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_is_missing_is_told_as_one_of_ours() {
        let made = [
            include_str!("../migrations/postgres/2026-11-30-000002_create_tables/up.sql"),
            include_str!("../migrations/postgres/2026-11-30-000004_add_numbers/up.sql"),
            include_str!("../migrations/postgres/2026-11-30-000005_add_sql_enqueue/up.sql"),
        ];
        let functions: Vec<_> = made
            .iter()
            .flat_map(|sql| sql.split("CREATE FUNCTION qudo_").skip(1))
            .map(|rest| rest.split('(').next().expect("it has arguments"))
            .collect();
        assert!(functions.len() > 5, "{functions:?}");
        for name in functions {
            assert!(NOUNS.iter().any(|noun| name.starts_with(noun)), "{name}");
        }
    }

    fn named(schema: Option<&str>, prefix: Option<&str>) -> Tables {
        let mut tables = Tables::default();
        if let Some(schema) = schema {
            tables = tables.in_schema(schema).expect("a fine name");
        }
        if let Some(prefix) = prefix {
            tables = tables.with_prefix(prefix).expect("a fine prefix");
        }
        tables
    }

    const SQL: &str =
        "CREATE INDEX ix_qudo_x ON qudo_job (id); SELECT qudo_now(), 'qudo_', qudo_job.id";

    #[test]
    fn default_names_are_sent_as_they_are_written() {
        assert!(matches!(Tables::DEFAULT.render(SQL), Cow::Borrowed(SQL)));
        assert_eq!(Tables::DEFAULT.channel(), "qudo");
        assert_eq!(Tables::DEFAULT.suffix(), "");
    }

    #[test]
    fn names_get_their_schema_and_their_prefix_but_within_a_word() {
        let of = |schema, prefix| named(schema, prefix).render(SQL).into_owned();
        assert_eq!(
            of(Some("Jobs"), None),
            "CREATE INDEX ix_qudo_x ON \"Jobs\".qudo_job (id); SELECT \"Jobs\".qudo_now(), \
             '\"Jobs\".qudo_', \"Jobs\".qudo_job.id"
        );
        assert_eq!(
            of(None, Some("mail_")),
            "CREATE INDEX ix_mail_x ON mail_job (id); SELECT mail_now(), 'mail_', mail_job.id"
        );
        let notify = named(Some("jobs"), None).render("pg_notify('qudo', a), 'x qudo', qudo");
        assert_eq!(notify, "pg_notify('jobs.qudo_', a), 'x qudo', qudo");
        assert_eq!(
            named(Some("a"), Some("my_qudo_")).render("qudo_job"),
            "\"a\".my_qudo_job",
            "what was rendered is not rendered again"
        );
    }

    /// The longest prefix.
    fn long(letter: &str) -> String {
        format!("{}_", letter.repeat(39))
    }

    #[test]
    fn two_installations_share_no_channel() {
        let all = [
            named(None, None),
            named(Some("jobs"), None),
            named(None, Some("jobs_")),
            named(Some("jobs"), Some("jobs_")),
            named(Some(&"s".repeat(22)), Some(&long("p"))),
            named(Some(&"s".repeat(22)), Some(&long("q"))),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(one.channel().len() <= MAX_NAME);
            for other in &all[at + 1..] {
                assert_ne!(one.channel(), other.channel());
                assert_ne!(one.suffix(), other.suffix());
            }
        }
    }

    #[test]
    fn names_that_a_server_would_change_or_refuse_are_refused() {
        for bad in ["", "1a", "a.b", "a\"b", "pg_temp", "PG_X", "ä", "a b", &"x".repeat(64)] {
            assert!(Tables::default().in_schema(bad).is_err(), "{bad:?}");
        }
        let both = named(Some(&"s".repeat(23)), None).with_prefix(&long("p"));
        assert!(both.expect_err("their channel is too long").contains("together"));
        for bad in ["", "1a_", "A_", "a-b_", "a.b_", "ab", "sqlite_x_", &"x".repeat(41)] {
            assert!(Tables::default().with_prefix(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_what_misses_our_own_tables_is_told_as_such() {
        let error = |text: &str| Error::QueryBuilderError(text.to_owned().into());
        let is_ours = |tables: &Tables, text: &str| {
            let explained = tables.explain(error(text));
            crate::statements::ledger::inner::<MissingTables>(&explained).is_some()
        };
        let mail = named(Some("jobs"), Some("mail_"));
        assert!(is_ours(&mail, "relation \"jobs.mail_job\" does not exist"));
        assert!(is_ours(&mail, "schema \"jobs\" does not exist"));
        assert!(!is_ours(&mail, "relation \"users\" does not exist"));
        assert!(!is_ours(&mail, "relation \"email_job\" does not exist"));
        assert!(!is_ours(Tables::DEFAULT, "prepared statement \"__diesel_stmt_3\" does not exist"));
        assert!(!is_ours(&mail, "permission denied for table mail_job"));
        assert!(is_ours(Tables::DEFAULT, "Table 'app.qudo_ready' doesn't exist"));
        assert!(is_ours(Tables::DEFAULT, "no such table: qudo_ready"));
    }
}
