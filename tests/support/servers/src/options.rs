use std::path::PathBuf;

/// How a private server is set up.
///
/// The default is the fastest server for tests that never kill it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a commit that was answered survives [`Server::kill`](crate::Server::kill).
    ///
    /// `true` keeps the durability that the server has by default. `false` (the default) turns
    /// every flush off: several times faster, but a kill loses the last moments, so tests that
    /// inject faults and all measurements want `true`.
    pub durable: bool,
    /// The number of connections that the server admits; `None` means 200.
    pub max_connections: Option<u32>,
    /// Further settings, each `name=value` in the words of the server. They are applied last and
    /// so override the ones chosen here.
    pub settings: Vec<String>,
    /// The directory in which the server's own directory is made; `None` means `/tmp`.
    ///
    /// Measurements of durable commits want a real disk here, because `/tmp` is often held in
    /// memory. Keep it short, since a socket's path may not exceed 107 bytes, and let every user
    /// enter it, since a server that root starts runs as another user.
    pub parent: Option<PathBuf>,
}

impl Options {
    /// The connections to admit, with the default filled in.
    pub(crate) fn connections(&self) -> u32 {
        self.max_connections.unwrap_or(200)
    }

    /// The directory above the server's own.
    pub(crate) fn parent(&self) -> PathBuf {
        self.parent.clone().unwrap_or_else(|| PathBuf::from("/tmp"))
    }
}
