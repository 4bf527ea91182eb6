//! Procedures: no part of the migrations, because an account may lack the privilege to make them, and a restored copy the procedures.

use diesel::MysqlConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{About, Remark};

use crate::checkup::setting;
use crate::classify::{Class, classify};
use crate::sql::{Bind, Sql};

/// One of them.
struct Procedure {
    name: &'static str,
    sql: &'static str,
    /// What it is for, and what follows when it is missing.
    without: &'static str,
}

const ALL: [Procedure; 3] = [
    Procedure {
        name: "qudo_enqueue_1",
        sql: include_str!("enqueue_1.sql"),
        without: "an enqueue takes four round trips instead of one",
    },
    Procedure {
        name: "qudo_store_1",
        sql: include_str!("store_1.sql"),
        without: "jobs cannot be enqueued from SQL and other libraries",
    },
    Procedure {
        name: "qudo_enqueue",
        sql: include_str!("enqueue.sql"),
        without: "jobs cannot be enqueued from SQL",
    },
];

/// What the names of the server's own errors in a body rely on: a text that is too long is an error, and a backslash a backslash.
const MODE: &str = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";

/// Makes those that are missing, where the account may; the library works without them.
///
/// Locking: the named lock of migrations.
pub(super) fn make(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
    for procedure in ALL {
        // An account sees only the routines that it may call.
        if comment(conn, &procedure)?.is_some() {
            continue;
        }
        match create(conn, &procedure) {
            Err(error) if error.to_string().contains("already exists") => {}
            Err(error) => match classify(&error) {
                Class::Down | Class::Retry | Class::Slow => return Err(error),
                _ => log::warn!(
                    "the procedure {} is not made ({error}; it takes the privilege CREATE ROUTINE); {}",
                    conn.tables.render(procedure.name),
                    procedure.without
                ),
            },
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The mode of the session that makes a procedure is that of its body for good.
fn create(conn: &mut Sql<'_, MysqlConnection>, procedure: &Procedure) -> QueryResult<()> {
    let former = setting(conn, "SELECT @@SESSION.sql_mode", &[])?;
    conn.run("SET SESSION sql_mode = ?", &[Bind::Text(MODE)])?;
    let made = conn.batch(procedure.sql);
    let back = conn.run("SET SESSION sql_mode = ?", &[Bind::Text(&former)]).map(drop);
    made.and(back)
}

/// Its comment, if it is there.
fn comment(
    conn: &mut Sql<'_, MysqlConnection>,
    procedure: &Procedure,
) -> QueryResult<Option<String>> {
    let name = conn.tables.render(procedure.name).into_owned();
    let there = "SELECT CONCAT('', routine_comment) FROM information_schema.routines \
                 WHERE routine_schema = DATABASE() AND routine_type = 'PROCEDURE' AND routine_name = ?";
    conn.row::<String>(there, &[Bind::Text(&name)])
}

/// Removes them.
pub(super) fn remove(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
    for procedure in ALL {
        match conn.batch(&format!("DROP PROCEDURE IF EXISTS {}", procedure.name)) {
            // Then it was not made by this account either.
            Err(error) if classify(&error) == Class::Permission => {}
            dropped => dropped?,
        }
    }
    Ok(())
}

/// Those that are missing, or not ours.
pub(super) fn checkup(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<Vec<Remark>> {
    let mut remarks = Vec::new();
    for procedure in ALL {
        let name = conn.tables.render(procedure.name).into_owned();
        let ours = procedure.sql.split("COMMENT '").nth(1).and_then(|rest| rest.split('\'').next());
        let text = match comment(conn, &procedure)? {
            None => format!(
                "the procedure {name} is missing, or this account may not call it: {}; run migrate with the privilege CREATE ROUTINE",
                procedure.without
            ),
            Some(comment) if ours.is_some_and(|ours| ours != comment) => {
                format!(
                    "the procedure {name} is not the one that migrate makes: {}",
                    procedure.without
                )
            }
            Some(_) => continue,
        };
        remarks.push(Remark::new(About::Tables, text));
    }
    Ok(remarks)
}
