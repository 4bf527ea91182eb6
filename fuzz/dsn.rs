//! Data source names as hands write them: the parts in their order, each right or slipped, with a password
//! that must not show in any text. Used by a property of tests/secrets.rs and by the fuzz target.

use qudo::{DataSource, Manager};

/// A part of every password.
const MARK: &str = "h1dd3nPa55";

/// One of these, by the next byte.
fn pick<'a>(bytes: &mut impl Iterator<Item = u8>, choices: &[&'a str]) -> &'a str {
    choices[usize::from(bytes.next().unwrap_or_default()) % choices.len()]
}

/// Makes a name of these bytes and looks at every text about it.
pub(crate) fn check(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let bytes = &mut bytes;
    let scheme = pick(bytes, &["postgres", "postgresql", "mysql", "mariadb", "postgers", ""]);
    let colon = pick(bytes, &["://", ":/", ":", "//", ""]);
    let user = pick(bytes, &["app", "", "a%40b", "a@b"]);
    let mut password = String::new();
    for noise in 0..2 {
        password.push_str(pick(
            bytes,
            &["", "x", "%", "%4", "@", "/", "?", "#", ":", "[", "]", " ", "é", "'", "\\"],
        ));
        if noise == 0 {
            password.push_str(MARK);
        }
    }
    let at = pick(bytes, &["@", "@", "@", "", "%40"]);
    if at != "@" && password.starts_with('@') {
        // By no reading a part of the password: what comes behind the last `@` is a host.
        password.replace_range(..1, "x");
    }
    let host = pick(bytes, &["db", "127.0.0.1", "[::1]", "", "db:5432", "db:port", "h1,h2", "::"]);
    let path = pick(bytes, &["/jobs", "/", "", "/jobs/more", "/%zz"]);
    let query = match pick(bytes, &["none", "none", "password", "ssl", "quoted", "option"]) {
        "password" => format!("?password={MARK}&x=1"),
        "ssl" => format!("?sslpassword=a&password={MARK}"),
        "quoted" => format!("?a=b&password='{MARK} more'"),
        "option" => "?durability=none".to_owned(),
        _ => String::new(),
    };
    let dsn = format!("{scheme}{colon}{user}:{password}{at}{host}{path}{query}");
    let mut texts = vec![format!("{:?}", DataSource::new(&*dsn))];
    match Manager::builder().linked(false).database(&*dsn).build() {
        Err(error) => texts.extend([error.to_string(), format!("{error:?}")]),
        Ok(manager) => {
            texts.push(format!("{manager:?}"));
            texts.extend(manager.database_reports().into_iter().map(|one| format!("{one:?}")));
        }
    }
    match Manager::builder().linked(false).database("memory:x").spool(&*dsn, 9).build() {
        Err(error) => texts.extend([error.to_string(), format!("{error:?}")]),
        Ok(manager) => texts.push(format!("{manager:?}")),
    }
    for text in texts {
        assert!(!text.contains(MARK), "{dsn:?} shows its password: {text}");
    }
}
