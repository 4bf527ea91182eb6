use std::process::Command;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::program::run;
use crate::{Error, Package, binaries};

/// Runs SQL in the database of a `postgres://` or `mysql://` URL through the engine's own command
/// line client.
///
/// The answer is what the client prints: a line per row, without headings; columns are separated
/// by `|` on PostgreSQL and by a tab on MariaDB.
///
/// # Errors
///
/// [`Error::Invalid`] for another scheme, [`Error::NotInstalled`] without the client, and
/// [`Error::Failed`] with the server's words when it refuses.
pub fn run_sql(url: &str, sql: &str) -> Result<String, Error> {
    let parsed = parse(url)?;
    match parsed.scheme() {
        "postgres" | "postgresql" => run(&mut psql(url, sql)?),
        "mysql" | "mariadb" => run(&mut mariadb(&parsed, sql)?),
        other => Err(invalid(other, "expected postgres:// or mysql://")),
    }
}

/// Creates an empty database beside the one in the URL and answers the URL of the new one.
///
/// # Errors
///
/// [`Error::Invalid`] when the name is more than lower case letters, digits and underscores, and
/// the errors of [`run_sql`].
pub fn create_database(url: &str, name: &str) -> Result<String, Error> {
    run_sql(url, &format!("CREATE DATABASE {}", plain(name)?))?;
    let mut created = parse(url)?;
    created.set_path(name);
    Ok(created.into())
}

/// Drops a database beside the one in the URL, if it is there. PostgreSQL cuts off who is still
/// connected, such as a pooler that keeps its sessions for a while.
///
/// # Errors
///
/// Those of [`create_database`].
pub fn drop_database(url: &str, name: &str) -> Result<(), Error> {
    let force = if url.starts_with("postgres") { " WITH (FORCE)" } else { "" };
    run_sql(url, &format!("DROP DATABASE IF EXISTS {}{force}", plain(name)?)).map(drop)
}

/// The command that runs SQL on PostgreSQL; `psql` reads the URL itself.
fn psql(url: &str, sql: &str) -> Result<Command, Error> {
    let program = binaries::psql().ok_or_else(|| Package::PostgresClient.missing())?;
    let mut command = Command::new(program);
    command
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--no-password"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname", url, "--command", sql]);
    Ok(command)
}

/// The command that runs SQL on MariaDB, with the parts of the URL as its arguments.
fn mariadb(url: &Url, sql: &str) -> Result<Command, Error> {
    let program = binaries::mariadb_client().ok_or_else(|| Package::MariadbClient.missing())?;
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut command = Command::new(program);
    command
        .args(["--no-defaults", "--protocol=tcp", "--batch", "--raw", "--skip-column-names"])
        .arg(format!("--host={}", url.host_str().unwrap_or("127.0.0.1")))
        .arg(format!("--port={}", url.port().unwrap_or(3306)))
        .arg(format!("--user={}", decode(url.username())))
        .arg(format!("--database={}", decode(url.path().trim_start_matches('/'))))
        .arg(format!("--execute={sql}"));
    if let Some(password) = url.password() {
        // In the environment, because arguments are open to every user of the machine.
        command.env("MYSQL_PWD", decode(password));
    }
    Ok(command)
}

fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|error| {
        let scheme = url.split(':').next().unwrap_or_default();
        invalid(scheme, &error.to_string())
    })
}

/// The name again when it needs no quoting in any dialect.
fn plain(name: &str) -> Result<&str, Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.is_empty() && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(invalid(name, "a database name is made of a-z, 0-9 and _ here"))
    }
}

fn invalid(what: &str, reason: &str) -> Error {
    Error::Invalid { what: what.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{create_database, run_sql};

    #[test]
    fn bad_urls_and_names_are_refused_without_showing_a_password() {
        let unknown = run_sql("oracle://scott:tiger@db/x", "SELECT 1").unwrap_err().to_string();
        assert!(unknown.starts_with("oracle: ") && !unknown.contains("tiger"), "{unknown}");
        let malformed = run_sql("mysql://scott:tiger@db:port/x", "").unwrap_err().to_string();
        assert!(malformed.starts_with("mysql: ") && !malformed.contains("tiger"), "{malformed}");
        let name = create_database("mysql://127.0.0.1/x", "a; DROP DATABASE b").unwrap_err();
        assert!(name.to_string().contains("database name"), "{name}");
    }
}
