//! The language as a whole: texts, what they mean, and what is said of wrong ones.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A row with a few values.
fn look(field: Field, path: &[String]) -> Value<'static> {
    match field {
        Field::Ability => Value::text("mail"),
        Field::Queue => Value::text("gl.accounting"),
        Field::State => Value::text("ready"),
        Field::Db => Value::text("one"),
        Field::Attempt => Value::Number(3),
        Field::Priority => Value::Number(-2),
        Field::Age => Value::Span(TimeDelta::minutes(11)),
        Field::Enqueued => Value::Instant("2026-11-27T10:05:30Z".parse().expect("is one")),
        Field::Due => Value::Instant(utc_now() + TimeDelta::hours(1)),
        Field::Tag => Value::Texts(vec!["eu".into(), "slow".into()]),
        Field::Worker => Value::Texts(vec!["host:7".into()]),
        Field::Meta if path == ["tenant"] => Value::Json(Box::leak(Box::new(json!(7)))),
        Field::Arg => Value::Unknown,
        _ => Value::Absent,
    }
}

fn holds(text: &str) -> Option<bool> {
    let filter: JobFilter = text.parse().unwrap_or_else(|error| panic!("{error}"));
    filter.holds(&look)
}

#[test]
fn every_form_of_a_term_means_what_the_documentation_says() {
    for text in [
        "",
        "  ",
        "ability:mail",
        "ability=mail",
        "ability:sms,mail",
        "ability!=sms",
        "ability:m*",
        "ability~AI",
        "queue:gl.*",
        "queue:\"gl.accounting\"",
        "state:ready,running",
        "db:one age>10m",
        "age>=11m age<=11m age<1h30m",
        "attempt>=3",
        "attempt:2,3",
        "attempt!=4",
        "priority=-2 priority<0",
        "tag:eu",
        "tag:eu AND tag:slow and NOT tag:us",
        "worker~HOST worker:host:7",
        "meta.tenant=7",
        "meta.tenant>=6.5",
        "meta.\"tenant\":7",
        "NOT meta.other:*",
        "NOT key:*",
        "not not ability:mail",
        "ability:sms OR ability:mail",
        "ability:sms or (ability:mail and state:ready)",
        "ability:mail OR arg.user=7",
        "ability:sms state:ready OR ability:mail",
        "enqueued:2026-11-27",
        "enqueued:2026-11",
        "enqueued>2026-11-26",
        "enqueued>=2026-11-27",
        "enqueued<=2026-11-27",
        "enqueued<2026-11-27T10:06",
        "enqueued:\"2026-11-27 10:05\"",
        "due>now",
    ] {
        assert_eq!(holds(text), Some(true), "{text}");
    }
    for text in [
        "ability:sms",
        "ability:\"m*\"",
        "ability:mail ability:sms",
        "state:scheduled",
        "age>11m",
        "attempt<3",
        "meta.tenant=\"7\"",
        "meta.other=7",
        "key:*",
        "key!=x key:x",
        "enqueued>2026-11-27",
        "enqueued<2026-11-27",
        "due<now",
        "ability:sms (ability:mail OR state:ready)",
        "ability:sms arg.user=7",
        "id:018f0000-0000-7000-8000-000000000000",
    ] {
        assert_eq!(holds(text), Some(false), "{text}");
    }
    for text in ["arg.user=7", "NOT arg.user=7", "ability:mail arg.user=7", "ability:sms OR arg:7"]
    {
        assert_eq!(holds(text), None, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, position, length, reason) in [
        ("mail", 0, 4, "not a term"),
        ("ability:mail abilty:x", 13, 6, "did you mean `ability`?"),
        ("failed>2026-11-27", 0, 6, "a job has no field `failed`"),
        ("ability:", 8, 0, "a value is missing"),
        ("ability:a,", 10, 0, "a value is missing"),
        ("ability: mail", 8, 0, "a value is missing"),
        ("ability:mail)", 12, 1, "a `)` without its `(`"),
        ("(ability:mail", 0, 1, "a `(` without its `)`"),
        ("()", 0, 1, "nothing in these parentheses"),
        ("ability:mail OR", 13, 2, "nothing behind this OR"),
        ("OR ability:mail", 0, 2, "nothing before this OR"),
        ("AND ability:mail", 0, 3, "AND stands between two terms"),
        ("ability:mail AND", 13, 3, "AND stands between two terms"),
        ("ability:mail AND OR state:ready", 13, 3, "AND stands between two terms"),
        ("NOT", 0, 3, "nothing behind this NOT"),
        ("ability:\"mail", 8, 1, "a quote that is not closed"),
        ("ability:\"a\\n\"", 10, 1, "\\ stands before"),
        ("ability:\"a\"b", 11, 1, "a space or a comma is missing"),
        ("ability:a\"b\"", 9, 1, "a quote in the middle"),
        ("state:read", 6, 4, "`read` is none of: ready"),
        ("attempt:x", 8, 1, "not a whole number"),
        ("attempt>1,2", 0, 11, "takes one value"),
        ("age:10m", 0, 7, "`age` cannot be asked with `:`, but with `<`"),
        ("age>10", 4, 2, "not a span of time"),
        ("due>tomorrow", 4, 8, "not a time"),
        ("ability>a", 0, 9, "`ability` cannot be asked with `>`"),
        ("attempt~3", 0, 9, "`attempt` cannot be asked with `~`"),
        ("id:7", 3, 1, "not an id"),
        ("queue.x:y", 0, 9, "only `meta` and `arg` have names behind a dot"),
        ("meta:7", 0, 4, "say which value"),
        ("meta.a>x", 7, 1, "not a number"),
        ("ä:1", 0, 1, "there is no field `ä`"),
    ] {
        let error = text.parse::<JobFilter>().expect_err(text);
        assert_eq!((error.position(), error.length()), (position, length), "{text}: {error}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
    let error = "discarded:maybe".parse::<ExceptionFilter>().expect_err("neither");
    assert!(error.to_string().contains("`yes` or `no`"), "{error}");
}

#[test]
fn what_is_too_long_or_too_deep_is_refused() {
    let long = "ability:mail ".repeat(1_000);
    let error = long.parse::<JobFilter>().expect_err("too long");
    assert!(error.reason().contains("at most 10000 characters"), "{}", error.reason());
    for (open, close) in [("(", ")"), ("NOT ", "")] {
        let deep =
            |levels: usize| format!("{}ability:mail{}", open.repeat(levels), close.repeat(levels));
        assert!(deep(60).parse::<JobFilter>().is_ok());
        let error = deep(70).parse::<JobFilter>().expect_err("too deep");
        assert!(error.reason().contains("in each other"), "{}", error.reason());
    }
    let wide = "NOT ability:a ".repeat(200);
    assert!(wide.parse::<JobFilter>().is_ok(), "beside each other they are not deep");
}

#[test]
fn filters_that_are_put_together_are_read_back_from_their_text() {
    let awkward = "a \"b\" \\ (c) * OR";
    let filter =
        JobFilter::ability(awkward).and("state:ready OR state:running".parse().expect("is one"));
    let again: JobFilter = filter.to_string().parse().expect("is one");
    assert_eq!(again.only_texts(Field::Ability), Some(vec![awkward.to_owned()]));
    assert_eq!(
        again.only_texts(Field::State),
        Some(vec!["ready".to_owned(), "running".to_owned()])
    );
    assert_eq!(JobFilter::all().and(JobFilter::queue("q")).to_string(), "queue:\"q\"");
    let id = ExceptionId::new();
    let again: ExceptionFilter =
        ExceptionFilter::exception(id).to_string().parse().expect("is one");
    assert_eq!(again.only_ids(Field::Exception), Some(vec![*id.as_uuid()]));
    let discarded: ExceptionFilter =
        ExceptionFilter::discarded().to_string().parse().expect("is one");
    assert!(discarded.asks_for(Field::Discarded) && !discarded.asks_for(Field::Redriven));
}

#[test]
fn each_list_has_the_fields_of_the_documentation() {
    assert!(fields::<JobInfo>().contains(&"state") && !fields::<JobInfo>().contains(&"kind"));
    assert!(fields::<Exception>().contains(&"kind") && !fields::<Exception>().contains(&"state"));
    assert!(fields::<StatusRow>().contains(&"took") && !fields::<StatusRow>().contains(&"arg"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,60}") {
        let _refused = text.parse::<JobFilter>();
    }

    #[test]
    fn no_words_of_the_language_make_it_panic(words in prop::collection::vec(
        prop::sample::select(vec![
            "ability:", "mail", "(", ")", " ", "NOT ", "OR ", "and ", "\"", "\\", ",", "age>", "10m", "meta.", "a", "=", "*",
            "due<", "2026-11", "arg", ".", "~", "!=", "attempt>=", "3",
        ]),
        0..12,
    )) {
        let text = words.concat();
        if let Err(error) = text.parse::<JobFilter>() {
            prop_assert!(error.position() + error.length() <= text.chars().count(), "{}", error);
        }
    }

    #[test]
    fn a_name_of_any_characters_is_found_by_its_quoted_form(name in "\\PC{0,30}") {
        let again: JobFilter = JobFilter::ability(&name).to_string().parse().expect("is one");
        prop_assert_eq!(again.only_texts(Field::Ability), Some(vec![name]));
    }
}
