use std::path::Path;

use super::parameters::Parameters;

/// Where Debian's libpq looks for the server's socket, and the original one.
pub(super) const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// The hosts that are named, or where the server is if none is.
pub(super) fn hosts(all: &Parameters) -> Vec<&str> {
    let (hosts, addresses) = (all.list("host"), all.list("hostaddr"));
    if !hosts.is_empty() || !addresses.is_empty() {
        return if hosts.is_empty() { addresses } else { hosts };
    }
    vec![*SOCKETS.iter().find(|path| Path::new(path).exists()).unwrap_or(&"localhost")]
}
