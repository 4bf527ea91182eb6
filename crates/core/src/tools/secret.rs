//! Data source names without their passwords, for texts that people read.

/// A data source name for messages. One that is written as it should be is shown but for its password, and
/// for the value of every parameter whose name ends in `password`, `passwd` or `pwd`. Of any other no more is
/// shown than its beginning: with an `@` too many, or one too few, nobody knows where its password ends. A
/// file's name is shown.
pub(crate) fn hide_password(dsn: &str) -> String {
    let is_file = ["sqlite:", "memory:"].iter().any(|scheme| dsn.starts_with(scheme));
    if is_file || is_well_formed(dsn) {
        return hide_parameters(&hide_user_password(dsn));
    }
    match dsn.find(':') {
        Some(_) => beginning(dsn),
        // Words with values, as libpq takes them too.
        None => hide_parameters(dsn),
    }
}

const HIDDEN: &str = "***";

/// Where what follows the scheme begins, if that is one of a server.
fn after_scheme(dsn: &str) -> Option<usize> {
    let known = ["postgres", "postgresql", "mysql", "mariadb"];
    let (scheme, _) = dsn.split_once("://")?;
    known.iter().any(|one| scheme.eq_ignore_ascii_case(one)).then_some(scheme.len() + 3)
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-%+".contains(&byte))
}

/// Whether it is `scheme://user:password@host:port,…/path?…`, each part without characters that would have to
/// be escaped in it.
fn is_well_formed(dsn: &str) -> bool {
    let Some(start) = after_scheme(dsn) else { return false };
    let rest = &dsn[start..];
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let password_may_hold = |byte: u8| !b"@:/?#[]".contains(&byte);
    let is_port =
        |port: &str| (1..6).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = |host: &str| {
        let (host, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                let is_address =
                    address.bytes().all(|b| b.is_ascii_hexdigit() || b".:".contains(&b));
                (if is_address { "" } else { "@" }, port.strip_prefix(':'))
            }
            None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        };
        is_word(host) && port.is_none_or(is_port)
    };
    is_word(name)
        && password.bytes().all(password_may_hold)
        && hosts.split(',').all(is_host)
        && !tail.contains(['@', '#'])
        && !tail.split('?').next().unwrap_or_default().contains(':')
}

fn hide_user_password(dsn: &str) -> String {
    let Some(start) = after_scheme(dsn) else { return dsn.to_owned() };
    let Some(end) = dsn[start..].find('@').map(|at| start + at) else { return dsn.to_owned() };
    let Some(colon) = dsn[start..end].find(':').map(|at| start + at) else { return dsn.to_owned() };
    format!("{}{HIDDEN}{}", &dsn[..=colon], &dsn[end..])
}

/// The scheme and the name of the user, where these are plain words.
fn beginning(dsn: &str) -> String {
    let start = after_scheme(dsn).unwrap_or(0);
    let word = dsn[start..].split(':').next().unwrap_or_default();
    let colon = if is_word(word) && dsn[start..].contains(':') {
        format!("{word}:")
    } else {
        String::new()
    };
    format!("{}{colon}{HIDDEN}", &dsn[..start])
}

fn hide_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (name, value) = rest.split_at(equals + 1);
        shown.push_str(name);
        let name = name[..equals].trim_end().to_ascii_lowercase();
        let is_secret = ["password", "passwd", "pwd"].iter().any(|end| name.ends_with(end));
        rest = value;
        if is_secret {
            shown.push_str(HIDDEN);
            rest = &value[length(value)..];
        }
    }
    shown.push_str(rest);
    shown
}

/// How long a parameter's value is: until the next parameter, or in quotes as libpq takes them.
fn length(value: &str) -> usize {
    let trimmed = value.trim_start();
    let blanks = value.len() - trimmed.len();
    if let Some(quoted) = trimmed.strip_prefix('\'') {
        let mut escaped = false;
        for (at, letter) in quoted.char_indices() {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => return blanks + 1 + at + 1,
                _ => {}
            }
        }
        return value.len();
    }
    blanks + trimmed.find(['&', ' ', '\t', '\n']).unwrap_or(trimmed.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_even_in_names_that_do_not_parse() {
        for (dsn, hidden) in [
            ("postgres://me:secret@db/x", "postgres://me:***@db/x"),
            ("postgres://me:secret@h1:1,h2:2/x", "postgres://me:***@h1:1,h2:2/x"),
            ("postgres://me:se@cr:et@db/x", "postgres://me:***"),
            ("postgres://a@b:secret/db/x", "postgres://***"),
            ("mysql://me:secret@[bad", "mysql://me:***"),
            ("postgres://db/x?password=secret&a=b", "postgres://db/x?password=***&a=b"),
            (
                "postgres://db/x?sslpassword=s&PASSWORD=secret",
                "postgres://db/x?sslpassword=***&PASSWORD=***",
            ),
            ("app:secret@db/jobs", "app:***"),
            ("postgres:/app:secret@db/jobs", "postgres:***"),
            ("postgres://app:secret/jobs", "postgres://app:***"),
            ("postgres://app:se/cret", "postgres://app:***"),
            ("POSTGRES://me:secret", "POSTGRES://me:***"),
            ("pgsql://me:secret", "pgsql:***"),
            ("postgres://db/jobs?options=a:b", "postgres://db/jobs?options=a:b"),
            ("postgres://app:secret", "postgres://app:***"),
            ("host=db password = 'se cr\\'et' user=me", "host=db password =*** user=me"),
            ("host=db passwd='secret", "host=db passwd=***"),
            ("postgres://db:5432/jobs", "postgres://db:5432/jobs"),
            ("postgres://[::1]:5432/jobs", "postgres://[::1]:5432/jobs"),
            ("postgres://me@db/jobs", "postgres://me@db/jobs"),
            ("sqlite:a:b@jobs.db", "sqlite:a:b@jobs.db"),
        ] {
            assert_eq!(hide_password(dsn), hidden);
        }
    }

    /// Wherever a password may stand, whatever else is wrong with the name.
    #[test]
    fn no_password_is_shown_in_any_shape_of_a_name() {
        let shapes = [
            "postgres://me:{}@db:5432/jobs?sslmode=require",
            "mysql://me:{}@db",
            "pg:me:{}@db/jobs",
            "me:{}@db",
            "postgres:me:{}@db",
            "://me:{}@",
            "postgres://me:{}@@@db",
            "postgres://db?user=me&password={}",
            "host=db password={} dbname=jobs",
            "mysql://db/jobs?ssl_key_password={}&x",
            "postgres://db:5432/jobs?password={}",
            "postgres://me:{}@h/db?password=a@b",
        ];
        let letters: Vec<char> = "aZ09:/@?#[]%=!$+,;.-_~ü&".chars().collect();
        let mut random = fastrand::Rng::with_seed(1);
        for shape in shapes {
            // In a parameter the last of them ends the value.
            let most = letters.len() - usize::from(shape.contains("password="));
            for _ in 0..2_000 {
                let password: Vec<char> =
                    (0..random.usize(4..20)).map(|_| letters[random.usize(..most)]).collect();
                let whole: String = password.iter().collect();
                let hidden = hide_password(&shape.replace("{}", &whole));
                for part in password.windows(4) {
                    let part: String = part.iter().collect();
                    assert!(!hidden.contains(&part), "{shape} with {whole:?}: {hidden}");
                }
            }
        }
    }
}
