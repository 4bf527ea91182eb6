//! Whether a server answers at all, found out with limits on every step.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use qudo_core::driver::{DriverError, ErrorKind};
use url::Url;

/// How long the server may take to accept, and then to say its first word.
const LIMIT: Duration = Duration::from_secs(3);

/// The question whether PostgreSQL speaks TLS, which every server answers before anything else.
pub(crate) const POSTGRES_HELLO: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

/// Where a server listens; `None` when it is not a TCP port.
pub(crate) struct Server(Option<(String, u16)>);

impl Server {
    /// The server of a data source name.
    pub(crate) fn of(url: &Url, default_port: u16) -> Self {
        // A host in a parameter, or a path of a socket, is left to the library.
        let elsewhere = url
            .query_pairs()
            .any(|(key, _)| matches!(&*key, "host" | "hostaddr" | "port" | "unix_socket"));
        // MySQL takes the name "localhost" for its socket, which the library finds by itself.
        let socket = |host: &str| !url.scheme().starts_with("postgres") && host == "localhost";
        let host = url.host_str();
        let host = host.filter(|host| !elsewhere && !socket(host) && !host.contains(['%', ',']));
        Self(host.map(|host| {
            (host.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(default_port))
        }))
    }

    /// Connects, says hello and waits for one byte. A server that was stopped or cannot be reached
    /// any more shows itself here, where no library waits for ever on a thread that would be lost.
    pub(crate) fn answers(&self, hello: &[u8]) -> Result<(), DriverError> {
        let Some((host, port)) = &self.0 else { return Ok(()) };
        let down = |what: &str, error: std::io::Error| {
            let message = format!("could not connect: {host}:{port} {what}: {error}");
            DriverError::new(ErrorKind::Down, message).with_source(error)
        };
        let addresses = (host.as_str(), *port).to_socket_addrs();
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in addresses.map_err(|error| down("is not found", error))? {
            match TcpStream::connect_timeout(&address, LIMIT) {
                Ok(stream) => {
                    return first_word(stream, hello)
                        .map_err(|error| down("accepts but does not answer", error));
                }
                Err(error) => last = error,
            }
        }
        Err(down("does not accept", last))
    }
}

fn first_word(mut stream: TcpStream, hello: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(hello)?;
    stream.read_exact(&mut [0])
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn server(port: u16) -> Server {
        let url = Url::parse(&format!("mysql://u@127.0.0.1:{port}/d")).expect("parses");
        Server::of(&url, 3306)
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_told_from_one_that_speaks() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let error = server(port).answers(&[]).expect_err("silent");
        assert!(error.is_down(), "{error}");
        let speaks = std::thread::spawn(move || {
            // The first connection is the one of the question above.
            for stream in listener.incoming().take(2).flatten() {
                let _ = (&stream).write_all(b"hello");
            }
        });
        server(port).answers(&[]).expect("speaks");
        speaks.join().expect("ends");
    }

    #[test]
    fn sockets_and_hosts_in_parameters_are_left_to_the_library() {
        for url in [
            "postgres://u@%2Frun%2Fpostgresql/d",
            "postgres:///d?host=/run",
            "mysql://u@localhost/d",
        ] {
            let server = Server::of(&Url::parse(url).expect("parses"), 1);
            server.answers(&[]).expect("not asked");
        }
    }
}
