//! Whether a server answers at all, found out with limits on every step.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use qudo_core::driver::{DriverError, ErrorKind};
use url::Url;

/// How long the server may take to accept, and then to say its first word.
const LIMIT: Duration = Duration::from_secs(3);

/// The question whether PostgreSQL speaks TLS, which every server answers before anything else.
#[cfg(feature = "postgres")]
pub(crate) const POSTGRES_HELLO: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

/// Where a server listens.
pub(crate) enum Server {
    /// At a host's port.
    Port(String, u16),
    /// At a file.
    Socket(PathBuf),
    /// Wherever the client library finds it.
    Elsewhere,
}

impl Server {
    /// The server of a data source name.
    pub(crate) fn of(url: &Url, default_port: u16) -> Self {
        let socket = url.query_pairs().find(|(key, _)| key == "unix_socket");
        if let Some((_, path)) = socket {
            return Self::Socket(PathBuf::from(&*path));
        }
        // PostgreSQL's library takes these also from a parameter.
        let is_postgres = url.scheme().starts_with("postgres");
        let elsewhere = is_postgres
            && url.query_pairs().any(|(key, _)| matches!(&*key, "host" | "hostaddr" | "port"));
        // MySQL takes the name "localhost" for its socket, which the library finds by itself.
        let socket = |host: &str| !is_postgres && host == "localhost";
        let host = url.host_str();
        let host = host.filter(|host| !elsewhere && !socket(host) && !host.contains(['%', ',']));
        host.map_or(Self::Elsewhere, |host| {
            let host = host.trim_matches(['[', ']']).to_owned();
            Self::Port(host, url.port().unwrap_or(default_port))
        })
    }

    /// Connects, says hello and waits for one byte. A server that was stopped or cannot be reached
    /// any more shows itself here, where no library waits for ever on a thread that would be lost.
    #[cfg(feature = "postgres")]
    pub(crate) fn answers(&self, hello: &[u8]) -> Result<(), DriverError> {
        let Some(mut stream) = self.connect(LIMIT)? else { return Ok(()) };
        let heard = stream.write_all(hello).and_then(|()| stream.read_exact(&mut [0]));
        heard.map_err(|error| self.silent(error))
    }

    /// A connection on which the server is waited for as long as there is patience; `None` where only the client
    /// library finds the server.
    pub(crate) fn connect(
        &self,
        patience: Duration,
    ) -> Result<Option<Box<dyn Stream>>, DriverError> {
        let down = |what, error| self.down(what, error);
        let patience = Some(patience);
        let (host, port) = match self {
            Self::Port(host, port) => (host, port),
            // The kernel takes the connection for the server, up to the length of its queue; then the
            // library would wait for it.
            #[cfg(unix)]
            Self::Socket(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path);
                let stream = stream.map_err(|error| down("does not accept", error))?;
                let set = stream.set_read_timeout(patience);
                let set = set.and_then(|()| stream.set_write_timeout(patience));
                set.map_err(|error| down("cannot be waited for", error))?;
                return Ok(Some(Box::new(stream)));
            }
            _ => return Ok(None),
        };
        let addresses = (host.as_str(), *port).to_socket_addrs();
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in addresses.map_err(|error| down("is not found", error))? {
            match TcpStream::connect_timeout(&address, LIMIT) {
                Ok(stream) => {
                    let set = stream.set_read_timeout(patience);
                    let set = set.and_then(|()| stream.set_write_timeout(patience));
                    set.map_err(|error| down("cannot be waited for", error))?;
                    return Ok(Some(Box::new(stream)));
                }
                Err(error) => last = error,
            }
        }
        Err(down("does not accept", last))
    }

    /// The error of a conversation that the server, or nobody, ended.
    pub(crate) fn silent(&self, error: std::io::Error) -> DriverError {
        self.down(SILENT, error)
    }

    fn down(&self, what: &str, error: std::io::Error) -> DriverError {
        let message = format!("could not connect: {self} {what}: {error}");
        DriverError::new(ErrorKind::Down, message).with_source(error)
    }
}

const SILENT: &str = "accepts but does not answer";

/// A connection to a server.
pub(crate) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Elsewhere => f.write_str("the server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn server(port: u16) -> Server {
        let url = Url::parse(&format!("mysql://u@127.0.0.1:{port}/d")).expect("parses");
        Server::of(&url, 3306)
    }

    /// Waits for the first byte.
    fn first_byte(server: &Server) -> Result<Option<()>, DriverError> {
        let Some(mut stream) = server.connect(LIMIT)? else { return Ok(None) };
        stream.read_exact(&mut [0]).map(Some).map_err(|error| server.silent(error))
    }

    #[test]
    fn a_server_that_accepts_and_says_nothing_is_told_from_one_that_speaks() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let error = first_byte(&server(port)).expect_err("silent");
        assert!(error.is_down() && error.to_string().contains(SILENT), "{error:?}");
        let speaks = std::thread::spawn(move || {
            // The first connection is the one of the question above.
            for stream in listener.incoming().take(2).flatten() {
                let _ = (&stream).write_all(b"hello");
            }
        });
        assert_eq!(first_byte(&server(port)).expect("speaks"), Some(()));
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
            assert_eq!(first_byte(&server).expect("not asked"), None);
        }
    }
}
