//! What may be a name: checked once at the edge, so that every engine stores it alike.

use crate::error::Error;

/// Longest queue or ability name, in bytes: four of them fit one index entry on every engine.
const MAX_NAME: usize = 100;

/// Longest unique key, in bytes.
const MAX_UNIQKEY: usize = 500;

/// Refuses a queue or ability name that an engine would change or could not index.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    // Nearly all names are of this kind, and each job has three of them.
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > MAX_NAME {
        format!("it takes {} bytes, more than {MAX_NAME}", name.len())
    } else if name.chars().any(char::is_control) {
        "it contains a control character".to_owned()
    } else if name.trim() != name {
        "it begins or ends with a space, which some databases ignore".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid(what, name, reason))
}

/// Refuses a unique key that an engine could not index.
pub(crate) fn check_uniqkey(key: &str) -> Result<(), Error> {
    let reason = if key.is_empty() {
        "it is empty; leave it out for a job that is not unique".to_owned()
    } else if key.len() > MAX_UNIQKEY {
        format!("it takes {} bytes, more than {MAX_UNIQKEY}; use a hash of it", key.len())
    } else if key.contains('\0') {
        "it contains a NUL byte, which PostgreSQL cannot store in text".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid("unique key", key, reason))
}

fn invalid(what: &'static str, name: &str, reason: String) -> Error {
    let name = name.chars().take(60).collect();
    Error::InvalidName { what, name, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_an_engine_would_change_are_refused_by_name() {
        for bad in ["", " a", "a\0b", "a\n", &"x".repeat(101)] {
            assert!(check_name("queue", bad).is_err(), "{bad:?}");
        }
        for good in ["gl.accounting", "köln", "a b"] {
            check_name("queue", good).expect(good);
        }
        for bad in ["", "a\0b", &"x".repeat(501)] {
            assert!(check_uniqkey(bad).is_err(), "{bad:?}");
        }
        check_uniqkey(" spaces matter ").expect("spaces matter");
    }
}
