//! The parameters of a connection as libpq would see them: what the data source name says, then the
//! service file, then the environment. The library that listens knows none of the last two, and few names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use url::Url;

/// The variable of each parameter that has one.
const VARIABLES: [(&str, &str); 26] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("options", "PGOPTIONS"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("sslmode", "PGSSLMODE"),
    ("requiressl", "PGREQUIRESSL"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslsni", "PGSSLSNI"),
    ("requirepeer", "PGREQUIREPEER"),
    ("require_auth", "PGREQUIREAUTH"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("gssencmode", "PGGSSENCMODE"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
];

/// What the listener cannot do as libpq does. Not to listen is better than to do it in another way.
const UNKNOWN: [(&str, &str); 5] = [
    ("sslcrl", "a list of revoked certificates is not looked at"),
    ("sslcrldir", "lists of revoked certificates are not looked at"),
    ("sslpassword", "an encrypted key cannot be read"),
    ("requirepeer", "the user at the other end of a socket is not looked at"),
    ("require_auth", "the method of the login cannot be chosen"),
];

/// Where parameters are looked for beside the data source name.
pub(super) struct Surroundings {
    pub(super) variable: fn(&str) -> Option<String>,
    pub(super) home: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn here() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self { variable, home: std::env::home_dir() }
    }

    /// A file that libpq looks for in the home directory.
    pub(super) fn at_home(&self, name: &str) -> Option<PathBuf> {
        Some(self.home.as_ref()?.join(name))
    }
}

/// Parameters by libpq's names.
#[derive(Clone)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    /// Those of a data source name.
    pub(super) fn of(url: &Url, around: &Surroundings) -> Result<Self, String> {
        let mut all: HashMap<String, String> = HashMap::new();
        for (name, value) in in_authority(url) {
            all.insert(name.to_owned(), value);
        }
        for (name, value) in in_query(url) {
            match (&*name, &*value) {
                // An old word of JDBC's, which libpq takes.
                ("ssl", "true") => all.insert("sslmode".to_owned(), "require".to_owned()),
                _ => all.insert(name, value),
            };
        }
        let service = all.get("service").cloned().or_else(|| (around.variable)("PGSERVICE"));
        if let Some(service) = service {
            for (name, value) in read_service(&service, around)? {
                all.entry(name).or_insert(value);
            }
        }
        for (name, variable) in VARIABLES {
            if !all.contains_key(name)
                && let Some(value) = (around.variable)(variable)
            {
                all.insert(name.to_owned(), value);
            }
        }
        let all = Self(all);
        for (name, why) in UNKNOWN {
            if all.get(name).is_some() {
                return Err(format!("{name} is set, and for a listener {why}"));
            }
        }
        match (all.get("gssencmode"), all.get("sslcertmode")) {
            (Some("require"), _) => {
                Err("gssencmode=require cannot be had for a listener".to_owned())
            }
            (_, Some("require")) => {
                Err("sslcertmode=require cannot be had for a listener".to_owned())
            }
            _ => Ok(all),
        }
    }

    /// One that is set and not empty, as libpq has it.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The entries of a list of hosts or ports.
    pub(super) fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).map(|list| list.split(',').collect()).unwrap_or_default()
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What stands behind the `?`, decoded. A plus is a plus.
fn in_query(url: &Url) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = url.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
}

/// What stands before the `?`, decoded.
fn in_authority(url: &Url) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut add = |name, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            found.push((name, decoded(value)));
        }
    };
    add("user", Some(url.username()));
    add("password", url.password());
    add("dbname", Some(url.path().trim_start_matches('/')));
    // An address of version 6 stands in brackets.
    add("host", url.host_str().map(|host| host.trim_matches(['[', ']'])));
    let port = url.port().map(|port| port.to_string());
    add("port", port.as_deref());
    found
}

/// The parameters of a service: from the user's file, then from the system's.
fn read_service(service: &str, around: &Surroundings) -> Result<Vec<(String, String)>, String> {
    let of_user = (around.variable)("PGSERVICEFILE")
        .map(PathBuf::from)
        .or_else(|| around.at_home(".pg_service.conf"));
    let of_system =
        (around.variable)("PGSYSCONFDIR").map(|dir| Path::new(&dir).join("pg_service.conf"));
    for file in of_user.into_iter().chain(of_system) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if let Some(found) = in_service_file(&text, service) {
            return Ok(found);
        }
    }
    Err(format!("the service {service:?} is in no service file"))
}

fn in_service_file(text: &str, service: &str) -> Option<Vec<(String, String)>> {
    let mut lines = text.lines().map(str::trim);
    lines.by_ref().find(|line| *line == format!("[{service}]"))?;
    let ours = lines.take_while(|line| !line.starts_with('['));
    let pairs = ours.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Some(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Nothing around.
    pub(crate) fn nowhere() -> Surroundings {
        Surroundings { variable: |_| None, home: None }
    }

    fn of(dsn: &str, around: &Surroundings) -> Result<Parameters, String> {
        Parameters::of(&Url::parse(dsn).expect("parses"), around)
    }

    #[test]
    fn the_name_comes_before_the_environment() {
        let variable = |name: &str| match name {
            "PGUSER" => Some("of the environment".to_owned()),
            "PGSSLMODE" => Some("verify-full".to_owned()),
            _ => None,
        };
        let around = Surroundings { variable, home: None };
        let all =
            of("postgres://me:p%40ss@[::1]:6432/jobs?sslmode=require", &around).expect("valid");
        for (name, value) in [
            ("user", "me"),
            ("password", "p@ss"),
            ("host", "::1"),
            ("port", "6432"),
            ("dbname", "jobs"),
            ("sslmode", "require"),
        ] {
            assert_eq!(all.get(name), Some(value), "{name}");
        }
        let all = of("postgres://db/jobs", &around).expect("valid");
        assert_eq!(all.get("user"), Some("of the environment"));
        assert_eq!(all.get("sslmode"), Some("verify-full"));
        assert_eq!(all.get("password"), None);
    }

    #[test]
    fn the_query_is_read_as_libpq_reads_it() {
        let all = of("postgres://db/jobs?password=a+b%2Bc&ssl=true", &nowhere()).expect("valid");
        assert_eq!(all.get("password"), Some("a+b+c"));
        assert_eq!(all.get("sslmode"), Some("require"));
    }

    #[test]
    fn a_service_fills_in_what_the_name_leaves_out() {
        let text = "# ours\n[other]\nhost=wrong\n[jobs]\nhost = db.example\n#port=1\nsslmode=verify-ca\n[x]\nuser=y";
        let found = in_service_file(text, "jobs").expect("is there");
        assert_eq!(
            found,
            [("host", "db.example"), ("sslmode", "verify-ca")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert_eq!(in_service_file(text, "nobody"), None);
        let error = of("postgres:///jobs?service=nobody", &nowhere()).err().expect("refused");
        assert!(error.contains("nobody"), "{error}");
    }

    #[test]
    fn what_a_listener_cannot_do_is_refused_by_name() {
        for one in
            ["sslcrl=a.crl", "sslpassword=x", "require_auth=scram-sha-256", "gssencmode=require"]
        {
            let error = of(&format!("postgres://db/jobs?{one}"), &nowhere()).err().expect(one);
            assert!(error.contains(one.split_once('=').expect("a pair").0), "{error}");
        }
    }
}
