//! What every statement of the suite is held to: a logger reads along.
//!
//! * No statement copies rows of our tables by a read without a lock.
//! * A transaction that takes rows out of narrow tables and puts rows into them says that it counted
//!   both before it commits, and what it committed leaves each job with one place.
//!
//! A lone insert on PostgreSQL is one statement that tells one number, so nothing can be held against it
//! here; tests/counted.rs looks at what it leaves.

use std::cell::RefCell;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use log::{Log, Metadata, Record};
use qudo::driver::{
    AbilityLease, ClaimRequest, Deadline, DriverRegistration, WorkerId, WorkerInfo,
};

use qudo_driver_tests::abilities::double;
use qudo_driver_tests::{Bed, run_all};

static WRONG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a thread's open transaction did.
#[derive(Default)]
struct Transaction {
    open: bool,
    statements: Vec<String>,
    counted: bool,
    taken: i64,
    put: i64,
    facts: i64,
    moves: bool,
}

thread_local! {
    static NOW: RefCell<Transaction> = RefCell::default();
    /// What this thread sent since it began to listen.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Reader(env_logger::Logger);

/// Reads along from now on.
pub fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let shown = env_logger::Builder::from_default_env().is_test(true).build();
        if log::set_boxed_logger(Box::new(Reader(shown))).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    });
}

/// What was wrong since the last question, in any test.
#[track_caller]
pub fn assert_sound() {
    let wrong = std::mem::take(&mut *WRONG.lock().expect("no panic"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Else nothing would be found wrong for the reason that nothing is read: on this thread, so that what
/// other tests send does not count.
pub fn the_statements_of_an_engine_are_read_along(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    for (name, dsn) in &bed.databases {
        let words = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
            "memory" => continue,
            "sqlite" => "unixepoch(",
            "postgres" | "pooled" => "qudo_claim_2(",
            _ => "JSON_TABLE(",
        };
        manager.enqueue(double::job(1).database(name)).expect("stored");
        let driver = DriverRegistration::open_linked(dsn).expect("opened before").driver;
        let (worker, dead_after) = (WorkerId::new(), Duration::from_secs(60));
        let info = WorkerInfo { id: worker, ..WorkerInfo::new("it", dead_after) };
        driver.heartbeat(&info).expect("beats");
        HEARD.set(Some(Vec::new()));
        let grab_for = Duration::from_secs(60);
        let claim = ClaimRequest {
            worker,
            claim: 1,
            queue: &"default".into(),
            abilities: &[AbilityLease { name: "double".into(), grab_for }],
            limit: 1,
            deadline: Deadline::NONE,
            thorough: true,
        };
        assert_eq!(driver.claim(&claim).expect("claims").len(), 1);
        // Takes its lease and puts it back, in a transaction on every engine.
        assert_eq!(driver.remove_worker(worker).expect("removed"), 1);
        let heard = HEARD.take().expect("it listened");
        assert!(heard.iter().any(|line| line.contains(words)), "{name}: {heard:?}");
        assert!(heard.iter().any(|line| line.starts_with("-- ")), "{name}: {heard:?}");
        assert_eq!(run_all(&manager), 1);
    }
}

impl Log for Reader {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "qudo::sql" || self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if record.target() == "qudo::sql" {
            if let Some(wrong) = read(&record.args().to_string()) {
                WRONG.lock().expect("no panic").push(wrong);
            }
        } else if self.0.matches(record) {
            self.0.log(record);
        }
    }

    fn flush(&self) {}
}

const NARROW: [&str; 4] = ["qudo_ready", "qudo_scheduled", "qudo_lease", "qudo_moving"];

/// Whether this inserts what it reads from a table of ours without a lock. On SQLite the transaction
/// holds the whole file.
pub fn copies_unlocked(sql: &str) -> bool {
    let Some((_, select)) =
        sql.split_once("INSERT").and_then(|(_, rest)| rest.split_once("SELECT"))
    else {
        return false;
    };
    let locks = ["FOR UPDATE", "LOCK IN SHARE MODE", "RETURNING", "unixepoch("];
    // A lease that only guards what is inserted beside it: nothing of its row is copied but the key, and nothing is taken.
    if sql.contains("INTO qudo_sent ") {
        return false;
    }
    let reads = ["FROM qudo_", "JOIN qudo_"].iter().any(|words| select.contains(words));
    reads && !locks.iter().any(|lock| sql.contains(lock))
}

fn read(line: &str) -> Option<String> {
    // As the beds name them, see `how_named`.
    let line = &*line.replace("\"jobs\".", "").replace("mail_", "qudo_");
    HEARD.with_borrow_mut(|heard| heard.iter_mut().for_each(|heard| heard.push(line.to_owned())));
    NOW.with_borrow_mut(|now| match line {
        "begin" => {
            *now = Transaction { open: true, ..Transaction::default() };
            None
        }
        "rollback" => {
            *now = Transaction::default();
            None
        }
        "commit" => std::mem::take(now).judge(),
        line if line.starts_with("-- ") => {
            now.counted = true;
            None
        }
        line => {
            let (rows, sql) = line.split_once(" rows: ")?;
            let rows = rows.parse().unwrap_or_default();
            if now.open {
                now.note(rows, sql);
            } else {
                // A transaction of its own, or one of the user's, which only ever enqueues.
                let mut alone = Transaction::default();
                alone.note(rows, sql);
                if alone.taken > 0
                    && let Some(wrong) = alone.judge()
                {
                    return Some(wrong);
                }
            }
            copies_unlocked(sql).then(|| format!("copies rows by a read without a lock: {sql}"))
        }
    })
}

impl Transaction {
    fn note(&mut self, rows: i64, sql: &str) {
        self.statements.push(format!("{rows} rows: {sql}"));
        let marks = [
            "INTO qudo_moving",
            "DELETE FROM qudo_moving",
            "UPDATE qudo_moving",
            "JOIN qudo_moving",
        ];
        self.moves |= marks.iter().any(|mark| sql.contains(mark));
        let about = |words: &str, table: &str| {
            sql.contains(&format!("{words} {table} ")) || sql.ends_with(&format!("{words} {table}"))
        };
        if sql.starts_with("DELETE l, j") || sql.contains("qudo_refuse(") {
            // Both sides in one statement, that counts them.
            return;
        }
        for table in NARROW {
            // MySQL deletes from a join with a list of ids, under an alias.
            let joined = sql.starts_with("DELETE ") && sql.contains(&format!("JOIN {table} "));
            if sql.starts_with("DELETE ") && (about("FROM", table) || joined) {
                self.taken += rows;
            }
            if sql.contains("INSERT") && about("INTO", table) {
                self.put += rows;
            }
        }
        let joined = sql.contains("JOIN qudo_job ");
        if sql.starts_with("DELETE ") && (about("FROM", "qudo_job") || joined) {
            self.facts -= rows;
        }
        if sql.contains("INSERT") && about("INTO", "qudo_job") {
            self.facts += rows;
        }
    }

    fn judge(self) -> Option<String> {
        let story = || self.statements.join("\n  ");
        if self.taken > 0 && self.put > 0 && !self.counted {
            return Some(format!("a move without its count:\n  {}", story()));
        }
        // Marks of moves are no places.
        if !self.moves && self.put - self.taken != self.facts {
            return Some(format!(
                "{} taken, {} put, {} facts more:\n  {}",
                self.taken,
                self.put,
                self.facts,
                story()
            ));
        }
        None
    }
}

#[test]
fn the_statement_that_lost_jobs_is_told_from_those_that_do_not() {
    // The claim by which MariaDB lost jobs.
    assert!(copies_unlocked(
        "INSERT INTO qudo_lease (id) SELECT r.id FROM JSON_TABLE(?, '$[*]') v STRAIGHT_JOIN \
         qudo_ready r FORCE INDEX (PRIMARY) ON r.id = UNHEX(v.hex)"
    ));
    assert!(copies_unlocked("INSERT INTO qudo_lease (id) SELECT id FROM qudo_ready WHERE id = ?"));
    assert!(!copies_unlocked("INSERT INTO qudo_lease SELECT id FROM qudo_ready FOR UPDATE"));
    assert!(!copies_unlocked("INSERT INTO qudo_lease (id) SELECT UNHEX(hex) FROM JSON_TABLE(?)"));
    let moved = |counted: bool| {
        for line in [
            "begin",
            "1 rows: DELETE FROM qudo_scheduled WHERE id IN (?)",
            "1 rows: INSERT INTO qudo_ready (id) VALUES (?)",
        ] {
            assert_eq!(read(line), None);
        }
        if counted {
            assert_eq!(read("-- promote: 1 taken, 1 put"), None);
        }
        read("commit")
    };
    assert_eq!(moved(true), None);
    assert!(moved(false).expect("wrong").contains("without its count"));
    let alone = read("1 rows: DELETE FROM qudo_ready WHERE id = ?").expect("wrong");
    assert!(alone.contains("1 taken, 0 put"), "outside of a transaction: {alone}");
    for line in ["begin", "2 rows: DELETE FROM qudo_ready WHERE id = ?", "-- claim: 2 taken, 1 put"]
    {
        assert_eq!(read(line), None);
    }
    assert_eq!(read("1 rows: INSERT INTO qudo_lease (id) VALUES (?)"), None);
    assert!(read("commit").expect("wrong").contains("2 taken, 1 put, 0 facts more"));
}
