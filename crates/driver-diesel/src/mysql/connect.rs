use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::{Connection, MysqlConnection, deserialize};
use qudo_core::driver::Password;
use url::Url;

use super::greeting::{End, Greeting, look};
use crate::engine::{names, parse_url};
use crate::options::Options;
use crate::reach;
use crate::sql::{Columns, FromRow, Sql};

/// A parsed data source name.
pub(super) struct Source {
    url: Url,
    pub(super) name: String,
    pub(super) described: String,
    pub(super) server: reach::Server,
    pub(super) options: Options,
    needs_tls: bool,
}

impl Source {
    pub(super) fn parse(dsn: &str, password: Option<Password>) -> Result<Self, String> {
        // diesel knows the one scheme only.
        let url = dsn.strip_prefix("mariadb:").map(|rest| format!("mysql:{rest}"));
        let mut url = parse_url(url.as_deref().unwrap_or(dsn))?;
        let options = Options::take(&mut url, password)?.without_schema()?;
        if options.relaxed {
            return Err("durability=relaxed is not supported on MySQL; set \
                        innodb_flush_log_at_trx_commit on the server"
                .to_owned());
        }
        if options.pooler {
            return Err("pooler is a parameter for PostgreSQL only".to_owned());
        }
        let (mut name, mut described) = names(&url)?;
        name.push_str(&options.tables.suffix());
        described.push_str(&options.tables.suffix());
        let server = reach::Server::of(&url, 3306);
        let needs_tls = needs_tls(&url, CLIENT_KNOWS_MODES)?;
        Ok(Self { url, name, described, server, options, needs_tls })
    }
}

/// Whether the client library does what `ssl_mode` says. MariaDB's takes no notice of it: it encrypts if
/// `ssl_ca` is set, and checks the authority then.
const CLIENT_KNOWS_MODES: bool = mysqlclient_sys::SUPPORTS_MYSQL_SSL_MODE;

/// Whether a connection must be encrypted. Refuses what the client library cannot do.
fn needs_tls(url: &Url, client_knows_modes: bool) -> Result<bool, String> {
    let value = |name: &str| {
        url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.to_lowercase())
    };
    let has_ca = value("ssl_ca").is_some_and(|file| !file.is_empty());
    let mode = value("ssl_mode");
    let needs = match mode.as_deref() {
        None => has_ca,
        Some("disabled" | "preferred") => false,
        Some("required" | "verify_ca" | "verify_identity") => true,
        Some(_) => {
            return Err("ssl_mode is disabled, preferred, required, verify_ca or verify_identity"
                .to_owned());
        }
    };
    if client_knows_modes {
        return Ok(needs);
    }
    match mode.as_deref() {
        Some("verify_identity") => Err("ssl_mode=verify_identity cannot be had of MariaDB's client \
             library, with which this program was built: it does not look at the host's name; build it \
             with MySQL's (libmysqlclient), or use verify_ca"
            .to_owned()),
        Some(mode) if needs && !has_ca => Err(format!(
            "ssl_mode={mode} needs ssl_ca with MariaDB's client library, with which this program was \
             built: it encrypts only if it knows the certificate of an authority, and checks it then"
        )),
        Some("disabled") if has_ca => Err("ssl_mode=disabled and ssl_ca exclude each other".to_owned()),
        _ => Ok(needs),
    }
}

/// What is known of the server since the last connection to it.
#[derive(Debug, Default)]
pub(super) struct Server {
    in_cluster: AtomicBool,
    mariadb: AtomicBool,
    /// The last login with TLS succeeded.
    lets_in: AtomicBool,
}

impl Server {
    /// Whether it is a node of a Galera cluster.
    pub(super) fn is_in_cluster(&self) -> bool {
        self.in_cluster.load(Ordering::Relaxed)
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.mariadb.load(Ordering::Relaxed)
    }
}

/// How long the server keeps a session whose client says nothing, and its locks.
const SERVER_WAITS: Duration = Duration::from_secs(60);

/// How long a connection may be idle: the server must not close one that is still used.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(45);

const _: () = assert!(IDLE_LIMIT.as_secs() < SERVER_WAITS.as_secs());

/// Connects, sets what the statements rely on, and refuses servers that are too old.
pub(super) fn connect(source: &Source, server: &Server) -> Result<MysqlConnection, String> {
    let mut conn = if source.needs_tls {
        // If it comes to nothing, or does not come back, the next look is not broken off.
        let end = if server.lets_in.swap(false, Ordering::Relaxed) {
            End::BrokenOff
        } else {
            End::Refused
        };
        look_for_tls(source, end)?;
        let mut conn = log_in(source)?;
        prove_tls(&mut Sql::plain(&mut conn))?;
        server.lets_in.store(true, Ordering::Relaxed);
        conn
    } else {
        log_in(source)?
    };
    let mut sql = Sql::plain(&mut conn);
    let version: Option<String> = sql
        .row("SELECT CONCAT_WS(' ', VERSION(), @@version_comment)", &[])
        .map_err(|error| error.to_string())?;
    check_version(version.as_deref().unwrap_or_default())?;
    let mariadb = version.as_deref().unwrap_or_default().to_lowercase().contains("mariadb");
    // A statement whose caller left long ago ends on the server too; MySQL can limit reads only.
    // A client that vanishes in the middle of a transaction keeps the locks on its jobs until the server closes its session, and
    // claims pass over them. MySQL has no limit of its own for an open transaction; MariaDB has three, which count instead of the general one where
    // an administrator has set them.
    let waits = SERVER_WAITS.as_secs();
    let limits = if mariadb {
        format!(
            "SET SESSION max_statement_time = 60, wait_timeout = {waits}, idle_transaction_timeout = {waits}, \
             idle_readonly_transaction_timeout = {waits}, idle_write_transaction_timeout = {waits}"
        )
    } else {
        format!("SET SESSION max_execution_time = 120000, wait_timeout = {waits}")
    };
    let settings: Vec<Setting> = sql.rows(SETTINGS, &[]).map_err(|error| error.to_string())?;
    check_settings(&settings)?;
    // Servers with Galera built in are MariaDB's and Percona's.
    server.in_cluster.store(is(&settings, "wsrep_on", "ON"), Ordering::Relaxed);
    server.mariadb.store(mariadb, Ordering::Relaxed);
    for set in [
        &*limits,
        // Gap locks of the default level make claims and inserts deadlock.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION innodb_lock_wait_timeout = 5",
        // Somebody's lock of a whole table, or of the server: a day to MariaDB, a year to MySQL. Also a
        // commit waits for that one, after it has looked at the clock.
        "SET SESSION lock_wait_timeout = 5",
        // A server may begin a transaction with every statement, and then nobody would commit it.
        "SET SESSION autocommit = 1",
        // It refuses statements that find their rows by a join.
        "SET SESSION sql_safe_updates = 0",
        // Errors are told apart by their English text.
        "SET SESSION lc_messages = 'en_US'",
    ] {
        sql.batch(set).map_err(|error| error.to_string())?;
    }
    Ok(conn)
}

fn log_in(source: &Source) -> Result<MysqlConnection, String> {
    let url = source.options.url_now(&source.url)?;
    MysqlConnection::establish(&url).map_err(|error| error.to_string())
}

/// Whether the connection is encrypted is asked of the server: libraries go on without where the server, or
/// somebody in between, says that it cannot.
fn prove_tls(conn: &mut Sql<'_, MysqlConnection>) -> Result<(), String> {
    let cipher: Option<Setting> = conn
        .row("SHOW SESSION STATUS LIKE 'Ssl_cipher'", &[])
        .map_err(|error| error.to_string())?;
    if cipher.is_some_and(|cipher| !cipher.1.is_empty()) {
        return Ok(());
    }
    Err(NOT_ENCRYPTED.to_owned())
}

const NOT_ENCRYPTED: &str =
    "can't connect: the connection would not be encrypted, and ssl_mode or ssl_ca demands it";

/// Whether the server offers TLS, before anything is said to it. MariaDB's library sends the password in the
/// clear to a server that takes it in no other way without TLS. This finds a server that cannot do it, and
/// somebody in between who says so for it, but not somebody who says so to the library alone.
fn look_for_tls(source: &Source, end: End) -> Result<(), String> {
    match look(&source.server, end).map_err(|error| error.to_string())? {
        None | Some(Greeting::Welcome { offers_tls: true }) => Ok(()),
        Some(Greeting::Welcome { offers_tls: false }) => Err(NOT_ENCRYPTED.to_owned()),
        Some(Greeting::Refused(message)) => Err(format!("could not connect: {message}")),
    }
}

/// What the server has set.
const SETTINGS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
     ('wsrep_on', 'log_bin', 'binlog_format', 'max_allowed_packet')";

struct Setting(String, String);

impl FromRow for Setting {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.text()?))
    }
}

fn is(settings: &[Setting], name: &str, value: &str) -> bool {
    settings.iter().any(|one| one.0 == name && one.1.eq_ignore_ascii_case(value))
}

/// Refuses a server that would refuse every write, or end the connection in the middle of one.
fn check_settings(settings: &[Setting]) -> Result<(), String> {
    if is(settings, "log_bin", "ON") && is(settings, "binlog_format", "STATEMENT") {
        return Err(
            "can't connect: the server's binlog_format is STATEMENT, with which it refuses each \
                    write at the isolation level READ COMMITTED; set it to ROW or MIXED"
                .to_owned(),
        );
    }
    let packet = settings.iter().find(|one| one.0 == "max_allowed_packet");
    let packet = packet.and_then(|one| one.1.parse::<u64>().ok());
    match packet {
        Some(bytes) if bytes < MIN_PACKET => Err(format!(
            "can't connect: the server's max_allowed_packet is {bytes}; qudo needs {MIN_PACKET}"
        )),
        _ => Ok(()),
    }
}

/// The statements over many rows are smaller; see [`bulk`](crate::bulk).
const MIN_PACKET: u64 = 1024 * 1024;

/// Servers that speak the protocol of MySQL, give a version that would do, and lack what the claim needs:
/// `JSON_TABLE`, procedures, or row locks that lock, without which two workers get one job.
const OTHERS: [&str; 4] = ["tidb", "vitess", "planetscale", "dolt"];

/// MariaDB 10.6 is the first with SKIP LOCKED and `JSON_TABLE`, which the claim needs, MySQL 8.0.4
/// the first with both.
fn check_version(version: &str) -> Result<(), String> {
    let lower = version.to_lowercase();
    if let Some(other) = OTHERS.iter().find(|name| lower.contains(**name)) {
        return Err(format!(
            "can't connect: the server is {version}; qudo does not work on {other}, whose row locks or \
             functions are not those of MySQL"
        ));
    }
    let mariadb = lower.contains("mariadb");
    // Older MariaDB servers put a "5.5.5-" before their own version, for replication.
    let digits = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut parts = digits.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let found: (u32, u32, u32) =
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (needed, name) =
        if mariadb { ((10, 6, 0), "MariaDB 10.6") } else { ((8, 0, 4), "MySQL 8.0.4") };
    if found < needed {
        return Err(format!(
            "can't connect: the server is version {version}; qudo needs {name} or newer"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::{Setting, check_settings, check_version, needs_tls};

    #[test]
    fn what_the_client_library_cannot_do_is_refused_by_name() {
        let needs = |query: &str, knows| {
            let url = Url::parse(&format!("mysql://u@db/jobs?{query}")).expect("parses");
            needs_tls(&url, knows)
        };
        for (query, needed) in [
            ("", false),
            ("ssl_mode=preferred", false),
            ("ssl_mode=disabled", false),
            ("ssl_ca=ca.pem", true),
            ("ssl_mode=required&ssl_ca=ca.pem", true),
            ("ssl_mode=VERIFY_CA&ssl_ca=ca.pem", true),
        ] {
            assert_eq!(needs(query, false), Ok(needed), "{query}");
            assert_eq!(needs(query, true), Ok(needed), "{query}");
        }
        for query in ["ssl_mode=required", "ssl_mode=verify_ca"] {
            assert!(needs(query, false).expect_err(query).contains("ssl_ca"));
            assert_eq!(needs(query, true), Ok(true), "{query}");
        }
        let query = "ssl_mode=verify_identity&ssl_ca=ca.pem";
        assert!(needs(query, false).expect_err(query).contains("verify_identity"));
        assert_eq!(needs(query, true), Ok(true));
        assert!(needs("ssl_mode=requiered", true).expect_err("a slip").contains("ssl_mode is"));
    }

    #[test]
    fn servers_that_only_look_like_mysql_are_refused_by_name() {
        for (version, name) in [
            ("8.0.11-TiDB-v8.5.1 TiDB Server (Apache License 2.0)", "tidb"),
            ("8.0.30-Vitess Version: 21.0.0", "vitess"),
            ("8.0.23-PlanetScale", "planetscale"),
            ("8.0.33 Dolt", "dolt"),
        ] {
            let error = check_version(version).expect_err(version);
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn settings_that_end_every_write_are_refused() {
        let set = |name: &str, value: &str| Setting(name.to_owned(), value.to_owned());
        let statement = [set("log_bin", "ON"), set("binlog_format", "STATEMENT")];
        assert!(check_settings(&statement).expect_err("every write fails").contains("ROW"));
        check_settings(&statement[1..]).expect("nothing is logged");
        let small = [set("max_allowed_packet", "524288")];
        assert!(check_settings(&small).expect_err("too small").contains("524288"));
        check_settings(&[set("max_allowed_packet", "1048576"), set("log_bin", "ON")])
            .expect("enough");
    }

    #[test]
    fn servers_that_are_too_old_are_refused_with_the_version_needed() {
        for good in [
            "8.0.36",
            "8.4.0-log",
            "10.6.0-MariaDB",
            "5.5.5-10.11.19-MariaDB-0+deb12u1",
            "11.4.2-MariaDB",
        ] {
            check_version(good).expect(good);
        }
        for bad in ["5.7.44", "8.0.3", "10.5.9-MariaDB", "5.5.5-10.3.2-MariaDB", ""] {
            assert!(check_version(bad).expect_err(bad).contains("qudo needs"), "{bad}");
        }
    }
}
