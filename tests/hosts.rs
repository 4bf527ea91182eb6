//! MySQL and MariaDB shut out a host after `max_connect_errors` broken handshakes in a row, until somebody
//! unblocks it. A data source of qudo breaks off one handshake at most before a login of its own succeeds again.

#![cfg(feature = "mysql")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use qudo::driver::{Driver, DriverRegistration};
use qudo_test_servers::{Certificates, Engine, Mariadb, Mysql, Options, Proxy, Server, takes_part};

const DEADLINE: Duration = Duration::from_secs(120);

/// An address of this machine that is another host to the server, which counts for no errors of 127.0.0.1.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// So many broken handshakes are too many; 100 by default.
const FEW: usize = 3;

fn open(dsn: &str) -> Arc<dyn Driver> {
    DriverRegistration::open_linked(dsn).expect("valid").driver
}

/// MariaDB's plugin, where it is installed. MySQL has none.
fn has_ed25519<E: Engine>(server: &Server<E>) -> bool {
    let has = server.query("INSTALL SONAME 'auth_ed25519'").is_ok();
    println!("{}: ed25519 {}", server.version(), if has { "is there" } else { "is not there" });
    has
}

fn no_host_is_shut_out<E: Engine>() {
    if !takes_part(E::SHORT) {
        return;
    }
    let certificates = Certificates::new(&["mysql", "nobody"]).expect("makes");
    let authority = certificates.authority("ours").expect("makes");
    let pair = authority.give("right", &["127.0.0.1"]).expect("gives");
    let settings = vec![
        format!("ssl-ca={}", authority.certificate().display()),
        format!("ssl-cert={}", pair.certificate.display()),
        format!("ssl-key={}", pair.key.display()),
        format!("max-connect-errors={FEW}"),
        // Without names there is no cache of hosts, and nobody is counted.
        "skip-name-resolve=OFF".to_owned(),
    ];
    let server: Server<E> =
        Server::start(Options { settings, ..Options::default() }).expect("starts");
    server.query("CREATE USER clerk@'%' IDENTIFIED BY 'secret'").expect("makes");
    server.query("GRANT ALL ON qudo_test.* TO clerk@'%'").expect("grants");
    let proxy = Proxy::start_from(HOST, server.port()).expect("starts");
    let dsn = |password: &str, more: &str| {
        format!("mysql://clerk:{password}@127.0.0.1:{}/qudo_test{more}", proxy.port())
    };
    let tls = format!("?ssl_ca={}", authority.certificate().display());
    let is_let_in = |more: &str| open(&dsn("secret", more)).probe().expect("is let in");

    // As many programs try for long, because somebody has changed the password.
    let tries_in_vain = |driver: &dyn Driver| {
        let (begun, mut denied) = (Instant::now(), 0);
        while denied < 5 * FEW {
            let error = driver.probe().expect_err("refused").to_string();
            denied += usize::from(error.contains("Access denied"));
            assert!(!error.contains("blocked") && begun.elapsed() < DEADLINE, "{error}");
        }
    };
    for more in ["", &tls] {
        is_let_in(more);
        tries_in_vain(&*open(&dsn("wrong", more)));
        is_let_in(more);
        // One that was let in before.
        let driver = open(&dsn("secret", more));
        driver.probe().expect("is let in");
        server.query("ALTER USER clerk@'%' IDENTIFIED BY 'other'").expect("changes");
        tries_in_vain(&*driver);
        server.query("ALTER USER clerk@'%' IDENTIFIED BY 'secret'").expect("changes");
        driver.probe().expect("is let in again");
    }
    if has_ed25519(&server) {
        // To a name that nobody has MariaDB answers as to one of its accounts; now most are such.
        for number in 0..100 {
            let sql = format!(
                "CREATE USER e{number} IDENTIFIED VIA ed25519 USING PASSWORD('secret{number}')"
            );
            server.query(&sql).expect("makes");
        }
        tries_in_vain(&*open(&dsn("wrong", &tls)));
        is_let_in(&tls);
    }

    // A server that is stopped finds everybody in its queue when it goes on.
    server.pause().expect("pauses");
    std::thread::scope(|scope| {
        for more in ["", &tls] {
            for _ in 0..2 * FEW {
                let driver = open(&dsn("secret", more));
                // The third finds two that hang, and looks.
                scope.spawn(move || {
                    for _ in 0..3 {
                        driver.probe().expect_err("stopped");
                    }
                });
            }
        }
    });
    server.resume().expect("resumes");
    let begun = Instant::now();
    while let Err(error) = open(&dsn("secret", &tls)).probe() {
        assert!(!error.to_string().contains("blocked"), "{error}");
        assert!(begun.elapsed() < DEADLINE, "{error}");
    }

    // This is what the server shuts out a host for. It counts a moment later, and a login that succeeds before
    // that sets the count back.
    let begun = Instant::now();
    loop {
        for _ in 0..2 * FEW {
            let stream = TcpStream::connect(("127.0.0.1", proxy.port()));
            stream.expect("connects").read_exact(&mut [0; 8]).expect("greets");
        }
        match open(&dsn("secret", "")).probe() {
            Err(error) if error.to_string().contains("blocked") => break,
            other => assert!(begun.elapsed() < DEADLINE, "{other:?}"),
        }
    }
}

#[test]
fn no_host_is_shut_out_by_mariadb() {
    no_host_is_shut_out::<Mariadb>();
}

#[test]
fn no_host_is_shut_out_by_mysql() {
    no_host_is_shut_out::<Mysql>();
}
