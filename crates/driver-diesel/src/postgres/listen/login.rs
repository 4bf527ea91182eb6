//! How the listening connection logs in: as the pool's do, by another library.

use std::path::Path;
use std::time::Duration;

use postgres::config::{
    ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};
use postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::parameters::{Parameters, Surroundings};
use super::passfile;
use super::tls::{Mode, Tls};

/// Everything that is known before the login.
pub(crate) struct ListenLogin {
    config: Config,
    tls: Tls,
}

impl ListenLogin {
    /// Of a data source name whose parameters of our own are taken out. Files are read now, so that
    /// certificates and passwords can be changed while the program works.
    pub(super) fn of(url: &Url) -> Result<Self, String> {
        Self::within(url, &Surroundings::here())
    }

    fn within(url: &Url, around: &Surroundings) -> Result<Self, String> {
        let all = Parameters::of(url, around)?;
        let tls = Tls::of(&all, around)?;
        Ok(Self { config: config(&all, around, &tls)?, tls })
    }

    /// Connects as the mode says: `prefer` without TLS after it was refused with it, `allow` the other way
    /// round.
    pub(super) fn connect(&self) -> Result<Client, postgres::Error> {
        let with = |mode| {
            let mut config = self.config.clone();
            config.ssl_mode(mode);
            config.connect(MakeRustlsConnect::new((*self.tls.config).clone()))
        };
        let without = || self.config.clone().ssl_mode(SslMode::Disable).connect(NoTls);
        match self.tls.mode {
            Mode::Disable => without(),
            Mode::Require => with(SslMode::Require),
            Mode::Prefer => with(SslMode::Prefer).or_else(|first| without().map_err(|_| first)),
            Mode::Allow => without().or_else(|first| with(SslMode::Require).map_err(|_| first)),
        }
    }
}

/// Where Debian's libpq looks for the server's socket, and the original one.
const SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

fn config(all: &Parameters, around: &Surroundings, tls: &Tls) -> Result<Config, String> {
    let mut config = Config::new();
    let user = all.get("user").map(str::to_owned).or_else(|| (around.variable)("USER"));
    let user = user.ok_or("no user is named")?;
    let database = all.get("dbname").unwrap_or(&user);
    config.user(&user).dbname(database).application_name("qudo listener");
    let (hosts, addresses, ports) = (all.list("host"), all.list("hostaddr"), all.list("port"));
    let default = SOCKETS.iter().find(|path| Path::new(path).exists()).unwrap_or(&"localhost");
    let hosts = if hosts.is_empty() && addresses.is_empty() { vec![*default] } else { hosts };
    for host in &hosts {
        config.host(host);
    }
    for address in &addresses {
        let address = address.parse().map_err(|_| "hostaddr is no address".to_owned())?;
        config.hostaddr(address);
    }
    for port in &ports {
        config.port(if port.is_empty() {
            5432
        } else {
            port.parse().map_err(|_| "a port is no number")?
        });
    }
    if let Some(password) = password(all, around, &user, database, &hosts, &ports) {
        config.password(password);
    }
    if let Some(options) = all.get("options") {
        config.options(options);
    }
    config
        .channel_binding(match all.get("channel_binding") {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => return Err(format!("the channel_binding {other:?} is unknown")),
        })
        .target_session_attrs(match all.get("target_session_attrs") {
            None | Some("any") => TargetSessionAttrs::Any,
            // Only a primary can be listened at.
            Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            Some(other) => {
                return Err(format!("a listener cannot have target_session_attrs={other}"));
            }
        })
        .load_balance_hosts(match all.get("load_balance_hosts") {
            Some("random") => LoadBalanceHosts::Random,
            _ => LoadBalanceHosts::Disable,
        })
        .ssl_negotiation(if tls.direct { SslNegotiation::Direct } else { SslNegotiation::Postgres })
        .connect_timeout(Duration::from_secs(5))
        .keepalives_idle(Duration::from_secs(10))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(20));
    Ok(config)
}

/// The one that is named, or the one of the file for the first host that has one.
fn password(
    all: &Parameters,
    around: &Surroundings,
    user: &str,
    database: &str,
    hosts: &[&str],
    ports: &[&str],
) -> Option<String> {
    if let Some(password) = all.get("password") {
        return Some(password.to_owned());
    }
    let file = all.get("passfile").map(Into::into).or_else(|| around.at_home(".pgpass"))?;
    hosts.iter().enumerate().find_map(|(at, host)| {
        let port = ports.get(at).or(ports.last()).filter(|port| !port.is_empty());
        let login = passfile::Login { host, port: port.copied().unwrap_or("5432"), database, user };
        passfile::read(&file, &login)
    })
}
