//! The engines that the behaviours run on.

use qudo::Manager;
use qudo_driver_tests::{Bed, Fresh};
use qudo_test_servers::FreshDatabase;

/// Runs a behaviour on a bed of engines, unless the developer asked for others only.
pub fn run(bed: &str, behaviour: fn(&Bed)) {
    let chosen = std::env::var("QUDO_TEST_ENGINES").unwrap_or_default();
    let engine = bed.strip_prefix("granted_").unwrap_or(bed);
    if !chosen.is_empty() && !chosen.split(',').any(|one| one == engine) {
        eprintln!("left out: {engine} is not in QUDO_TEST_ENGINES={chosen}");
        return;
    }
    crate::statements::install();
    if is_left_out(engine) {
        return;
    }
    behaviour(&Bed::new(databases(bed)).with_local(local(engine)));
    crate::statements::assert_sound();
}

/// The fresh databases of a bed.
pub fn databases(bed: &str) -> Vec<(String, Fresh)> {
    if let Some(engine) = bed.strip_prefix("granted_") {
        return vec![(format!("{engine}0"), granted(engine))];
    }
    let engines = if bed == "mixed" { MIXED } else { &[bed] };
    let there = engines.iter().filter(|one| !is_left_out(one)).enumerate();
    there.map(|(number, engine)| (format!("{engine}{number}"), named(bed, engine))).collect()
}

/// What is local beside an engine.
fn local(engine: &str) -> fn() -> Fresh {
    if engine == "memory" { Fresh::in_memory } else { || fresh("sqlite") }
}

fn named(bed: &str, engine: &str) -> Fresh {
    let Fresh { dsn, guard } = fresh(engine);
    match how_named(bed, engine) {
        Some(how) => {
            let sign = if dsn.contains('?') { '&' } else { '?' };
            Fresh { dsn: format!("{dsn}{sign}{how}"), guard }
        }
        None => Fresh { dsn, guard },
    }
}

/// A table of a bed's first database, by the name that it has by default.
pub fn table(bed: &Bed, name: &str) -> String {
    let dsn = &bed.databases[0].1;
    let named = |parameter: &str| {
        let (_, value) = dsn.split_once(parameter)?;
        value.split('&').next()
    };
    let name = name.replace("qudo_", named("table_prefix=").unwrap_or("qudo_"));
    named("schema=").map_or(name.clone(), |schema| format!("{schema}.{name}"))
}

/// A server's database that somebody else made the tables of, for an account with the rights of a
/// client, a worker and an operator, and no others.
fn granted(engine: &str) -> Fresh {
    let Fresh { dsn: owner, guard } = fresh(engine);
    let manager = Manager::builder().linked(false).database(&*owner).build().expect("valid");
    manager.migrate().expect("migrates");
    // MySQL takes 32 characters.
    let account = uuid::Uuid::now_v7().simple().to_string();
    let account = format!("g{}", &account[8..]);
    let (make, drop_it, grants) = if engine == "postgres" {
        (
            // The second for a server that writes its messages in another language.
            format!("CREATE ROLE {account} LOGIN; ALTER ROLE {account} SET lc_messages = 'C'"),
            format!("DROP OWNED BY {account} CASCADE; DROP ROLE {account}"),
            [
                include_str!("../../docs/grants/postgres/enqueue.sql"),
                include_str!("../../docs/grants/postgres/tickets.sql"),
                include_str!("../../docs/grants/postgres/worker.sql"),
                include_str!("../../docs/grants/postgres/operator.sql"),
            ],
        )
    } else {
        (
            format!("CREATE USER '{account}'@'%' IDENTIFIED BY 'secret'"),
            format!("DROP USER '{account}'@'%'"),
            [
                include_str!("../../docs/grants/mysql/enqueue.sql"),
                include_str!("../../docs/grants/mysql/tickets.sql"),
                include_str!("../../docs/grants/mysql/worker.sql"),
                include_str!("../../docs/grants/mysql/operator.sql"),
            ],
        )
    };
    let run = |sql: &str| {
        qudo_test_servers::run_sql(&owner, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    run(&make);
    for text in grants {
        let lines = text.lines().filter(|line| !line.starts_with("--")).collect::<String>();
        run(&lines.replace("qudo_account", &account));
    }
    let mut url = url::Url::parse(&owner).expect("a URL");
    url.set_username(&account).expect("has a host");
    let account = DroppedAccount { beside: owner, sql: drop_it };
    // The account goes before its database.
    Fresh::new(url, (account, guard))
}

#[cfg(not(any(feature = "postgres", feature = "mysql")))]
const MIXED: &[&str] = &["sqlite", "memory", "sqlite"];
#[cfg(all(feature = "postgres", not(feature = "mysql")))]
const MIXED: &[&str] = &["sqlite", "postgres"];
#[cfg(all(feature = "mysql", not(feature = "postgres")))]
const MIXED: &[&str] = &["sqlite", "mariadb", "mysql"];
#[cfg(all(feature = "mysql", feature = "postgres"))]
const MIXED: &[&str] = &["sqlite", "postgres", "mariadb", "mysql"];

/// How the tables are named where databases are mixed and behind a pooler, so that every behaviour is held to
/// by installations with names of their own too.
fn how_named(bed: &str, engine: &str) -> Option<&'static str> {
    match (bed, engine) {
        ("pooled", _) => Some("schema=jobs"),
        ("mixed", "memory") => None,
        ("mixed", "postgres") => Some("schema=jobs&table_prefix=mail_"),
        ("mixed", _) => Some("table_prefix=mail_"),
        _ => None,
    }
}

/// Whether this machine cannot have the engine today; see [`qudo_test_servers::given`].
fn is_left_out(engine: &str) -> bool {
    let server = ["postgres", "mariadb", "mysql"].contains(&engine);
    server && qudo_test_servers::given(engine).is_none()
}

fn fresh(engine: &str) -> Fresh {
    if engine == "memory" {
        return Fresh::in_memory();
    }
    let database = FreshDatabase::on(engine, "behaviour").expect("was looked at before");
    Fresh::new(database.url().to_owned(), database)
}

struct DroppedAccount {
    beside: String,
    sql: String,
}

impl Drop for DroppedAccount {
    fn drop(&mut self) {
        if let Err(error) = qudo_test_servers::run_sql(&self.beside, &self.sql) {
            eprintln!("an account is left behind: {error}");
        }
    }
}
