//! Data source names without their passwords, for texts that people read.

/// A data source name for messages, without trusting that it parses: rather too much is hidden than a
/// password shown.
///
/// Hidden are the password of the user, also where the scheme or the `@` was forgotten, and the value of
/// every parameter whose name ends in `password`, `passwd` or `pwd`. A file's name is shown.
pub(super) fn hide_password(dsn: &str) -> String {
    let is_file = ["sqlite:", "memory:"].iter().any(|scheme| dsn.starts_with(scheme));
    let text = if is_file { dsn.to_owned() } else { hide_user_password(dsn) };
    hide_parameters(&text)
}

const HIDDEN: &str = "***";

fn hide_user_password(dsn: &str) -> String {
    let known = ["postgres", "postgresql", "mysql", "mariadb"];
    let is_known = |scheme: &str| known.iter().any(|one| scheme.eq_ignore_ascii_case(one));
    // A password may hold these characters too.
    let start = dsn.find("://").filter(|at| is_known(&dsn[..*at])).map_or(0, |at| at + 3);
    let rest = &dsn[start..];
    // A password may hold any character, so the last `@` ends it.
    if let Some(end) = rest.rfind('@') {
        let Some(colon) = rest[..end].find(':') else { return dsn.to_owned() };
        return format!("{}{HIDDEN}{}", &dsn[..=start + colon], &rest[end..]);
    }
    // Without one it is a host with a port, or a user with a password.
    if rest.starts_with('[') {
        return dsn.to_owned();
    }
    let Some(colon) = rest.find(':') else { return dsn.to_owned() };
    let after = &rest[colon + 1..];
    let port = &after[..after.find(['/', '?', '#']).unwrap_or(after.len())];
    let is_port = start > 0 && port.len() < 6 && port.bytes().all(|byte| byte.is_ascii_digit());
    // The colon of a parameter, as in a path, comes behind the names of the host and the database.
    let is_later = start > 0 && rest[..colon].contains(['/', '?', '#']);
    if is_port || is_later {
        return dsn.to_owned();
    }
    format!("{}{HIDDEN}", &dsn[..=start + colon])
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
            ("postgres://me:se@cr:et@db/x", "postgres://me:***@db/x"),
            ("mysql://me:secret@[bad", "mysql://me:***@[bad"),
            ("postgres://db/x?password=secret&a=b", "postgres://db/x?password=***&a=b"),
            (
                "postgres://db/x?sslpassword=s&PASSWORD=secret",
                "postgres://db/x?sslpassword=***&PASSWORD=***",
            ),
            ("app:secret@db/jobs", "app:***@db/jobs"),
            ("postgres:/app:secret@db/jobs", "postgres:***@db/jobs"),
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
