use diesel::connection::CacheSize;
use diesel::{Connection, PgConnection};
use qudo_core::driver::Password;
use url::Url;

use super::listen;
use crate::engine::{names, parse_url};
use crate::options::Options;
use crate::reach::Server;
use crate::sql::Sql;

/// Added to a data source name that does not set them: a connection to a host that drops packets
/// ends within seconds instead of minutes.
const LIMITS: [(&str, &str); 6] = [
    ("connect_timeout", "5"),
    ("keepalives", "1"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
];

/// Every statement of ours finds its rows by an index. A plan that was made while a table was small
/// reads it through, and goes on doing so when it is large, until the next ANALYZE: an end of 64
/// runs then takes a fifth of a second.
///
/// A plan that must not be is merely made expensive, and expensive plans are compiled: so not that
/// either.
pub(super) const HELD_PLANS: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")];

/// The same as settings, each with these words before it.
pub(super) fn held_plans(set: &str) -> String {
    HELD_PLANS.map(|(name, held)| format!("{set} {name} = {held}")).join("; ")
}

/// A parsed data source name.
pub(crate) struct Source {
    url: Url,
    pub(super) name: String,
    pub(super) described: String,
    pub(super) server: Server,
    pub(super) options: Options,
    /// What the listener makes of it.
    plain: Url,
    listens: bool,
}

impl Source {
    pub(super) fn parse(dsn: &str, password: Option<Password>) -> Result<Self, String> {
        let mut url = parse_url(dsn)?;
        let options = Options::take(&mut url, password)?;
        let (mut name, mut described) = names(&url)?;
        name.push_str(&options.tables.suffix());
        described.push_str(&options.tables.suffix());
        let server = Server::of(&url, 5432);
        let plain = url.clone();
        let given: Vec<String> = url.query_pairs().map(|(key, _)| key.into_owned()).collect();
        for (key, value) in LIMITS {
            if !given.iter().any(|one| one == key) {
                url.query_pairs_mut().append_pair(key, value);
            }
        }
        let listens = if options.pooler {
            Err("a transaction pooler is in between".to_owned())
        } else {
            listen::check(&plain)
        };
        if let Err(reason) = &listens {
            log::warn!("{described}: no LISTEN ({reason}); workers poll instead");
        }
        Ok(Self { url, name, described, server, options, plain, listens: listens.is_ok() })
    }

    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    /// The URL of a connection that the pool makes now.
    pub(super) fn url_now(&self) -> Result<String, String> {
        self.options.url_now(&self.url)
    }

    /// The same for the listener, without what only libpq understands.
    pub(super) fn plain_url_now(&self) -> Result<String, String> {
        self.options.url_now(&self.plain)
    }
}

/// Connects and sets limits with plain SQL, which poolers let through, unlike start-up parameters.
/// Behind a transaction pooler the session is everybody's: it stays as it is.
pub(super) fn connect(url: &str, pooler: bool) -> Result<PgConnection, String> {
    let mut conn = PgConnection::establish(url).map_err(|error| error.to_string())?;
    if pooler {
        conn.set_prepared_statement_cache_size(CacheSize::Disabled);
    }
    let mut sql = Sql::plain(&mut conn);
    speak_english(&mut sql, pooler)?;
    if pooler {
        return Ok(conn);
    }
    sql.batch(&format!(
        "SET statement_timeout = '60s'; SET lock_timeout = '5s'; \
         SET idle_in_transaction_session_timeout = '60s'; SET client_min_messages = 'warning'; \
         SET default_transaction_isolation = 'read committed'; {}",
        held_plans("SET")
    ))
    .map_err(|error| error.to_string())?;
    Ok(conn)
}

/// Makes the server write its messages in English, or refuses it: diesel keeps of an error little more
/// than its text, by which a deadlock is told from a mistake. Only privileged accounts may change the
/// language of their session, which most servers write in already.
fn speak_english(conn: &mut Sql<'_, PgConnection>, pooler: bool) -> Result<(), String> {
    let language: Option<String> = conn
        .row("SELECT current_setting('lc_messages')", &[])
        .map_err(|error| error.to_string())?;
    let language = language.unwrap_or_default();
    if is_english(&language) || (!pooler && conn.batch("SET lc_messages = 'C'").is_ok()) {
        return Ok(());
    }
    // The server's environment decides, which only shows in a message.
    if language.is_empty()
        && conn
            .batch("SELECT 1/0")
            .is_err_and(|error| error.to_string().contains("division by zero"))
    {
        return Ok(());
    }
    Err(format!(
        "could not connect: the server writes its messages in the language {language:?}, and qudo tells \
         its errors apart by their English text; let an administrator run \
         ALTER ROLE … SET lc_messages = 'C' for this account"
    ))
}

/// Whether a locale's messages are the original ones. Not known of the empty one, which is that of the
/// server's environment.
fn is_english(locale: &str) -> bool {
    ["C", "POSIX"].contains(&locale)
        || ["C.", "en_", "en-", "English"].iter().any(|start| locale.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::is_english;

    #[test]
    fn the_languages_of_servers_are_told_apart() {
        for english in
            ["C", "C.UTF-8", "POSIX", "en_US.UTF-8", "en-US", "English_United States.1252"]
        {
            assert!(is_english(english), "{english}");
        }
        for other in ["", "de_DE.UTF-8", "fr_FR", "ca_ES.UTF-8", "es_EC", "German_Germany.1252"] {
            assert!(!is_english(other), "{other}");
        }
    }
}
