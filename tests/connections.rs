//! A connection that dies or falls silent costs nobody more than its own call.

#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use qudo::{Job, Manager, Outcome};
#[cfg(feature = "mysql")]
use qudo_test_servers::run_sql;
use qudo_test_servers::{FreshDatabase, Proxy};

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

/// A fresh, migrated database, reached directly and through a proxy.
struct Fresh {
    direct: String,
    proxied: String,
    proxy: Arc<Proxy>,
    _database: FreshDatabase,
}

impl Fresh {
    fn on(engine: &str) -> Option<Self> {
        let database = FreshDatabase::on(engine, "connections")?;
        let direct = database.url().to_owned();
        let mut proxied = url::Url::parse(&direct).expect("a URL");
        let port = proxied.port().expect("test servers have ports of their own");
        let proxy = Arc::new(Proxy::start(port).expect("starts"));
        proxied.set_host(Some("127.0.0.1")).expect("a host");
        proxied.set_port(Some(proxy.port())).expect("a port");
        let fresh = Self { direct, proxied: proxied.into(), proxy, _database: database };
        fresh.manager(&fresh.direct, |builder| builder).migrate().expect("migrates");
        Some(fresh)
    }

    fn manager(
        &self,
        dsn: &str,
        more: impl FnOnce(qudo::ManagerBuilder) -> qudo::ManagerBuilder,
    ) -> Manager {
        let builder = Manager::builder().linked(false).database_as("it", dsn);
        let builder = builder.ability::<shaky>().plugin(Link(Arc::clone(&self.proxy)));
        more(builder.retry_seconds(1)).build().expect("valid")
    }
}

#[derive(Clone)]
struct Link(Arc<Proxy>);

/// Cuts the connections of its own manager, as a server's restart during a long job does.
#[qudo::ability(max_retries = 0)]
fn shaky(job: &Job, cuts: bool) -> qudo::JobResult<u32> {
    if cuts {
        job.plugin::<Link>()?.0.reset();
    }
    Ok(job.attempt())
}

fn a_connection_dies_during_a_job(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager(&fresh.proxied, |builder| builder);
    let sent = manager.enqueue(shaky::job(true)).expect("stored");
    let outcome = manager.work_once().expect("settles");
    assert!(matches!(outcome, Some(Outcome::Completed)), "{outcome:?}");
    assert_eq!(sent.wait_as::<u32>(DEADLINE).expect("settled"), 1);
    let direct = fresh.manager(&fresh.direct, |builder| builder);
    assert!(direct.work_once().expect("works").is_none(), "it was not given back");
}

fn a_look_falls_silent(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let client =
        fresh.manager(&fresh.proxied, |builder| builder.call_limit(Duration::from_secs(1)));
    let worker = fresh.manager(&fresh.direct, |builder| builder);
    let sent = client.enqueue(shaky::job(false)).expect("stored");
    let bare = client.ticket(sent.id().expect("new")).typed();
    for ticket in [sent.ticket().expect("new").clone(), bare] {
        assert!(ticket.check().is_ok(), "it is connected");
        let begun = Instant::now();
        let waiting = std::thread::spawn(move || ticket.wait(2 * DEADLINE));
        // Whatever it asks now is lost.
        fresh.proxy.half_open();
        worker.work_once().expect("works");
        assert_eq!(waiting.join().expect("no panic").expect("looks again"), 1);
        assert!(begun.elapsed() < DEADLINE, "one lost answer took all the time there was");
    }
}

/// A limit that MariaDB has for all new sessions; the server gets its own back with the end of this value.
#[cfg(feature = "mysql")]
struct IdleLimit<'a> {
    server: &'a str,
    former: String,
}

#[cfg(feature = "mysql")]
impl<'a> IdleLimit<'a> {
    const NAME: &'static str = "idle_write_transaction_timeout";

    fn set(server: &'a str, seconds: &str) -> Self {
        let former = run_sql(server, &format!("SELECT @@GLOBAL.{}", Self::NAME)).expect("reads");
        let limit = Self { server, former: former.trim().to_owned() };
        limit.write(seconds);
        limit
    }

    fn write(&self, seconds: &str) {
        let sql = format!("SET GLOBAL {} = {seconds}", Self::NAME);
        run_sql(self.server, &sql).expect("sets");
    }
}

#[cfg(feature = "mysql")]
impl Drop for IdleLimit<'_> {
    fn drop(&mut self) {
        self.write(&self.former);
    }
}

/// Cuts a claim off in the middle of its transaction: the server has locked its job, and hears nothing of it any more.
#[cfg(feature = "mysql")]
fn a_claim_is_cut_off(engine: &str, waits: &str) {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, MysqlConnection};
    let Some(fresh) = Fresh::on(engine) else { return };
    // What an administrator may have set for all sessions of MariaDB.
    let limit = (engine == "mariadb").then(|| IdleLimit::set(&fresh.direct, "3600"));
    let lost = fresh.manager(&fresh.proxied, |builder| builder.call_limit(Duration::from_secs(1)));
    let worker = fresh.manager(&fresh.direct, |builder| builder);
    worker.enqueue(shaky::job(false)).expect("stored");
    let mut holder = MysqlConnection::establish(&fresh.direct).expect("connects");
    holder.batch_execute("LOCK TABLES qudo_lease READ").expect("locks");
    std::thread::scope(|scope| {
        let claim = scope.spawn(|| lost.work_once());
        wait_until("the claim waits for the leases", || {
            run_sql(&fresh.direct, &format!("SELECT COUNT(*) FROM {waits}")).expect("counts").trim()
                == "1"
        });
        fresh.proxy.drop_packets();
        holder.batch_execute("UNLOCK TABLES").expect("unlocks");
        let cut = claim.join().expect("no panic");
        assert!(cut.is_err(), "it was cut off: {cut:?}");
    });
    drop(limit);
    let now = worker.work_once();
    assert!(matches!(now, Ok(None)), "another transaction has locked it: {now:?}");
    wait_until("the job is given to another", || worker.work_once().expect("works").is_some());
}

/// What the client says when the server closed its session, silent for longer than a second. `classify` takes these words for a lost
/// connection.
#[cfg(feature = "mysql")]
fn words_of_a_closed_session(engine: &str) -> Option<String> {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, MysqlConnection};
    let fresh = Fresh::on(engine)?;
    let mut silent = MysqlConnection::establish(&fresh.direct).expect("connects");
    silent.batch_execute("CREATE TABLE silent (id INT)").expect("makes");
    silent.batch_execute("SET SESSION wait_timeout = 1").expect("sets");
    let sessions = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()";
    wait_until("the server closes the session", || {
        run_sql(&fresh.direct, sessions).expect("counts").trim() == "1"
    });
    let said = silent.batch_execute("INSERT INTO silent VALUES (1)").expect_err("it is closed");
    Some(said.to_string().to_lowercase())
}

#[cfg(feature = "mysql")]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < 2 * DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(feature = "postgres")]
#[test]
fn a_job_during_which_its_connection_dies_is_settled_by_work_once_on_postgres() {
    a_connection_dies_during_a_job("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn a_job_during_which_its_connection_dies_is_settled_by_work_once_on_mariadb() {
    a_connection_dies_during_a_job("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn a_job_during_which_its_connection_dies_is_settled_by_work_once_on_mysql() {
    a_connection_dies_during_a_job("mysql");
}

#[cfg(feature = "postgres")]
#[test]
fn who_waits_for_a_reply_looks_again_when_a_look_falls_silent_on_postgres() {
    a_look_falls_silent("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn who_waits_for_a_reply_looks_again_when_a_look_falls_silent_on_mariadb() {
    a_look_falls_silent("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn who_waits_for_a_reply_looks_again_when_a_look_falls_silent_on_mysql() {
    a_look_falls_silent("mysql");
}

#[cfg(feature = "mysql")]
#[test]
fn a_job_whose_claim_was_cut_off_is_given_to_another_within_two_minutes_on_mariadb() {
    let waits = "information_schema.processlist \
                 WHERE db = DATABASE() AND state LIKE 'Waiting for table%'";
    a_claim_is_cut_off("mariadb", waits);
}

#[cfg(feature = "mysql")]
#[test]
fn a_job_whose_claim_was_cut_off_is_given_to_another_within_two_minutes_on_mysql() {
    let waits = "performance_schema.metadata_locks WHERE object_schema = DATABASE() \
                 AND object_name = 'qudo_lease' AND lock_status = 'PENDING'";
    a_claim_is_cut_off("mysql", waits);
}

#[cfg(feature = "mysql")]
#[test]
fn mysql_tells_that_it_closed_a_silent_session_in_the_words_that_are_known() {
    let Some(said) = words_of_a_closed_session("mysql") else { return };
    assert!(said.contains("disconnected by the server because of inactivity"), "{said}");
}

#[cfg(feature = "mysql")]
#[test]
fn mariadb_tells_that_it_closed_a_silent_session_in_the_words_that_are_known() {
    let Some(said) = words_of_a_closed_session("mariadb") else { return };
    let known = ["server has gone away", "lost connection"];
    assert!(known.iter().any(|words| said.contains(words)), "{said}");
}
