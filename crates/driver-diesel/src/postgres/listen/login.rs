//! How the listening connection logs in: as the pool's do, by another library.

use std::time::Duration;

use postgres::config::{
    ChannelBinding, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};
use postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use super::hosts::{SOCKETS, hosts};
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

/// The names for TLS, without which the library takes no connection to be encrypted. A host that is an address
/// only has that for a name.
fn names<'a>(hosts: &[&'a str], addresses: &[&'a str]) -> Vec<&'a str> {
    if addresses.is_empty() || (!hosts.is_empty() && hosts.len() != addresses.len()) {
        return hosts.to_vec();
    }
    let name = |(at, address): (usize, &&'a str)| {
        let host = hosts.get(at).filter(|host| !host.is_empty() && !host.starts_with('/'));
        *host.unwrap_or(address)
    };
    addresses.iter().enumerate().map(name).collect()
}

fn config(all: &Parameters, around: &Surroundings, tls: &Tls) -> Result<Config, String> {
    let mut config = Config::new();
    let user = all.get("user").map(str::to_owned).or_else(|| (around.variable)("USER"));
    let user = user.ok_or("no user is named")?;
    let database = all.get("dbname").unwrap_or(&user);
    config.user(&user).dbname(database).application_name("qudo listener");
    let (addresses, ports) = (all.list("hostaddr"), all.list("port"));
    // With an address alone there is no name.
    let hosts = if addresses.is_empty() { hosts(all) } else { all.list("host") };
    for host in names(&hosts, &addresses) {
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
    let asked = if hosts.is_empty() { &addresses } else { &hosts };
    if let Some(password) = password(all, around, &user, database, asked, &ports)? {
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

/// The one that is named, or the one of the file. There is one for all hosts; with another for each, a host
/// would be told that of another.
fn password(
    all: &Parameters,
    around: &Surroundings,
    user: &str,
    database: &str,
    hosts: &[&str],
    ports: &[&str],
) -> Result<Option<String>, String> {
    if let Some(password) = all.get("password") {
        return Ok(Some(password.to_owned()));
    }
    let file = all.get("passfile").map(Into::into).or_else(|| around.at_home(".pgpass"));
    let Some(file) = file else { return Ok(None) };
    let of_host = |(at, host): (usize, &&str)| {
        let port = ports.get(at).or(ports.last()).filter(|port| !port.is_empty());
        // The usual directory of sockets goes by this name.
        let host = if SOCKETS.contains(host) { "localhost" } else { host };
        let login = passfile::Login { host, port: port.copied().unwrap_or("5432"), database, user };
        passfile::read(&file, &login)
    };
    let mut passwords: Vec<_> = hosts.iter().enumerate().map(of_host).collect();
    passwords.dedup();
    if passwords.len() > 1 {
        return Err("the file of passwords has different ones for the hosts, and a listener has one for all"
            .to_owned());
    }
    Ok(passwords.pop().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dsn: &str, passwords: &str) -> Result<Option<String>, String> {
        let home = tempfile::tempdir().expect("makes");
        let file = home.path().join(".pgpass");
        std::fs::write(&file, passwords).expect("writes");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("sets");
        }
        let around = Surroundings { variable: |_| None, home: Some(home.path().to_path_buf()) };
        let url = Url::parse(dsn).expect("parses");
        let login = ListenLogin::within(&url, &around)?;
        let password = login.config.get_password().map(String::from_utf8_lossy);
        Ok(password.map(std::borrow::Cow::into_owned))
    }

    #[test]
    fn an_address_without_a_name_is_its_own_name() {
        let names = |hosts: &[&'static str], addresses: &[&'static str]| names(hosts, addresses);
        assert_eq!(names(&[], &["10.0.0.1"]), ["10.0.0.1"]);
        assert_eq!(names(&["/tmp", "db"], &["10.0.0.1", "10.0.0.2"]), ["10.0.0.1", "db"]);
        assert_eq!(names(&["/tmp", "db"], &[]), ["/tmp", "db"]);
        assert_eq!(names(&["a", "b"], &["10.0.0.1"]), ["a", "b"], "which is refused");
    }

    #[test]
    fn no_host_is_told_the_password_of_another() {
        let file =
            "db1:*:*:*:one\nlocalhost:*:*:*:socket\n10.0.0.1:*:*:*:address\n/elsewhere:*:*:*:there";
        let some = |password: &str| Ok(Some(password.to_owned()));
        assert_eq!(of("postgres://u@db1/jobs", file), some("one"));
        assert_eq!(of("postgres://u@db2/jobs", file), Ok(None));
        assert!(of("postgres:///jobs?user=u&host=db1,db2", file).is_err());
        assert_eq!(of("postgres:///jobs?user=u&host=db1,db1", file), some("one"));
        assert_eq!(of("postgres:///jobs?user=u&hostaddr=10.0.0.1", file), some("address"));
        assert_eq!(of("postgres:///jobs?user=u&host=/var/run/postgresql", file), some("socket"));
        assert_eq!(of("postgres:///jobs?user=u&host=/elsewhere", file), some("there"));
    }
}
