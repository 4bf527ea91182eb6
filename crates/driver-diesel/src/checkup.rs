//! What an operator should know of a database: settings, clock, tables, rights. Reads only.

use chrono::Utc;
use diesel::result::QueryResult;
use qudo_core::driver::{About, DriverError, ErrorKind, Remark};

use crate::engine::Engine;
use crate::migrate;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// The greatest difference of clocks that is not remarked on, in microseconds, beside the time that the question takes.
const MAX_SKEW: i64 = 1_000_000;

/// Looks at all there is to look at; what cannot be looked at is a remark too.
pub(crate) fn checkup<E: Engine>(engine: &E) -> Result<Vec<Remark>, DriverError> {
    let mut remarks = Vec::new();
    let missing = match migrate::missing(engine) {
        Ok(missing) => missing.into_iter().map(|(name, _)| name).collect(),
        // Newer than this program, which says so itself.
        Err(error) if error.kind() == ErrorKind::Schema => {
            return Ok(vec![Remark::new(About::Tables, error.to_string())]);
        }
        Err(error) => {
            remarks.push(remark(error, "qudo_schema_migrations")?);
            Vec::new()
        }
    };
    if !missing.is_empty() {
        // What they make cannot be there, and all else is told when it is.
        let text = format!("{} not applied: run migrate", missing.join(", "));
        return Ok(vec![Remark::new(About::Tables, text)]);
    }
    for (table, columns) in E::migrations().iter().flat_map(|step| made_by(step.up)) {
        let sql = format!("SELECT {} FROM {table} WHERE 1 = 0", columns.join(", "));
        if let Err(error) = engine.read(|conn| conn.rows::<Anything>(&sql, &[])) {
            remarks.push(remark(error, &table)?);
        }
    }
    for look in [clock::<E>, E::checkup] {
        match engine.read(look) {
            Ok(more) => remarks.extend(more),
            Err(error) if error.is_down() => return Err(error),
            Err(error) => {
                let about = match error.kind() {
                    ErrorKind::Permission => About::Rights,
                    _ => About::Durability,
                };
                let text = format!("clock or settings cannot be read: {error}");
                remarks.push(Remark::new(about, text));
            }
        }
    }
    Ok(remarks)
}

/// What an error of a look at a table says of the table, unless it says something of the database.
fn remark(error: DriverError, table: &str) -> Result<Remark, DriverError> {
    match error.kind() {
        ErrorKind::Down | ErrorKind::Contention => Err(error),
        ErrorKind::Permission => {
            let text = format!(
                "this account may not read {table}, which was not looked at; docs/grants has what each kind of account needs"
            );
            Ok(Remark::new(About::Rights, text))
        }
        _ => Ok(Remark::new(About::Tables, format!("{table} is not as it was made: {error}"))),
    }
}

/// Any row: none is read.
struct Anything;

impl FromRow for Anything {
    fn from_row(_: &mut dyn Columns) -> diesel::deserialize::Result<Self> {
        Ok(Self)
    }
}

fn clock<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<Remark>> {
    let asked = Utc::now().timestamp_micros();
    let server = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let answered = Utc::now().timestamp_micros();
    Ok(skew(asked, server, answered).into_iter().collect())
}

/// What to say of a server whose clock showed this time, in microseconds, after it was asked and before the answer came. A
/// slow answer alone is no difference.
fn skew(asked: i64, server: i64, answered: i64) -> Option<Remark> {
    let skew = if server < asked { server - asked } else { (server - answered).max(0) };
    if skew.abs() <= MAX_SKEW {
        return None;
    }
    let text = format!(
        "it is {:.1} s {} this machine's; some times are reckoned by its clock, others by this machine's",
        skew.abs() as f64 / 1e6,
        if skew > 0 { "ahead of" } else { "behind" }
    );
    Some(Remark::new(About::Clock, text))
}

/// The tables with their columns, as a migration makes them.
fn made_by(sql: &str) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut lines = sql.lines();
    while let Some(line) = lines.next() {
        if let Some((_, added)) = line.split_once("ALTER TABLE ")
            && let [table, "ADD", "COLUMN", column, ..] =
                added.split_whitespace().collect::<Vec<_>>()[..]
        {
            all.push((table.to_owned(), vec![column.to_owned()]));
            continue;
        }
        let made = line
            .strip_prefix("CREATE TABLE ")
            .map(|rest| rest.trim_start_matches("IF NOT EXISTS "));
        let Some(table) = made.and_then(|rest| rest.strip_suffix(" (")) else { continue };
        let of_table = lines.by_ref().take_while(|line| line.starts_with(' '));
        let first_word = |line: &str| line.split_whitespace().next().map(str::to_owned);
        // Keys and constraints begin with capitals.
        let is_column = |word: &String| word.starts_with(|one: char| one.is_ascii_lowercase());
        all.push((table.to_owned(), of_table.filter_map(first_word).filter(is_column).collect()));
    }
    all
}

struct Setting(Option<String>);

impl FromRow for Setting {
    fn from_row(columns: &mut dyn Columns) -> diesel::deserialize::Result<Self> {
        Ok(Self(columns.opt_text()?))
    }
}

/// A setting of the server as a text, empty if it is none.
pub(crate) fn setting<C: crate::sql::SqlConn>(
    conn: &mut Sql<'_, C>,
    sql: &str,
    binds: &[Bind<'_>],
) -> QueryResult<String> {
    Ok(conn.row::<Setting>(sql, binds)?.and_then(|Setting(text)| text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{MAX_SKEW, made_by, skew};

    #[test]
    fn a_clock_that_is_off_is_remarked_on_and_a_slow_answer_is_not() {
        let said =
            |asked, server, answered| skew(asked, server, answered).map(|remark| remark.text);
        let (asked, answered) = (100 * MAX_SKEW, 130 * MAX_SKEW);
        for server in [asked - MAX_SKEW, asked, answered, answered + MAX_SKEW] {
            assert_eq!(said(asked, server, answered), None, "{server}");
        }
        let behind = said(asked, asked - 5 * MAX_SKEW / 2, answered).expect("a remark");
        assert!(behind.starts_with("it is 2.5 s behind this machine's"), "{behind}");
        let ahead = said(asked, answered + 90 * MAX_SKEW, answered).expect("a remark");
        assert!(ahead.starts_with("it is 90.0 s ahead of this machine's"), "{ahead}");
    }

    #[test]
    fn columns_are_read_from_what_makes_them() {
        let made = made_by(
            "-- x\nCREATE TABLE IF NOT EXISTS qudo_a (\n    id BINARY(16) NOT NULL PRIMARY KEY,\n    run_after BIGINT,\n    \
             PRIMARY KEY (id),\n    KEY ix (id)\n) ENGINE = InnoDB;\nCREATE INDEX ix ON qudo_a (id);\n\
             SET @x = IF(1, 'ALTER TABLE qudo_b ADD COLUMN wait_00 BIGINT', 'DO 0');\n",
        );
        let names = |names: &[&str]| names.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let wanted = [("qudo_a", names(&["id", "run_after"])), ("qudo_b", names(&["wait_00"]))];
        assert_eq!(made, wanted.map(|(table, columns)| (table.to_owned(), columns)));
    }
}
