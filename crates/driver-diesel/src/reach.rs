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

/// A server's greeting is shorter, in bytes.
#[cfg(feature = "mysql")]
const LONGEST_GREETING: u32 = 1_024;

/// The question whether PostgreSQL speaks TLS, which every server answers before anything else.
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
        // A host in a parameter, or a path of a socket, is left to the library.
        let elsewhere =
            url.query_pairs().any(|(key, _)| matches!(&*key, "host" | "hostaddr" | "port"));
        // MySQL takes the name "localhost" for its socket, which the library finds by itself.
        let socket = |host: &str| !url.scheme().starts_with("postgres") && host == "localhost";
        let host = url.host_str();
        let host = host.filter(|host| !elsewhere && !socket(host) && !host.contains(['%', ',']));
        host.map_or(Self::Elsewhere, |host| {
            let host = host.trim_matches(['[', ']']).to_owned();
            Self::Port(host, url.port().unwrap_or(default_port))
        })
    }

    /// Connects, says hello and waits for one byte. A server that was stopped or cannot be reached
    /// any more shows itself here, where no library waits for ever on a thread that would be lost.
    pub(crate) fn answers(&self, hello: &[u8]) -> Result<(), NoAnswer> {
        self.hear(hello, |stream| stream.read_exact(&mut [0])).map(drop)
    }

    /// The first packet of a MySQL server without its head; `None` where the client library finds the server.
    #[cfg(feature = "mysql")]
    pub(crate) fn greeting(&self) -> Result<Option<Vec<u8>>, NoAnswer> {
        self.hear(&[], |stream| {
            // Three bytes of length and one that counts packets.
            let mut head = [0; 4];
            stream.read_exact(&mut head)?;
            let [low, middle, high, _] = head;
            let length = u32::from_le_bytes([low, middle, high, 0]);
            if length > LONGEST_GREETING {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            let mut packet = vec![0; length as usize];
            stream.read_exact(&mut packet)?;
            Ok(packet)
        })
    }

    /// Connects, says hello and reads; `None` where the client library finds the server.
    fn hear<T>(
        &self,
        hello: &[u8],
        read: impl FnOnce(&mut dyn Read) -> std::io::Result<T>,
    ) -> Result<Option<T>, NoAnswer> {
        let failed = |what: &str, error: std::io::Error| {
            let message = format!("could not connect: {self} {what}: {error}");
            DriverError::new(ErrorKind::Down, message).with_source(error)
        };
        let down = |what, error| NoAnswer { error: failed(what, error), was_accepted: false };
        let silent = |error| {
            let error = failed("accepts but does not answer", error);
            NoAnswer { error, was_accepted: true }
        };
        let (host, port) = match self {
            Self::Port(host, port) => (host, port),
            // The kernel takes the connection for the server, up to the length of its queue; then the
            // library would wait for it.
            #[cfg(unix)]
            Self::Socket(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path);
                let stream = stream.map_err(|error| down("does not accept", error))?;
                let set = stream.set_read_timeout(Some(LIMIT));
                let set = set.and_then(|()| stream.set_write_timeout(Some(LIMIT)));
                let heard = set.and_then(|()| say(stream, hello, read));
                return heard.map(Some).map_err(silent);
            }
            _ => return Ok(None),
        };
        let addresses = (host.as_str(), *port).to_socket_addrs();
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in addresses.map_err(|error| down("is not found", error))? {
            match TcpStream::connect_timeout(&address, LIMIT) {
                Ok(stream) => {
                    let set = stream.set_read_timeout(Some(LIMIT));
                    let set = set.and_then(|()| stream.set_write_timeout(Some(LIMIT)));
                    let heard = set.and_then(|()| say(stream, hello, read));
                    return heard.map(Some).map_err(silent);
                }
                Err(error) => last = error,
            }
        }
        Err(down("does not accept", last))
    }
}

/// Why a server did not say its first word.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    pub(crate) error: DriverError,
    /// It, or its kernel, took the connection: to the server that is a handshake broken off.
    pub(crate) was_accepted: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(host, port) => write!(f, "{host}:{port}"),
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Elsewhere => f.write_str("the server"),
        }
    }
}

fn say<T>(
    mut stream: impl Read + Write,
    hello: &[u8],
    read: impl FnOnce(&mut dyn Read) -> std::io::Result<T>,
) -> std::io::Result<T> {
    stream.write_all(hello)?;
    read(&mut stream)
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
        assert!(error.was_accepted && error.error.is_down(), "{error:?}");
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
