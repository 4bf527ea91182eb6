//! TLS is what the data source name asks for, or there is no connection: with real servers, the right and
//! the wrong certificates, and somebody in between who says that there is no TLS.

#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use qudo::driver::Driver;
use qudo::driver::DriverRegistration;
use qudo::{DataSource, Manager};
use qudo_test_servers::{Certificates, Options, takes_part};

fn open(dsn: &str) -> Result<Arc<dyn Driver>, String> {
    Ok(DriverRegistration::open_linked(dsn)?.driver)
}

/// What somebody in between does to the first thing that is said, by the client and by the server.
#[derive(Clone, Copy)]
struct Strip {
    answer: fn(&[u8]) -> Option<Vec<u8>>,
    greeting: fn(&mut [u8]),
}

/// Stands between a client and the server at this port; answers its own.
fn in_between(server: u16, strip: Strip) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || relay(client, server, strip));
        }
    });
    port
}

fn relay(mut client: TcpStream, server: u16, strip: Strip) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)) else { return };
    let (Ok(mut from), Ok(mut to)) = (server.try_clone(), client.try_clone()) else { return };
    std::thread::spawn(move || {
        let mut bytes = [0; 16_384];
        let mut is_first = true;
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if std::mem::take(&mut is_first) {
                (strip.greeting)(&mut bytes[..count]);
            }
            if to.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let mut bytes = [0; 16_384];
    while let Ok(count @ 1..) = client.read(&mut bytes) {
        let passed = match (strip.answer)(&bytes[..count]) {
            Some(answer) => client.write_all(&answer),
            None => server.write_all(&bytes[..count]),
        };
        if passed.is_err() {
            return;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[cfg(feature = "postgres")]
mod postgres {
    use qudo::driver::Wake;
    use qudo_test_servers::{Pair, PostgresServer};

    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    const USERS: &[&str] = &["postgres", "nobody"];

    fn server(pair: Option<&Pair>, ca: &Path) -> PostgresServer {
        let mut settings = Vec::new();
        if let Some(Pair { certificate, key }) = pair {
            settings.push("ssl=on".to_owned());
            settings.push(format!("ssl_cert_file={}", certificate.display()));
            settings.push(format!("ssl_key_file={}", key.display()));
            settings.push(format!("ssl_ca_file={}", ca.display()));
        }
        PostgresServer::start(Options { settings, ..Options::default() }).expect("starts")
    }

    /// How the server lets clients in.
    fn admit(server: &PostgresServer, lines: &str) {
        let local = "local all all trust";
        let copy = format!(
            "COPY (SELECT unnest(ARRAY[{}])) TO '{}'",
            lines
                .lines()
                .chain([local])
                .map(|line| format!("'{line}'"))
                .collect::<Vec<_>>()
                .join(","),
            server.query("SHOW hba_file").expect("tells").trim()
        );
        server.query(&copy).expect("writes");
        server.query("SELECT pg_reload_conf()").expect("loads");
    }

    /// Whether a connection of this name is encrypted; `None` when there is none.
    fn is_encrypted(port: u16, name: &str) -> Option<bool> {
        let url = format!("postgres://qudo@127.0.0.1:{port}/qudo_test");
        let sql = format!(
            "SELECT max(ssl::int) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
             WHERE application_name = '{name}'"
        );
        match qudo_test_servers::run_sql(&url, &sql).expect("tells").trim() {
            "1" => Some(true),
            "0" => Some(false),
            _ => None,
        }
    }

    /// How the pool's connection and the listening one came about: encrypted, plain, or not at all.
    #[derive(Debug, PartialEq, Eq)]
    struct Outcome {
        pool: Option<bool>,
        listener: Option<bool>,
    }

    impl Outcome {
        const fn both(one: Option<bool>) -> Self {
            Self { pool: one, listener: one }
        }
    }

    fn outcome(direct: u16, dsn: &str) -> Outcome {
        let dsn = format!("{dsn}&application_name=qudo%20pool");
        let driver = open(&dsn).ok();
        let Some(driver) = driver else { return Outcome::both(None) };
        let pool = driver.schema().ok().and_then(|_| is_encrypted(direct, "qudo pool"));
        let mut listener = None;
        let _ended = driver.listen(&mut |wake| {
            if matches!(wake, Wake::Connected) {
                listener = is_encrypted(direct, "qudo listener");
            }
            false
        });
        Outcome { pool, listener }
    }

    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

    /// What each mode leads to, in the order of [`MODES`]: the same for both libraries.
    fn each_mode(direct: u16, port: u16, more: &str, expected: [Option<bool>; 6]) {
        for (mode, expected) in MODES.iter().zip(expected) {
            let dsn = format!("postgres://qudo@localhost:{port}/qudo_test?sslmode={mode}{more}");
            assert_eq!(outcome(direct, &dsn), Outcome::both(expected), "{mode} {more}");
        }
    }

    const PLAIN: Option<bool> = Some(false);
    const TLS: Option<bool> = Some(true);
    const NONE: Option<bool> = None;

    #[test]
    fn every_sslmode_means_the_same_to_the_pool_and_to_the_listener() {
        if !takes_part("postgres") {
            return;
        }
        let certificates = Certificates::new(USERS).expect("makes");
        let authority = certificates.authority("ours").expect("makes");
        let ca = authority.certificate();
        let stranger = certificates.authority("stranger").expect("makes");
        let right = authority.give("right", &["localhost", "127.0.0.1"]).expect("gives");
        let other = authority.give("other", &["db.example"]).expect("gives");
        let ours = format!("&sslrootcert={}", ca.display());
        let unknown = format!("&sslrootcert={}", stranger.certificate().display());

        let server = self::server(Some(&right), ca);
        let port = server.port();
        each_mode(port, port, &ours, [PLAIN, PLAIN, TLS, TLS, TLS, TLS]);
        each_mode(port, port, "", [PLAIN, PLAIN, TLS, TLS, NONE, NONE]);
        each_mode(port, port, &unknown, [PLAIN, PLAIN, PLAIN, NONE, NONE, NONE]);

        let says_no = |asked: &[u8]| (asked == [0, 0, 0, 8, 4, 210, 22, 47]).then(|| b"N".to_vec());
        let strips = in_between(port, Strip { answer: says_no, greeting: |_| {} });
        each_mode(port, strips, &ours, [PLAIN, PLAIN, PLAIN, NONE, NONE, NONE]);

        drop(server);

        let server = self::server(Some(&other), ca);
        let port = server.port();
        each_mode(port, port, &ours, [PLAIN, PLAIN, TLS, TLS, TLS, NONE]);
        drop(server);

        let server = self::server(None, ca);
        let port = server.port();
        each_mode(port, port, &ours, [PLAIN, PLAIN, PLAIN, NONE, NONE, NONE]);
    }

    /// As managed servers are set up.
    #[test]
    fn a_server_that_demands_tls_a_password_or_a_certificate_is_listened_at() {
        if !takes_part("postgres") {
            return;
        }
        let certificates = Certificates::new(USERS).expect("makes");
        let authority = certificates.authority("ours").expect("makes");
        let ca = authority.certificate();
        let right = authority.give("right", &["localhost"]).expect("gives");
        let client = authority.give("clerk", &["clerk"]).expect("gives");
        let server = self::server(Some(&right), ca);
        let port = server.port();
        server
            .query("SET password_encryption = 'scram-sha-256'; CREATE ROLE clerk LOGIN PASSWORD 'p%:ss'")
            .expect("makes");
        admit(
            &server,
            "host all qudo 127.0.0.1/32 trust\nhostssl all clerk all scram-sha-256\nhost all clerk all reject",
        );
        let dsn = |login: &str, more: &str| {
            format!(
                "postgres://{login}@localhost:{port}/qudo_test?sslrootcert={}{more}",
                ca.display()
            )
        };
        let full = "&sslmode=verify-full";
        assert_eq!(outcome(port, &dsn("clerk:p%25%3Ass", full)), Outcome::both(TLS));
        assert_eq!(outcome(port, &dsn("clerk:p%25%3Ass", "&sslmode=disable")), Outcome::both(NONE));
        assert_eq!(outcome(port, &dsn("clerk:p%25%3Ass", "&sslmode=allow")), Outcome::both(TLS));
        assert_eq!(outcome(port, &dsn("clerk:wrong", full)), Outcome::both(NONE));
        let bound = "&sslmode=verify-full&channel_binding=require";
        assert_eq!(outcome(port, &dsn("clerk:p%25%3Ass", bound)), Outcome::both(TLS));

        // An address, with a host that is none.
        for host in ["", "host=/tmp&"] {
            for mode in ["prefer", "require"] {
                let dsn = format!(
                    "postgres:///qudo_test?user=qudo&{host}hostaddr=127.0.0.1&port={port}&sslmode={mode}"
                );
                assert_eq!(outcome(port, &dsn), Outcome::both(TLS), "{dsn}");
            }
        }

        // The password in a file, by libpq's rules and by ours.
        let place = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = place.path().join(name);
            std::fs::write(&path, text).expect("writes");
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("guards");
            path.display().to_string()
        };
        let passfile = write("pgpass", "*:*:other:clerk:wrong\n*:*:qudo_test:clerk:p%\\:ss\n");
        let from_passfile = format!("{full}&passfile={passfile}");
        assert_eq!(outcome(port, &dsn("clerk", &from_passfile)), Outcome::both(TLS));
        let secret = write("secret", "p%:ss\n");
        let from_file = format!("{full}&password_file={secret}");
        assert_eq!(outcome(port, &dsn("clerk", &from_file)), Outcome::both(TLS));

        // A certificate instead of a password.
        admit(&server, "host all qudo 127.0.0.1/32 trust\nhostssl all clerk all cert");
        let shown = format!(
            "{full}&sslcert={}&sslkey={}",
            client.certificate.display(),
            client.key.display()
        );
        assert_eq!(outcome(port, &dsn("clerk", &shown)), Outcome::both(TLS));
        assert_eq!(outcome(port, &dsn("clerk", full)), Outcome::both(NONE));
    }

    /// Each notification is heard before the next is sent. `--nocapture` shows how soon that is.
    #[test]
    fn what_is_said_is_heard_over_tls_as_it_is_without() {
        const SOON: Duration = Duration::from_secs(20);
        const NOTIFICATIONS: usize = 300;
        if !takes_part("postgres") {
            return;
        }
        let certificates = Certificates::new(USERS).expect("makes");
        let authority = certificates.authority("ours").expect("makes");
        let ca = authority.certificate();
        let right = authority.give("right", &["localhost"]).expect("gives");
        let server = self::server(Some(&right), ca);
        let port = server.port();
        let plain = format!("host=127.0.0.1 port={port} user=qudo dbname=qudo_test");
        let mut client = ::postgres::Client::connect(&plain, ::postgres::NoTls).expect("connects");
        for mode in ["disable", "verify-full"] {
            let root = ca.display();
            let dsn = format!(
                "postgres://qudo@localhost:{port}/qudo_test?sslmode={mode}&sslrootcert={root}"
            );
            let driver = open(&dsn).expect("opens");
            let (tell, hear) = mpsc::channel();
            let listening = std::thread::spawn(move || {
                let _ended = driver.listen(&mut |wake| match wake {
                    Wake::Tick => true,
                    other => tell.send(other).is_ok(),
                });
            });
            assert!(matches!(hear.recv_timeout(SOON), Ok(Wake::Connected)), "{mode}");
            assert_eq!(is_encrypted(port, "qudo listener"), Some(mode != "disable"));
            let once = |_| {
                let begun = Instant::now();
                client.batch_execute("NOTIFY qudo, 'mail'").expect("notifies");
                let heard = hear.recv_timeout(SOON);
                assert!(matches!(heard, Ok(Wake::Queue(ref queue)) if queue == "mail"), "{mode}");
                begun.elapsed()
            };
            let mut took: Vec<_> = (0..NOTIFICATIONS).map(once).collect();
            took.sort_unstable();
            println!("{mode}: median {:?}, the longest {:?}", took[NOTIFICATIONS / 2], took.last());
            drop(hear);
            client.batch_execute("NOTIFY qudo, 'end'").expect("notifies");
            listening.join().expect("ends");
        }
    }

    #[test]
    fn a_password_is_changed_while_a_program_works() {
        if !takes_part("postgres") {
            return;
        }
        let server = self::server(None, Path::new(""));
        server.query("CREATE ROLE clerk SUPERUSER LOGIN PASSWORD 'first'").expect("makes");
        admit(&server, "host all qudo all trust\nhost all clerk all scram-sha-256");
        let now = Arc::new(std::sync::Mutex::new("first".to_owned()));
        let asked = Arc::clone(&now);
        let dsn = format!("postgres://clerk:ignored@127.0.0.1:{}/qudo_test", server.port());
        let source =
            DataSource::new(dsn).password(move || Ok(asked.lock().expect("no panic").clone()));
        super::changes_its_password(source, || {
            server.query("ALTER ROLE clerk PASSWORD 'second'").expect("changes");
            "second".clone_into(&mut *now.lock().expect("no panic"));
            server
                .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'clerk'")
                .expect("ends");
        });
    }
}

/// Works before and after the password and the connections are changed.
fn changes_its_password(source: DataSource, change: impl FnOnce()) {
    let manager = Manager::builder().linked(false).database(source).retry_seconds(1).build();
    let manager = manager.expect("valid");
    manager.migrate().expect("migrates");
    manager.enqueue(qudo::NewJob::named("before", 1.into())).expect("stored");
    change();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while manager.enqueue(qudo::NewJob::named("after", 2.into())).is_err() {
        assert!(std::time::Instant::now() < deadline, "{:?}", manager.database_reports());
        std::thread::yield_now();
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use qudo_test_servers::{Engine, Pair, Server};

    use super::*;

    const USERS: &[&str] = &["mysql", "nobody"];

    fn settings(pair: &Pair, ca: &Path) -> Options {
        let settings = vec![
            format!("ssl-ca={}", ca.display()),
            format!("ssl-cert={}", pair.certificate.display()),
            format!("ssl-key={}", pair.key.display()),
        ];
        Options { settings, ..Options::default() }
    }

    /// Whether there is a connection with these parameters, and why not.
    fn connects(port: u16, parameters: &str) -> Result<(), String> {
        let dsn = format!("mysql://qudo:secret@127.0.0.1:{port}/qudo_test?{parameters}");
        open(&dsn)?.schema().map(drop).map_err(|error| error.to_string())
    }

    /// The greeting says what the server can do behind its version; one bit is that it can do TLS.
    fn hides_tls(greeting: &mut [u8]) {
        let version = greeting.iter().skip(5).position(|byte| *byte == 0).map(|at| at + 5);
        if let Some(high) = version.map(|end| end + 1 + 4 + 8 + 1 + 1)
            && high < greeting.len()
        {
            greeting[high] &= !0x08;
        }
    }

    fn tls_is_what_was_asked_for<E: Engine>() {
        if !takes_part(E::SHORT) {
            return;
        }
        let certificates = Certificates::new(USERS).expect("makes");
        let authority = certificates.authority("ours").expect("makes");
        let ca = authority.certificate();
        let stranger = certificates.authority("stranger").expect("makes");
        let right = authority.give("right", &["localhost", "127.0.0.1"]).expect("gives");
        let server: Server<E> = Server::start(settings(&right, ca)).expect("starts");
        let port = server.port();
        let (ours, unknown) = (
            format!("ssl_ca={}", ca.display()),
            format!("ssl_ca={}", stranger.certificate().display()),
        );
        connects(port, "").expect("nothing is asked for");
        for mode in ["", "&ssl_mode=required", "&ssl_mode=verify_ca"] {
            connects(port, &format!("{ours}{mode}")).expect("is encrypted");
            connects(port, &format!("{unknown}{mode}")).expect_err("another authority");
        }
        // This account can do nothing else.
        server.query("CREATE USER clerk@'%' IDENTIFIED BY 'secret' REQUIRE SSL").expect("makes");
        server.query("GRANT ALL ON qudo_test.* TO clerk@'%'").expect("grants");
        let dsn = format!("mysql://clerk:secret@127.0.0.1:{port}/qudo_test");
        open(&dsn).expect("opens").schema().expect_err("is not encrypted");
        open(&format!("{dsn}?{ours}")).expect("opens").schema().expect("is encrypted");
        // As it is built here, with MariaDB's client library.
        connects(port, "ssl_mode=required").expect_err("refused by name");
        let error =
            connects(port, &format!("{ours}&ssl_mode=verify_identity")).expect_err("refused");
        assert!(error.contains("verify_identity"), "{error}");

        let strips = in_between(port, Strip { answer: |_| None, greeting: hides_tls });
        for mode in ["", "&ssl_mode=required", "&ssl_mode=verify_ca"] {
            let error = connects(strips, &format!("{ours}{mode}")).expect_err("somebody says no");
            assert!(error.contains("not be encrypted"), "{error}");
        }
        connects(strips, "ssl_mode=preferred").expect("nothing is demanded");
        drop(server);

        let none = if E::SHORT == "mysql" {
            Options { settings: vec!["tls-version=".into()], ..Options::default() }
        } else {
            Options::default()
        };
        let server: Server<E> = Server::start(none).expect("starts");
        for mode in ["", "&ssl_mode=required", "&ssl_mode=verify_ca"] {
            let error = connects(server.port(), &format!("{ours}{mode}")).expect_err("no TLS");
            assert!(error.contains("not be encrypted"), "{error}");
        }
        connects(server.port(), "ssl_mode=preferred").expect("nothing is demanded");
    }

    #[test]
    fn tls_is_what_was_asked_for_on_mariadb() {
        tls_is_what_was_asked_for::<qudo_test_servers::Mariadb>();
    }

    #[test]
    fn tls_is_what_was_asked_for_on_mysql() {
        tls_is_what_was_asked_for::<qudo_test_servers::Mysql>();
    }

    fn a_password_is_changed_while_a_program_works<E: Engine>() {
        if !takes_part(E::SHORT) {
            return;
        }
        let server: Server<E> = Server::start(Options::default()).expect("starts");
        server.query("CREATE USER clerk@'%' IDENTIFIED BY 'first'").expect("makes");
        server.query("GRANT ALL ON qudo_test.* TO clerk@'%'").expect("grants");
        let place = tempfile::tempdir().expect("a temporary directory");
        let file = place.path().join("password");
        std::fs::write(&file, "first\n").expect("writes");
        let dsn = format!(
            "mysql://clerk@127.0.0.1:{}/qudo_test?password_file={}",
            server.port(),
            file.display()
        );
        changes_its_password(DataSource::new(dsn), || {
            server.query("ALTER USER clerk@'%' IDENTIFIED BY 'second'").expect("changes");
            std::fs::write(&file, "second\n").expect("writes");
            let ids = server
                .query("SELECT id FROM information_schema.processlist WHERE user = 'clerk'")
                .expect("lists");
            for id in ids.split_whitespace().filter(|id| id.parse::<u64>().is_ok()) {
                server.query(&format!("KILL {id}")).expect("ends");
            }
        });
    }

    #[test]
    fn a_password_is_changed_while_a_program_works_on_mariadb() {
        a_password_is_changed_while_a_program_works::<qudo_test_servers::Mariadb>();
    }

    #[test]
    fn a_password_is_changed_while_a_program_works_on_mysql() {
        a_password_is_changed_while_a_program_works::<qudo_test_servers::Mysql>();
    }
}
