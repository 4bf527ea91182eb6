//! Jobs in the transactions of the application: enqueued with the data they are about, completed
//! with the effect they have. Ends by itself.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use qudo::{CompleteIn, EnqueueIn, Job, JobResult, Manager};

/// The payment and the end of the job are one transaction: a crash leaves both or neither.
#[qudo::ability(max_retries = 3)]
fn charge(job: &Job, cents: i64) -> JobResult<i64> {
    job.complete_in(|conn: &mut SqliteConnection| {
        diesel::sql_query("INSERT INTO payments (cents) VALUES (?)")
            .bind::<BigInt, _>(cents)
            .execute(conn)?;
        Ok(cents)
    })
}

#[derive(QueryableByName)]
struct Sum {
    #[diesel(sql_type = BigInt)]
    total: i64,
}

fn total(conn: &mut SqliteConnection, table: &str) -> QueryResult<i64> {
    let sql = format!("SELECT CAST(COALESCE(SUM(cents), 0) AS BIGINT) AS total FROM {table}");
    Ok(diesel::sql_query(sql).get_result::<Sum>(conn)?.total)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("shop.db").display().to_string();
    let manager = Manager::builder().database(format!("sqlite:{file}")).build()?;
    manager.migrate()?;
    let mut conn = SqliteConnection::establish(&file)?;
    // While the manager writes this connection waits, as the manager's own do.
    diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn)?;
    diesel::sql_query("CREATE TABLE orders (cents BIGINT NOT NULL)").execute(&mut conn)?;
    diesel::sql_query("CREATE TABLE payments (cents BIGINT NOT NULL)").execute(&mut conn)?;

    let place = |conn: &mut SqliteConnection, cents: i64, fail: bool| {
        conn.immediate_transaction(|conn| {
            diesel::sql_query("INSERT INTO orders (cents) VALUES (?)")
                .bind::<BigInt, _>(cents)
                .execute(conn)?;
            let job = manager.enqueue_in(conn, charge::job(cents))?;
            if fail {
                return Err("the customer changed her mind".into());
            }
            Ok::<_, Box<dyn std::error::Error>>(job)
        })
    };
    let placed = place(&mut conn, 995, false)?;
    assert!(place(&mut conn, 500, true).is_err(), "neither order nor job");

    let working = manager.start()?;
    placed.wait(Duration::from_secs(10))?;
    working.stop();
    println!("ordered {}, paid {}", total(&mut conn, "orders")?, total(&mut conn, "payments")?);
    Ok(())
}
