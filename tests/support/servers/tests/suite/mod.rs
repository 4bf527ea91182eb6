use std::io::ErrorKind;
use std::net::TcpStream;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use qudo_test_servers::{Engine, Error, Options, Server, can_start, run_sql};

/// How long a thing that must happen is waited for.
const SOON: Duration = Duration::from_secs(30);

/// How long a thing that must not happen is watched.
const A_WHILE: Duration = Duration::from_millis(500);

pub(crate) fn answers_queries_and_makes_databases<E: Engine>() {
    let Some(server) = server::<E>(Options::default()) else {
        return;
    };
    assert_eq!(server.query("SELECT 6 * 7").unwrap(), "42");
    let (name, number) = server.version().rsplit_once(' ').expect("a name and a number");
    assert_eq!(name, E::NAME);
    assert!(number.starts_with(|first: char| first.is_ascii_digit()), "{number}");

    let other = server.create_database("other").unwrap();
    assert_eq!(other, server.url_for("other"));
    run_sql(&other, "CREATE TABLE only_here (id INT)").unwrap();
    run_sql(&other, "SELECT id FROM only_here").unwrap();
    let refused = server.query("SELECT id FROM only_here").unwrap_err();
    assert!(matches!(&refused, Error::Failed { output, .. } if output.contains("only_here")));

    qudo_test_servers::drop_database(&server.url(), "other").unwrap();
    run_sql(&other, "SELECT 1").unwrap_err();
}

pub(crate) fn takes_as_many_connections_as_asked<E: Engine>() {
    let sql = "SELECT 'max', current_setting('max_connections')";
    let sql = if is_postgres::<E>() { sql } else { "SELECT 'max', @@max_connections" };
    let Some(server) = server::<E>(Options::default()) else {
        return;
    };
    assert!(server.query(sql).unwrap().ends_with("200"));
    let options = Options { max_connections: Some(31), ..Options::default() };
    let Some(server) = self::server::<E>(options) else {
        return;
    };
    assert!(server.query(sql).unwrap().ends_with("31"));
}

pub(crate) fn a_kill_ends_backends_in_mid_query_and_loses_no_commit<E: Engine>() {
    let options = Options { durable: true, ..Options::default() };
    let Some(server) = server::<E>(options) else {
        return;
    };
    server.query("CREATE TABLE kept (id INT)").unwrap();
    for round in 1..=3 {
        server.query("INSERT INTO kept VALUES (1)").unwrap();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| server.query(&sleep_sql::<E>(600)));
            wait_until(|| sleepers(&server) == "1");
            server.kill().unwrap();
            assert_eq!(server.processes(), Vec::<u32>::new());
            assert_eq!(server.pid(), None);
            sleeper.join().unwrap().unwrap_err();
        });
        assert_eq!(connect(&server).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        server.kill().expect("a second kill changes nothing");
        assert!(matches!(server.pause(), Err(Error::NotRunning { .. })));
        server.restart().unwrap();
        assert_eq!(server.query("SELECT count(*) FROM kept").unwrap(), round.to_string());
    }
}

pub(crate) fn a_stopped_server_starts_again_on_the_same_port<E: Engine>() {
    let Some(server) = server::<E>(Options::default()) else {
        return;
    };
    server.query("CREATE TABLE kept (id INT)").unwrap();
    let (port, pid) = (server.port(), server.pid());
    server.stop().unwrap();
    assert_eq!((server.pid(), server.processes()), (None, Vec::new()));
    server.restart().unwrap();
    assert_eq!(server.query("SELECT count(*) FROM kept").unwrap(), "0");
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    // A restart of a paused server has to resume it first, so that it ends in the clean way.
    server.pause().unwrap();
    server.restart().unwrap();
    assert_eq!(server.query("SELECT count(*) FROM kept").unwrap(), "0");
}

pub(crate) fn a_paused_server_is_silent_until_it_is_resumed<E: Engine>() {
    let Some(server) = server::<E>(Options::default()) else {
        return;
    };
    let (from_client, answer) = mpsc::channel();
    thread::scope(|scope| {
        // One client is served when the pause comes, another calls a server that is paused.
        let to_test = from_client.clone();
        let server = &server;
        scope.spawn(move || {
            to_test.send(server.query(&sleep_sql::<E>(1))).unwrap();
        });
        wait_until(|| sleepers(server) == "1");
        server.pause().unwrap();
        scope.spawn(move || from_client.send(server.query("SELECT 1")).unwrap());
        connect(server).expect("the kernel still accepts connections");
        let early = answer.recv_timeout(Duration::from_secs(1) + A_WHILE);
        server.resume().unwrap();
        assert!(early.is_err(), "a paused server answered {early:?}");
        for _ in 0..2 {
            answer.recv_timeout(SOON).unwrap().unwrap();
        }
    });
}

pub(crate) fn a_panic_leaves_neither_process_nor_directory_even_of_a_paused_server<E: Engine>() {
    let mut remains: Option<(PathBuf, Vec<u32>)> = None;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        let Some(server) = server::<E>(Options::default()) else {
            return;
        };
        remains = Some((directory(&server), server.processes()));
        server.pause().unwrap();
        // Unlike `panic!`, this prints no report that would look like a failure.
        panic::resume_unwind(Box::new(()));
    }));
    let Some((directory, processes)) = remains else {
        return;
    };
    assert!(outcome.is_err());
    assert!(!directory.exists(), "{} is left", directory.display());
    assert!(!processes.is_empty());
    for pid in processes {
        assert!(!works_in(pid, &directory), "process {pid} is left");
    }
}

pub(crate) fn two_servers_live_side_by_side<E: Engine>() {
    let Some(one) = server::<E>(Options::default()) else {
        return;
    };
    let Some(two) = server::<E>(Options::default()) else {
        return;
    };
    assert_ne!(one.port(), two.port());
    one.kill().unwrap();
    assert_eq!(two.query("SELECT 1").unwrap(), "1");
}

pub(crate) fn a_server_that_does_not_start_shows_its_log<E: Engine>() {
    if !can_start(E::SHORT) {
        return;
    }
    let settings = vec!["no_such_setting=1".to_owned()];
    let error = Server::<E>::start(Options { settings, ..Options::default() }).unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

/// A started server, or `None` when this run is not about the engine.
fn server<E: Engine>(options: Options) -> Option<Server<E>> {
    can_start(E::SHORT).then(|| Server::start(options).unwrap_or_else(|error| panic!("{error}")))
}

fn is_postgres<E: Engine>() -> bool {
    E::NAME == "PostgreSQL"
}

fn sleep_sql<E: Engine>(seconds: u32) -> String {
    if is_postgres::<E>() {
        format!("SELECT pg_sleep({seconds})")
    } else {
        format!("SELECT SLEEP({seconds})")
    }
}

/// How many clients of the server are asleep in [`sleep_sql`].
fn sleepers<E: Engine>(server: &Server<E>) -> String {
    let sql = if is_postgres::<E>() {
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    } else {
        "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'"
    };
    server.query(sql).unwrap()
}

fn connect<E: Engine>(server: &Server<E>) -> std::io::Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", server.port()))
}

/// The server's own directory, which is above the working directory of its main process.
fn directory<E: Engine>(server: &Server<E>) -> PathBuf {
    let pid = server.pid().unwrap();
    let data = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    data.parent().unwrap().to_path_buf()
}

/// Whether the process works in the directory, by the name that it had.
fn works_in(pid: u32, directory: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory))
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "nothing happened within {SOON:?}");
    }
}
