//! A database with qudo's tables, and connections of somebody who knows nothing but SQL.

use chrono::{DateTime, Utc};
#[cfg(feature = "mysql")]
use diesel::MysqlConnection;
#[cfg(feature = "postgres")]
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};
use qudo::{JobId, Manager};
use qudo_test_servers::FreshDatabase;

/// What is asked for; what is `None` is sent as NULL.
#[derive(Debug, Default, Clone)]
pub(crate) struct Asked {
    pub(crate) ability: Option<String>,
    pub(crate) arg: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) priority: Option<i64>,
    pub(crate) run_after: Option<DateTime<Utc>>,
    pub(crate) uniqkey: Option<String>,
    pub(crate) meta: Option<String>,
    pub(crate) id: Option<String>,
}

impl Asked {
    pub(crate) fn of(ability: &str) -> Self {
        Self { ability: Some(ability.to_owned()), ..Self::default() }
    }

    pub(crate) fn key(self, key: &str) -> Self {
        Self { uniqkey: Some(key.to_owned()), ..self }
    }
}

/// The answer: which job, and whether it is new.
pub(crate) type Answer = Result<(JobId, bool), String>;

pub(crate) enum Client {
    Sqlite(SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(MysqlConnection),
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    is_new: i64,
}

#[derive(QueryableByName)]
struct One {
    #[diesel(sql_type = Nullable<Text>)]
    one: Option<String>,
}

#[cfg(feature = "postgres")]
const ON_POSTGRES: &str = "SELECT CAST(id AS TEXT) AS id, CAST(is_new::INTEGER AS BIGINT) AS is_new \
    FROM qudo_enqueue($1, $2::JSONB, $3, $4::INTEGER, $5::TIMESTAMPTZ, $6, $7::JSONB, $8::UUID)";

const ON_SQLITE: &str = "INSERT INTO qudo_enqueue (ability, arg, queue, priority, run_after, uniqkey, meta, id) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";

#[cfg(feature = "mysql")]
const ON_MYSQL: &str = "CALL qudo_enqueue(?, ?, ?, ?, ?, ?, ?, ?, @id, @is_new)";

impl Client {
    /// The connection of one that is SQLite's.
    pub(crate) fn sqlite(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Sqlite(conn) => conn,
            #[cfg(any(feature = "postgres", feature = "mysql"))]
            _ => panic!("it is none of SQLite's"),
        }
    }

    pub(crate) fn run(&mut self, sql: &str) -> Result<(), String> {
        let done = match self {
            Self::Sqlite(conn) => conn.batch_execute(sql),
            #[cfg(feature = "postgres")]
            Self::Postgres(conn) => conn.batch_execute(sql),
            #[cfg(feature = "mysql")]
            Self::Mysql(conn) => conn.batch_execute(sql),
        };
        done.map_err(|error| error.to_string())
    }

    /// The column `one` of the one row.
    pub(crate) fn ask(&mut self, sql: &str) -> Option<String> {
        let row: One = match self {
            Self::Sqlite(conn) => sql_query(sql).get_result(conn),
            #[cfg(feature = "postgres")]
            Self::Postgres(conn) => sql_query(sql).get_result(conn),
            #[cfg(feature = "mysql")]
            Self::Mysql(conn) => sql_query(sql).get_result(conn),
        }
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
        // A CHAR of PostgreSQL's is filled up with spaces.
        row.one.map(|text| text.trim_end().to_owned())
    }

    /// Begins a transaction that may write at once.
    pub(crate) fn begin(&mut self) {
        let begin = match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "BEGIN",
            #[cfg(feature = "mysql")]
            Self::Mysql(_) => "START TRANSACTION",
        };
        self.run(begin).expect("begins");
    }

    /// One enqueue in a transaction of its own.
    pub(crate) fn enqueue(&mut self, asked: &Asked) -> Answer {
        self.begin();
        let answer = self.enqueue_within(asked);
        self.run(if answer.is_ok() { "COMMIT" } else { "ROLLBACK" }).expect("ends");
        answer
    }

    /// One enqueue in the transaction that is open.
    pub(crate) fn enqueue_within(&mut self, asked: &Asked) -> Answer {
        macro_rules! bound {
            ($sql:expr) => {
                sql_query($sql)
                    .bind::<Nullable<Text>, _>(asked.ability.clone())
                    .bind::<Nullable<Text>, _>(asked.arg.clone())
                    .bind::<Nullable<Text>, _>(asked.queue.clone())
                    .bind::<Nullable<BigInt>, _>(asked.priority)
                    .bind::<Nullable<Text>, _>(
                        asked.run_after.map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()),
                    )
                    .bind::<Nullable<Text>, _>(asked.uniqkey.clone())
                    .bind::<Nullable<Text>, _>(asked.meta.clone())
                    .bind::<Nullable<Text>, _>(asked.id.clone())
            };
        }
        let told = match self {
            Self::Sqlite(conn) => bound!(ON_SQLITE).execute(conn).and_then(|_| {
                sql_query("SELECT id, is_new FROM qudo_enqueued").get_result::<Row>(conn)
            }),
            #[cfg(feature = "postgres")]
            Self::Postgres(conn) => bound!(ON_POSTGRES).get_result::<Row>(conn),
            #[cfg(feature = "mysql")]
            Self::Mysql(conn) => bound!(ON_MYSQL).execute(conn).and_then(|_| {
                let sql = "SELECT CAST(@id AS CHAR) AS id, CAST(@is_new AS SIGNED) AS is_new";
                sql_query(sql).get_result::<Row>(conn)
            }),
        };
        let row = told.map_err(|error| error.to_string())?;
        Ok((row.id.parse().expect("a UUID"), row.is_new == 1))
    }
}

/// Dropped in this order: a database that somebody is connected to cannot be removed everywhere.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) manager: Manager,
    pub(crate) fresh: FreshDatabase,
    pub(crate) engine: &'static str,
}

impl Place {
    /// One, or none where the engine takes no part.
    pub(crate) fn on(engine: &'static str) -> Option<Self> {
        let is_built = match engine {
            "postgres" => cfg!(feature = "postgres"),
            "mariadb" | "mysql" => cfg!(feature = "mysql"),
            _ => true,
        };
        let fresh = is_built.then(|| FreshDatabase::on(engine, "sql")).flatten()?;
        let manager =
            Manager::builder().linked(false).database(fresh.url()).build().expect("valid");
        manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
        let client = connect(&fresh, engine);
        Some(Self { client, manager, fresh, engine })
    }

    /// Another connection.
    pub(crate) fn another(&self) -> Client {
        connect(&self.fresh, self.engine)
    }

    /// Nothing is wrong with the tables.
    pub(crate) fn assert_sound(&self) {
        let audit = self.manager.audit(qudo::admin::AuditOptions::default());
        assert!(audit.is_clean(), "{audit:?}");
    }
}

fn connect(fresh: &FreshDatabase, engine: &str) -> Client {
    let mut client = match engine {
        "sqlite" => {
            let file = fresh.path().expect("a file").to_string_lossy().into_owned();
            Client::Sqlite(SqliteConnection::establish(&file).expect("opens"))
        }
        #[cfg(feature = "postgres")]
        "postgres" => Client::Postgres(PgConnection::establish(fresh.url()).expect("connects")),
        #[cfg(feature = "mysql")]
        "mariadb" | "mysql" => {
            Client::Mysql(MysqlConnection::establish(fresh.url()).expect("connects"))
        }
        other => panic!("{other} is not built in"),
    };
    let set = match &client {
        Client::Sqlite(_) => "PRAGMA busy_timeout = 30000",
        #[cfg(feature = "postgres")]
        Client::Postgres(_) => "SET lc_messages = 'C'; SET TIME ZONE 'UTC'",
        #[cfg(feature = "mysql")]
        Client::Mysql(_) => "SET time_zone = '+00:00'; SET lc_messages = 'en_US'",
    };
    client.run(set).expect("set");
    client
}
