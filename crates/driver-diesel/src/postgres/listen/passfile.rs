//! The file of passwords that libpq reads: a line is `host:port:database:user:password`.

use std::path::Path;

/// Who asks for a password.
pub(super) struct Login<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line that fits. A file that others may read counts for nothing, as with libpq.
pub(super) fn read(path: &Path, login: &Login<'_>) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).ok()?.permissions().mode();
        if mode & 0o077 != 0 {
            return None;
        }
    }
    find(&std::fs::read_to_string(path).ok()?, login)
}

fn find(text: &str, login: &Login<'_>) -> Option<String> {
    let asked = [login.host, login.port, login.database, login.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (password, known) = fields.split_last()?;
        let fits = known.len() == asked.len()
            && known.iter().zip(asked).all(|(field, asked)| field == "*" || field == asked);
        fits.then(|| password.clone())
    })
}

/// The fields of a line; `\:` and `\\` stand for the characters themselves.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(one) = characters.next() {
        let next = match one {
            '\\' => characters.next(),
            // The password is the rest.
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            other => Some(other),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(next);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# nobody\ndb:5432:jobs:other:wrong\n*:*:jobs:me:p\\:w\\\\d:x\ndb:5432:jobs:me:late\n\
                    localhost:*:*:*:socket";
        let login = Login { host: "db", port: "5432", database: "jobs", user: "me" };
        assert_eq!(find(text, &login).as_deref(), Some("p:w\\d:x"));
        assert_eq!(find(text, &Login { user: "nobody", ..login }), None);
        let local = Login { host: "localhost", port: "1", database: "d", user: "u" };
        assert_eq!(find(text, &local).as_deref(), Some("socket"));
    }
}
