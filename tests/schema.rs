//! The tables are the same on every engine: migrated up, down and up again, then compared column by
//! column.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::BTreeMap;

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Nullable, Text};
use diesel::{Connection, MysqlConnection, PgConnection, QueryableByName, RunQueryDsl};
use diesel::{SqliteConnection, sql_query};
use qudo::Manager;
use qudo::driver::{About, SchemaState};
use qudo_test_servers::FreshDatabase;

/// A column as an engine describes it.
#[derive(Debug, QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    place: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Text)]
    nullable: String,
    /// Its place in the primary key.
    #[diesel(sql_type = Nullable<Text>)]
    key: Option<String>,
}

/// What the engines have to agree on: kind, whether it may be NULL, place in the primary key.
type Schema = BTreeMap<(String, String), (&'static str, bool, Option<String>)>;

fn kind(column: &Column) -> &'static str {
    // MySQL's text ignores spaces at the end, so keys are bytes there.
    if column.name == "uniqkey" {
        return "text";
    }
    match column.kind.to_lowercase().as_str() {
        "uuid" | "bytea" | "blob" | "binary" | "varbinary" | "longblob" => "bytes",
        "text" | "varchar" | "longtext" | "mediumtext" | "character varying" => "text",
        "integer" | "bigint" | "int" => "number",
        other => panic!("{other} of {column:?}"),
    }
}

fn schema(columns: Vec<Column>) -> Schema {
    columns
        .into_iter()
        .filter(|column| column.place != "qudo_schema_migrations")
        .map(|column| {
            let kind = kind(&column);
            let key = column.key.filter(|key| key != "0");
            let nullable = column.nullable.eq_ignore_ascii_case("yes");
            ((column.place, column.name), (kind, nullable, key))
        })
        .collect()
}

const SQLITE: &str = "SELECT t.name AS place, c.name AS name, c.type AS kind, \
    CASE c.\"notnull\" WHEN 0 THEN 'yes' ELSE 'no' END AS nullable, CAST(c.pk AS TEXT) AS \"key\" \
    FROM sqlite_master t JOIN pragma_table_info(t.name) c \
    WHERE t.type = 'table' AND t.name LIKE 'qudo%' AND t.name <> 'qudo_enqueued'";

/// `{schema}` differs: PostgreSQL's is `public`, MySQL's is the database.
const STANDARD: &str = "SELECT c.table_name AS place, c.column_name AS name, c.data_type AS kind, \
    c.is_nullable AS nullable, CAST(k.ordinal_position AS {text}) AS {key} \
    FROM information_schema.columns c JOIN information_schema.tables t \
    ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
    LEFT JOIN information_schema.table_constraints p ON p.table_schema = c.table_schema \
    AND p.table_name = c.table_name AND p.constraint_type = 'PRIMARY KEY' \
    LEFT JOIN information_schema.key_column_usage k ON k.table_schema = c.table_schema \
    AND k.table_name = c.table_name AND k.column_name = c.column_name \
    AND k.constraint_name = p.constraint_name \
    WHERE c.table_schema = {schema} AND t.table_type = 'BASE TABLE' AND c.table_name LIKE 'qudo%'";

fn up_down_up(dsn: &str) {
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    let up = || manager.migrate().expect("migrates").remove(0).answer.expect("applied");
    let first = up();
    let all = [
        "2026-11-30-000002_create_tables",
        "2026-11-30-000003_add_operations",
        "2026-11-30-000004_add_numbers",
        "2026-11-30-000005_add_sql_enqueue",
        "2026-11-30-000006_add_sent",
    ];
    assert_eq!(first, all, "the same on every engine");
    let driver = qudo::driver::DriverRegistration::open_linked(dsn).expect("opens").driver;
    let mut down = driver.revert().expect("reverts");
    down.reverse();
    assert_eq!(down, first);
    assert_eq!(up(), first);
}

#[test]
fn every_engine_has_the_same_tables_columns_and_keys_after_up_down_up() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("jobs.db");
    up_down_up(&format!("sqlite:{}", file.display()));
    let mut conn = SqliteConnection::establish(&file.to_string_lossy()).expect("opens");
    // The manager's connections end on threads of their own, and the last one locks the file.
    sql_query("PRAGMA busy_timeout = 30000").execute(&mut conn).expect("set");
    let sqlite = schema(sql_query(SQLITE).load(&mut conn).expect("describes"));
    assert!(sqlite.len() > 60, "{}", sqlite.len());

    let postgres = FreshDatabase::on("postgres", "schema").expect("always there");
    up_down_up(postgres.url());
    let sql = STANDARD.replace("{schema}", "'public'").replace("{text}", "TEXT");
    let mut conn = PgConnection::establish(postgres.url()).expect("connects");
    let columns = sql_query(sql.replace("{key}", "\"key\"")).load(&mut conn).expect("describes");
    assert_eq!(schema(columns), sqlite, "PostgreSQL and SQLite");
    drop(conn);

    for engine in ["mariadb", "mysql"] {
        let Some(fresh) = FreshDatabase::on(engine, "schema") else { continue };
        up_down_up(fresh.url());
        let sql = STANDARD.replace("{schema}", "DATABASE()").replace("{text}", "CHAR");
        let mut conn = MysqlConnection::establish(fresh.url()).expect("connects");
        let columns = sql_query(sql.replace("{key}", "`key`")).load(&mut conn).expect("describes");
        assert_eq!(schema(columns), sqlite, "{engine} and SQLite");
    }
}

#[test]
fn a_migration_that_was_broken_off_is_missing_and_is_applied_again() {
    // The other engines change tables in a transaction.
    for engine in ["mariadb", "mysql"] {
        let Some(fresh) = FreshDatabase::on(engine, "schema") else { continue };
        let manager =
            Manager::builder().linked(false).database(fresh.url()).build().expect("valid");
        manager.migrate().expect("migrates");
        let driver =
            qudo::driver::DriverRegistration::open_linked(fresh.url()).expect("opens").driver;
        let mut conn = MysqlConnection::establish(fresh.url()).expect("connects");
        sql_query("DROP TABLE qudo_reply").execute(&mut conn).expect("as if it was not reached");
        sql_query("UPDATE qudo_schema_migrations SET applied_at = 0")
            .execute(&mut conn)
            .expect("nor the end");
        let state = driver.schema().expect("answers");
        assert!(
            matches!(state, SchemaState::Behind(ref missing) if missing.len() == 5),
            "{state:?}"
        );
        let applied = manager.migrate().expect("migrates").remove(0).answer.expect("again");
        assert_eq!(applied.len(), 5);
        assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
        driver.remains(qudo::JobId::new()).expect("the table is there again");
        // A migration that was only begun can be reverted too.
        sql_query("UPDATE qudo_schema_migrations SET applied_at = 0")
            .execute(&mut conn)
            .expect("sets");
        assert_eq!(driver.revert().expect("reverts").len(), 5);
    }
}

/// What a checkup says of tables and rights: durability is the test servers' affair.
fn flaws(manager: &Manager) -> Vec<String> {
    let remarks = manager.checkup().remove(0).answer.expect("answers");
    let of_tables = remarks.iter().filter(|one| matches!(one.about, About::Tables | About::Rights));
    of_tables.map(ToString::to_string).collect()
}

/// A checkup before and after the migrations, and after harm was done.
fn checked(dsn: &str, harm: impl FnOnce(&[&str]), broken: &[&str]) {
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    let unmigrated = flaws(&manager);
    assert_eq!(unmigrated.len(), 1, "{unmigrated:?}");
    assert!(unmigrated[0].ends_with("run migrate"), "{unmigrated:?}");
    manager.migrate().expect("migrates").remove(0).answer.expect("applied");
    assert_eq!(flaws(&manager), Vec::<String>::new());
    harm(&["DROP TABLE qudo_cancel", "ALTER TABLE qudo_reply DROP COLUMN body"]);
    let said = flaws(&manager);
    assert_eq!(said.len(), broken.len(), "{said:?}");
    for part in broken {
        assert!(said.iter().any(|one| one.contains(part)), "{part}: {said:?}");
    }
}

fn done<C: SimpleConnection>(conn: &mut C, statements: &[&str]) {
    for sql in statements {
        conn.batch_execute(sql).expect("done");
    }
}

#[test]
fn a_checkup_tells_which_tables_columns_and_functions_are_missing() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("jobs.db");
    std::fs::write(&file, "").expect("made");
    let harm = |sql: &[&str]| {
        let mut conn = SqliteConnection::establish(&file.to_string_lossy()).expect("opens");
        conn.batch_execute("PRAGMA busy_timeout = 30000").expect("set");
        done(&mut conn, &[sql, &["DROP TRIGGER qudo_enqueue_insert"]].concat());
    };
    let broken = ["qudo_cancel", "qudo_reply", "qudo_enqueue_insert"];
    checked(&format!("sqlite:{}", file.display()), harm, &broken);
    let postgres = FreshDatabase::on("postgres", "checkup").expect("always there");
    let harm = |sql: &[&str]| {
        let mut conn = PgConnection::establish(postgres.url()).expect("connects");
        done(&mut conn, &[sql, &["DROP FUNCTION qudo_text(BYTEA) CASCADE"]].concat());
    };
    checked(postgres.url(), harm, &["qudo_cancel", "qudo_reply", "qudo_text"]);
    for engine in ["mariadb", "mysql"] {
        let Some(fresh) = FreshDatabase::on(engine, "checkup") else { continue };
        let harm = |sql: &[&str]| {
            let mut conn = MysqlConnection::establish(fresh.url()).expect("connects");
            done(&mut conn, &[sql, &["DROP PROCEDURE qudo_enqueue"]].concat());
        };
        checked(fresh.url(), harm, &["qudo_cancel", "qudo_reply", "qudo_enqueue"]);
    }
}
