use std::sync::atomic::{AtomicBool, Ordering};

use diesel::{Connection, MysqlConnection};
use url::Url;

use crate::engine::names;
use crate::options::Options;
use crate::reach::Server;
use crate::sql::SqlConn;

/// A parsed data source name.
pub(super) struct Source {
    pub(super) url: String,
    pub(super) name: String,
    pub(super) described: String,
    pub(super) server: Server,
}

impl Source {
    pub(super) fn parse(dsn: &str) -> Result<Self, String> {
        let mut url = Url::parse(dsn).map_err(|error| error.to_string())?;
        let options = Options::take(&mut url)?;
        if options.relaxed {
            return Err("durability=relaxed is not to be had of MySQL, where it is the server's \
                        setting innodb_flush_log_at_trx_commit"
                .to_owned());
        }
        if options.pooler {
            return Err("pooler is a parameter for PostgreSQL only".to_owned());
        }
        let (name, described) = names(&url)?;
        let server = Server::of(&url, 3306);
        // diesel knows the one scheme only.
        let url = url.as_str().replacen("mariadb://", "mysql://", 1);
        Ok(Self { url, name, described, server })
    }
}

/// Connects, sets what the statements rely on, and refuses servers that are too old.
///
/// `cluster` learns whether the server is a node of a Galera cluster.
pub(super) fn connect(url: &str, cluster: &AtomicBool) -> Result<MysqlConnection, String> {
    let mut conn = MysqlConnection::establish(url).map_err(|error| error.to_string())?;
    let version: Option<String> =
        conn.row("SELECT VERSION()", &[]).map_err(|error| error.to_string())?;
    check_version(version.as_deref().unwrap_or_default())?;
    // A client that vanishes in the middle of a transaction must not keep its locks for hours. The
    // pool drops a connection that was idle for five minutes.
    let mariadb = version.as_deref().unwrap_or_default().to_lowercase().contains("mariadb");
    // A statement whose caller left long ago ends on the server too; MySQL can limit reads only.
    let idle = if mariadb {
        "SET SESSION wait_timeout = 400, idle_transaction_timeout = 60, max_statement_time = 60"
    } else {
        "SET SESSION wait_timeout = 400, max_execution_time = 120000"
    };
    // Servers with Galera built in are MariaDB's and Percona's.
    let wsrep = "SHOW GLOBAL VARIABLES WHERE Variable_name = 'wsrep_on' AND Value = 'ON'";
    let found = conn.rows::<String>(wsrep, &[]).map_err(|error| error.to_string())?;
    cluster.store(!found.is_empty(), Ordering::Relaxed);
    for set in [
        idle,
        // Gap locks of the default level make claims and inserts deadlock.
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION innodb_lock_wait_timeout = 5",
        // Somebody's lock of a whole table, or of the server: a day to MariaDB, a year to MySQL. Also a
        // commit waits for that one, after it has looked at the clock.
        "SET SESSION lock_wait_timeout = 5",
        // A server may begin a transaction with every statement, and then nobody would commit it.
        "SET SESSION autocommit = 1",
        // Errors are told apart by their English text.
        "SET SESSION lc_messages = 'en_US'",
    ] {
        conn.batch(set).map_err(|error| error.to_string())?;
    }
    Ok(conn)
}

/// MariaDB 10.6 is the first with SKIP LOCKED and `JSON_TABLE`, which the claim needs, MySQL 8.0.4
/// the first with both.
fn check_version(version: &str) -> Result<(), String> {
    let mariadb = version.to_lowercase().contains("mariadb");
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
    use super::check_version;

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
