use std::net::{Ipv4Addr, TcpListener};

use crate::Error;

/// Ports below the range from which Linux takes the local end of outgoing connections.
///
/// A port inside that range could be taken by any client while the server is down between a kill
/// and a restart. Worse, a client that tries again and again to reach the dead server could be
/// given the very port it calls, and connect to itself.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// How many ports are tried before giving up.
const TRIES: u32 = 200;

/// A port of 127.0.0.1 that no other test on this machine is given while this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _claim: claim::Claim,
}

impl Port {
    /// Takes a random port that is free now.
    pub(crate) fn reserve() -> Result<Self, Error> {
        for _ in 0..TRIES {
            let number = fastrand::u16(PORTS);
            let Some(claim) = claim::take(number)? else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _claim: claim });
            }
        }
        Err(Error::NoPort { tries: TRIES })
    }

    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

/// The sign to other test processes that a port has its user.
///
/// The port itself must stay unbound for the server, so the sign is a socket in the abstract
/// namespace named after the port: it needs no file and vanishes with the process that holds it.
#[cfg(target_os = "linux")]
mod claim {
    use std::io::ErrorKind;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use crate::Error;

    pub(super) type Claim = UnixListener;

    /// Claims the port, or answers `None` when another process has.
    pub(super) fn take(number: u16) -> Result<Option<Claim>, Error> {
        let name = format!("qudo-test-port-{number}");
        let address = SocketAddr::from_abstract_name(name).map_err(Error::system("name a port"))?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(Error::system("claim a port")(error)),
        }
    }
}

/// Elsewhere the random choice alone keeps test processes apart.
#[cfg(not(target_os = "linux"))]
mod claim {
    use crate::Error;

    pub(super) type Claim = ();

    #[expect(clippy::unnecessary_wraps, reason = "the signature is that of the claim on Linux")]
    pub(super) fn take(_number: u16) -> Result<Option<Claim>, Error> {
        Ok(Some(()))
    }
}

#[cfg(test)]
mod tests {
    use super::{PORTS, Port, claim};

    #[test]
    fn a_reserved_port_is_free_for_the_server_and_claimed_against_others() {
        let port = Port::reserve().unwrap();
        assert!(PORTS.contains(&port.number()));
        std::net::TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        #[cfg(target_os = "linux")]
        assert!(claim::take(port.number()).unwrap().is_none());
        let number = port.number();
        drop(port);
        assert!(claim::take(number).unwrap().is_some());
    }
}
