//! What clients add to an argument: what of it can be stored, and what a job inherits.

use qudo_hooks::{JobId, Meta};
use serde_json::Value;

use crate::error::Error;
use crate::names::check_name;

/// The largest metadata of a job, in bytes as it is stored.
const MAX_META: usize = 64 * 1024;

/// Values nested on more levels would not be read back: JSON readers stop at 128 levels.
const MAX_DEPTH: usize = 64;

/// As it is stored; `None` if there is nothing in it.
pub(crate) fn encode(meta: &Meta) -> Result<Option<Box<str>>, Error> {
    if meta.is_empty() {
        return Ok(None);
    }
    let wrong = |reason: String| Error::InvalidOption { option: "meta", reason };
    for (name, value) in meta.values() {
        check_name("name of metadata", name)?;
        if name == Meta::reserved() {
            return Err(wrong(format!("{name:?} is the list of tags; add to it with `tag`")));
        }
        if is_deeper(value, MAX_DEPTH) {
            return Err(wrong(format!("{name:?} is nested on more than {MAX_DEPTH} levels")));
        }
    }
    meta.tags().try_for_each(|tag| check_name("tag", tag))?;
    let text = meta.to_text().unwrap_or_default();
    if text.len() > MAX_META {
        let size = text.len();
        return Err(wrong(format!("it takes {size} bytes, more than the limit of {MAX_META}")));
    }
    Ok(Some(text.into()))
}

/// Lets a job inherit the metadata of the one whose place it takes, as far as it can be stored: the parent's work is
/// done by now, and must not fail because its child would be too large.
pub(crate) fn inherit(own: &mut Meta, from: &Meta, parent: JobId) {
    let mut kept = Meta::default();
    for (name, value) in from.values() {
        if check_name("name of metadata", name).is_ok() {
            kept.set(name, value.clone());
        }
    }
    from.tags().filter(|tag| check_name("tag", tag).is_ok()).for_each(|tag| kept.tag(tag));
    let mut all = own.clone();
    all.inherit(&kept);
    match encode(&all) {
        Ok(_) => *own = all,
        Err(error) => {
            log::warn!("what replaces job {parent} does not inherit its metadata: {error}");
        }
    }
}

/// Whether lists and objects lie in each other on more levels than these.
fn is_deeper(value: &Value, levels: usize) -> bool {
    let mut parts: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(values) => Box::new(values.values()),
        _ => return false,
    };
    levels == 0 || parts.any(|part| is_deeper(part, levels - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn what_would_not_be_read_back_is_refused() {
        let mut meta = Meta::default();
        assert!(encode(&meta).expect("nothing").is_none());
        meta.set("deep", nested(MAX_DEPTH));
        let text = encode(&meta).expect("is read back").expect("some");
        assert_eq!(Meta::from_text(Some(&text)), meta);
        meta.set("deep", nested(MAX_DEPTH + 1));
        assert!(encode(&meta).is_err());
    }

    #[test]
    fn what_cannot_be_stored_is_not_inherited_and_does_not_fail_the_child() {
        let parent = JobId::new();
        let odd = Meta::from_text(Some(r#"{"":1,"tenant":7,"tags":["","eu"]}"#));
        let mut child = Meta::default();
        child.set("step", 2);
        inherit(&mut child, &odd, parent);
        assert_eq!(child.to_text().as_deref(), Some(r#"{"step":2,"tags":["eu"],"tenant":7}"#));
        let mut large = Meta::default();
        large.set("x", "x".repeat(MAX_META / 2));
        let mut grown = Meta::default();
        grown.set("y", "y".repeat(MAX_META / 2));
        inherit(&mut grown, &large, parent);
        assert!(grown.get("x").is_none() && encode(&grown).is_ok());
    }
}
