//! Programs that are not ours: command lines, Python, Node.

use std::path::Path;
use std::process::{Command, Stdio};

use qudo::JobId;
use qudo_test_servers::{PYTHON, node_drivers, run_sql};

use crate::jobs::all;
use crate::place::Place;

/// What the program prints has to be this: the job that it stored under the key `k`, and that it found again.
fn assert_stored(place: &Place, printed: &str) {
    let jobs = all(&place.manager);
    let [job] = &jobs[..] else { panic!("{printed}: {jobs:?}") };
    assert_eq!((&*job.facts.ability, job.facts.uniqkey.as_deref()), ("mail", Some("k")));
    let arg: serde_json::Value = serde_json::from_slice(&job.facts.arg).expect("JSON");
    assert_eq!(arg, serde_json::json!({"to": "ève@example.org"}));
    let words: Vec<&str> = printed
        .split(|one: char| one.is_whitespace() || one == '|')
        .filter(|word| !word.is_empty())
        .collect();
    let [first, new, again, old] = words[..] else { panic!("{printed:?}") };
    let id = |text: &str| text.parse::<JobId>().expect("a UUID");
    assert_eq!((id(first), id(again)), (job.id, job.id), "{printed}");
    assert!(
        ["t", "1", "true", "True"].contains(&new) && ["f", "0", "false", "False"].contains(&old),
        "{printed}"
    );
    place.assert_sound();
}

#[test]
fn psql_enqueues() {
    let Some(place) = Place::on("postgres") else { return };
    let sql = "SELECT * FROM qudo_enqueue('mail', '{\"to\": \"ève@example.org\"}', uniqkey => 'k')";
    let printed = [(); 2].map(|()| run_sql(place.fresh.url(), sql).expect("stored")).join("\n");
    assert_stored(&place, &printed);
}

#[test]
fn the_clients_of_mariadb_and_mysql_enqueue() {
    for place in ["mariadb", "mysql"].into_iter().filter_map(Place::on) {
        let sql = "SET NAMES utf8mb4; START TRANSACTION; CALL qudo_enqueue('mail', '{\"to\": \"ève@example.org\"}', NULL, NULL, \
                   NULL, 'k', NULL, NULL, @id, @is_new); COMMIT; SELECT @id, @is_new";
        let printed = [(); 2].map(|()| run_sql(place.fresh.url(), sql).expect("stored")).join("\n");
        assert_stored(&place, &printed);
    }
}

#[test]
fn sqlite3_enqueues() {
    let Some(place) = Place::on("sqlite") else { return };
    let sql = "BEGIN IMMEDIATE; INSERT INTO qudo_enqueue (ability, arg, uniqkey) VALUES ('mail', '{\"to\": \"ève@example.org\"}', 'k'); \
               SELECT id, is_new FROM qudo_enqueued; COMMIT;";
    let mut printed = String::new();
    for _ in 0..2 {
        let mut sqlite3 = Command::new("sqlite3");
        sqlite3
            .args(["-batch", "-bail", "-cmd", ".timeout 30000"])
            .arg(place.fresh.path().expect("a file"))
            .arg(sql);
        printed += &output(&mut sqlite3);
    }
    assert_stored(&place, &printed);
}

fn output(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
    assert!(output.status.success(), "{command:?}: {said:?}");
    said[0].clone()
}

const PYTHON_ON_POSTGRES: &str = r#"
import json, psycopg2, sys
with psycopg2.connect(sys.argv[1]) as conn, conn.cursor() as cursor:
    for _ in range(2):
        cursor.execute("SELECT id, is_new FROM qudo_enqueue(%s, %s, uniqkey => %s)", ("mail", json.dumps({"to": "ève@example.org"}), "k"))
        print(*cursor.fetchone())
"#;

const PYTHON_ON_MYSQL: &str = r#"
import json, pymysql, sys
from urllib.parse import urlparse
url = urlparse(sys.argv[1])
conn = pymysql.connect(host=url.hostname, port=url.port, user=url.username, password=url.password, database=url.path[1:], charset="utf8mb4")
with conn.cursor() as cursor:
    for _ in range(2):
        cursor.execute("CALL qudo_enqueue(%s, %s, NULL, NULL, NULL, %s, NULL, NULL, @id, @is_new)", ("mail", json.dumps({"to": "ève@example.org"}), "k"))
        cursor.execute("SELECT @id, @is_new")
        print(*cursor.fetchone())
conn.commit()
"#;

const PYTHON_ON_SQLITE: &str = r#"
import json, sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=30) as conn:
    for _ in range(2):
        conn.execute("INSERT INTO qudo_enqueue (ability, arg, uniqkey) VALUES (?, ?, ?)", ("mail", json.dumps({"to": "ève@example.org"}), "k"))
        print(*conn.execute("SELECT id, is_new FROM qudo_enqueued").fetchone())
"#;

const NODE_ON_POSTGRES: &str = r#"
const { Client } = require("pg");
(async () => {
  const client = new Client({ connectionString: process.argv[2] });
  await client.connect();
  await client.query("BEGIN");
  for (let i = 0; i < 2; i++) {
    const sql = "SELECT id, is_new FROM qudo_enqueue($1, $2, uniqkey => $3)";
    const { rows } = await client.query(sql, ["mail", { to: "ève@example.org" }, "k"]);
    console.log(rows[0].id, rows[0].is_new);
  }
  await client.query("COMMIT");
  await client.end();
})().catch(error => { console.error(error); process.exit(1); });
"#;

const NODE_ON_MYSQL: &str = r#"
const mysql = require("mysql2/promise");
(async () => {
  const conn = await mysql.createConnection(process.argv[2]);
  await conn.beginTransaction();
  for (let i = 0; i < 2; i++) {
    const sql = "CALL qudo_enqueue(?, ?, NULL, NULL, NULL, ?, NULL, NULL, @id, @is_new)";
    await conn.execute(sql, ["mail", JSON.stringify({ to: "ève@example.org" }), "k"]);
    const [rows] = await conn.query("SELECT @id AS id, @is_new AS is_new");
    console.log(rows[0].id, rows[0].is_new);
  }
  await conn.commit();
  await conn.end();
})().catch(error => { console.error(error); process.exit(1); });
"#;

/// This build of SQLite shares a file in WAL mode with nobody, so it takes the file for itself.
const NODE_ON_SQLITE: &str = r#"
const { Database } = require("node-sqlite3-wasm");
const db = new Database(process.argv[2]);
db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE");
for (let i = 0; i < 2; i++) {
  db.run("INSERT INTO qudo_enqueue (ability, arg, uniqkey) VALUES (?, ?, ?)", ["mail", JSON.stringify({ to: "ève@example.org" }), "k"]);
  const row = db.get("SELECT id, is_new FROM qudo_enqueued");
  console.log(row.id, row.is_new);
}
db.exec("COMMIT");
db.close();
"#;

/// A driver of another language is there in a complete run only.
fn is_complete() -> bool {
    let complete = std::env::var_os("QUDO_TEST_ENGINES").is_none();
    if !complete {
        println!("left out: the drivers of other languages are for complete runs");
    }
    complete
}

/// Runs a program on a data source and compares what it stored. A file is nobody's else meanwhile.
fn run_on(engine: &'static str, program: &str, script: &str, setup: impl FnOnce(&mut Command)) {
    let Some(place) = is_complete().then(|| Place::on(engine)).flatten() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("enqueue.js");
    std::fs::write(&file, script).expect("written");
    let target =
        place.fresh.path().map_or(place.fresh.url().to_owned(), |file| file.display().to_string());
    let mut command = Command::new(program);
    setup(&mut command);
    let Place { client, manager, fresh, engine } = place;
    drop((client, manager));
    if let Some(path) = fresh.path() {
        closed(path);
    }
    let printed = output(command.arg(&file).arg(target));
    let manager =
        qudo::Manager::builder().linked(false).database(fresh.url()).build().expect("valid");
    let mut place = Place::on(engine).expect("as before");
    (place.manager, place.fresh) = (manager, fresh);
    assert_stored(&place, &printed);
}

/// The manager's connections end on threads of their own; the last one removes the log beside the file.
fn closed(path: &Path) {
    let log = path.with_file_name("jobs.db-wal");
    qudo_test_servers::eventually(std::time::Duration::from_secs(30), "all are closed", || {
        !log.exists()
    });
}

#[test]
fn python_enqueues_on_every_engine() {
    run_on("postgres", PYTHON, PYTHON_ON_POSTGRES, |_| {});
    run_on("mariadb", PYTHON, PYTHON_ON_MYSQL, |_| {});
    run_on("mysql", PYTHON, PYTHON_ON_MYSQL, |_| {});
    run_on("sqlite", PYTHON, PYTHON_ON_SQLITE, |_| {});
}

#[test]
fn node_enqueues_on_every_engine() {
    if !is_complete() {
        return;
    }
    let drivers = node_drivers().expect("`cargo xtask test` fetches them");
    let with = |command: &mut Command| {
        command.env("NODE_PATH", &drivers);
    };
    run_on("postgres", "node", NODE_ON_POSTGRES, with);
    run_on("mariadb", "node", NODE_ON_MYSQL, with);
    run_on("mysql", "node", NODE_ON_MYSQL, with);
    run_on("sqlite", "node", NODE_ON_SQLITE, with);
}
