//! What a data source name may say about how qudo uses the database, after its `?`.
//!
//! The client libraries do not know these parameters, so they are taken out. The others stay as
//! they are written: a library may decode them by rules of its own.

use qudo_core::driver::Password;

use crate::tables::Tables;

/// Parameters of qudo's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `durability=relaxed`: settles do not wait for the disk.
    pub(crate) relaxed: bool,
    /// `pooler=transaction`: each transaction may meet another session of the server.
    pub(crate) pooler: bool,
    /// `schema=NAME` (PostgreSQL) and `table_prefix=PREFIX`: how the tables are named.
    pub(crate) tables: Tables,
    /// `password_file=PATH` or `password_env=NAME`: where the password is read for each new connection.
    pub(crate) password: Option<Password>,
}

impl Options {
    /// Splits a query, without its `?`, into our parameters and the rest.
    pub(crate) fn split(query: &str) -> Result<(Self, String), String> {
        let (mut options, mut rest) = (Self::default(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("durability", value) => {
                    options.relaxed = choice("durability", value, ["full", "relaxed"])?;
                }
                ("pooler", value) => {
                    options.pooler = choice("pooler", value, ["none", "transaction"])?;
                }
                ("password_file", path) => {
                    options.password = Some(Password::from_file(decoded("password_file", path)?));
                }
                ("password_env", name) => {
                    options.password = Some(Password::from_env(decoded("password_env", name)?));
                }
                ("schema", name) => {
                    options.tables = options.tables.in_schema(&decoded("schema", name)?)?;
                }
                ("table_prefix", prefix) => {
                    options.tables =
                        options.tables.with_prefix(&decoded("table_prefix", prefix)?)?;
                }
                _ => rest.push(pair),
            }
        }
        Ok((options, rest.join("&")))
    }

    /// Refuses a schema where a database, or a file, is its own.
    #[cfg(any(feature = "sqlite", feature = "mysql"))]
    pub(crate) fn without_schema(self) -> Result<Self, String> {
        if self.tables.schema().is_none() {
            return Ok(self);
        }
        let instead = "another database or file, or table_prefix, does the same here";
        Err(format!("schema is a parameter for PostgreSQL only; {instead}"))
    }

    /// Takes our parameters out of a URL; a password that was given beside it comes first.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn take(url: &mut url::Url, password: Option<Password>) -> Result<Self, String> {
        let (options, rest) = Self::split(url.query().unwrap_or_default())?;
        url.set_query((!rest.is_empty()).then_some(&rest));
        Ok(Self { password: password.or(options.password), ..options })
    }

    /// The URL for a connection that is made now.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn url_now(&self, url: &url::Url) -> Result<String, String> {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let Some(password) = &self.password else { return Ok(url.as_str().to_owned()) };
        let password = password.ask().map_err(|error| format!("could not connect: {error}"))?;
        let mut url = url.clone();
        // All of it, because a URL leaves a percent sign as it is, and libraries do not.
        let encoded = utf8_percent_encode(&password, NON_ALPHANUMERIC).to_string();
        if url.set_password(Some(&encoded)).is_ok() {
            return Ok(url.into());
        }
        // Without a host, as where a socket's directory is a parameter.
        if !url.scheme().starts_with("postgres") {
            return Err("could not connect: a name without a host takes no password".to_owned());
        }
        let query = url.query().map(|query| format!("{query}&")).unwrap_or_default();
        url.set_query(Some(&format!("{query}password={encoded}")));
        Ok(url.into())
    }
}

fn decoded(name: &str, value: &str) -> Result<String, String> {
    let value = percent_encoding::percent_decode_str(value).decode_utf8();
    let value = value.map_err(|_| format!("{name} is not UTF-8"))?;
    if value.is_empty() {
        return Err(format!("{name} is empty"));
    }
    Ok(value.into_owned())
}

/// Whether a parameter has the second of its two values.
fn choice(name: &str, value: &str, [no, yes]: [&str; 2]) -> Result<bool, String> {
    if value == yes {
        Ok(true)
    } else if value == no {
        Ok(false)
    } else {
        Err(format!("{name} is {no} or {yes}, not {value:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn our_parameters_are_taken_out_and_the_others_stay_as_written() {
        let query = "options=-c%20work_mem%3D4MB&durability=relaxed&a+b=c&pooler=transaction";
        let (options, rest) = Options::split(query).expect("valid");
        assert!(options.relaxed && options.pooler && options.password.is_none());
        assert_eq!(rest, "options=-c%20work_mem%3D4MB&a+b=c");
        let (options, rest) = Options::split("durability=full&pooler=none").expect("valid");
        assert!(!options.relaxed && !options.pooler && rest.is_empty());
        let (options, rest) = Options::split("password_env=A%42").expect("valid");
        let error =
            options.password.expect("is set").ask().expect_err("nobody sets it").to_string();
        assert!(error.contains("AB is not set") && rest.is_empty(), "{error}");
        #[cfg(any(feature = "postgres", feature = "mysql"))]
        {
            use qudo_core::driver::Password;

            let ask = || Ok("p%4 /ä".to_owned());
            let password = Some(Password::from_fn(ask));
            let options = Options { password, ..Options::default() };
            for (url, expected) in [
                ("postgres://me:old@db/jobs", "postgres://me:p%254%20%2F%C3%A4@db/jobs"),
                (
                    "postgres:///jobs?host=/run",
                    "postgres:///jobs?host=/run&password=p%254%20%2F%C3%A4",
                ),
            ] {
                let url = url::Url::parse(url).expect("parses");
                assert_eq!(options.url_now(&url).expect("asked"), expected);
            }
        }
        assert!(Options::split("password_file=").expect_err("empty").contains("password_file"));
        for wrong in ["durability=none", "durability", "pooler=session"] {
            assert!(Options::split(wrong).expect_err("unknown").contains(" is "), "{wrong}");
        }
    }
}
