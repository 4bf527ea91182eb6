//! What is refused: the same as an enqueue by the library refuses.

use chrono::{TimeDelta, Utc};
use qudo::NewJob;

use crate::on_every_engine;
use crate::place::{Asked, Place};

on_every_engine!(
    names_and_keys_are_refused_exactly_where_the_library_refuses_them,
    metadata_is_refused_exactly_where_the_library_refuses_it,
    values_that_cannot_be_stored_are_refused_and_leave_nothing,
    the_limits_themselves_are_within_them,
    a_database_that_drains_takes_no_jobs,
);

/// Texts on both sides of every rule. Without NUL, which no client but SQLite's can send.
fn texts() -> Vec<String> {
    let odd = [
        "",
        " ",
        "a",
        "a b",
        " a",
        "a ",
        "a\u{a0}",
        "\u{2003}a",
        "a\u{3000}",
        "\u{1680}a",
        "\u{feff}a",
        "a\n",
        "\na",
        "a\tb",
        "a\u{1}",
        "a\u{7f}",
        "a\u{85}",
        "a\u{9f}b",
        "a\u{2028}",
        "köln",
        "数",
        "😀",
        "a'b\"c\\d%e_f`g",
        "{}",
        "NULL",
        "-- x",
        "\u{200b}",
        "e\u{301}",
    ];
    let mut all: Vec<String> = odd.into_iter().map(str::to_owned).collect();
    for length in [99, 100, 101, 500, 501] {
        all.push("x".repeat(length));
    }
    // Of two bytes: 50 are 100 bytes.
    all.extend([50, 51, 250, 251].map(|length| "é".repeat(length)));
    all
}

fn names_and_keys_are_refused_exactly_where_the_library_refuses_them(place: &mut Place) {
    for text in texts() {
        let library = |job: NewJob| place.manager.enqueue(job).is_ok();
        let named = |name: &str| NewJob::named(name.to_owned(), 1.into());
        let cases = [
            ("ability", library(named(&text)), Asked::of(&text)),
            (
                "queue",
                library(named("a").queue(text.clone())),
                Asked { queue: Some(text.clone()), ..Asked::of("a") },
            ),
            ("key", library(named("lib").uniqkey(text.clone())), Asked::of("sql").key(&text)),
        ];
        for (what, accepted, asked) in cases {
            let answer = place.client.enqueue(&asked);
            assert_eq!(answer.is_ok(), accepted, "{what} {text:?}: {answer:?}");
            if let Err(reason) = answer {
                let what = if what == "key" { "unique key" } else { what };
                assert!(
                    reason.contains("qudo: the ") && reason.contains(what),
                    "{text:?}: {reason}"
                );
            }
        }
    }
    place.assert_sound();
}

/// Lists in each other.
fn nested(levels: usize) -> String {
    format!("{{\"a\":{}1{}}}", "[".repeat(levels), "]".repeat(levels))
}

fn metadata_is_refused_exactly_where_the_library_refuses_it(place: &mut Place) {
    for text in texts() {
        let library = |job: NewJob| place.manager.enqueue(job).is_ok();
        let job = || NewJob::named("a", 1.into());
        let quoted = serde_json::Value::from(text.clone());
        let cases = [
            ("name", library(job().meta(text.clone(), 1)), format!("{{{quoted}:1}}")),
            ("tag", library(job().tag(text.clone())), format!("{{\"tags\":[\"fine\",{quoted}]}}")),
        ];
        for (what, accepted, meta) in cases {
            let answer = place.client.enqueue(&Asked { meta: Some(meta), ..Asked::of("a") });
            assert_eq!(answer.is_ok(), accepted, "{what} {text:?}: {answer:?}");
        }
    }
    let mut refused = vec![
        "[1]".to_owned(),
        "1".to_owned(),
        "\"x\"".to_owned(),
        "null".to_owned(),
        nested(65),
        "{\"tags\":1}".to_owned(),
        "{\"tags\":{\"a\":1}}".to_owned(),
        "{\"tags\":[1]}".to_owned(),
        "{\"tags\":[\"a\",[\"b\"]]}".to_owned(),
        format!("{{\"a\":\"{}\"}}", "x".repeat(65_536)),
    ];
    // PostgreSQL and MySQL refuse these by themselves.
    refused.extend(["{\"a\":1".to_owned(), "x".to_owned(), String::new()]);
    for meta in refused {
        let answer =
            place.client.enqueue(&Asked { meta: Some(meta.clone()), ..Asked::of("refused") });
        let shown: String = meta.chars().take(80).collect();
        let reason = answer.expect_err(&shown);
        assert!(reason.contains("qudo: ") || reason.contains("json"), "{shown}: {reason}");
    }
    let mut fine = vec![
        "{}".to_owned(),
        "{\"tags\":[]}".to_owned(),
        format!("{{\"a\":\"{}\"}}", "x".repeat(65_000)),
        "{\"a\":\"[[[{{{\",\"b\":{\"tags\":[1]},\"ü\":[\"数\",null,true,1.5]}".to_owned(),
        format!("{{\"a\":\"{}\"}}", "é".repeat(32_000)),
    ];
    // MariaDB reads 32 levels.
    fine.push(nested(if place.engine == "mariadb" { 29 } else { 64 }));
    for meta in fine {
        let asked = Asked { meta: Some(meta.clone()), ..Asked::of("fine") };
        let (id, _) =
            place.client.enqueue(&asked).unwrap_or_else(|error| panic!("{meta}: {error}"));
        let job = crate::jobs::find(&place.manager, id);
        let wanted: serde_json::Value = serde_json::from_str(&meta).expect("JSON");
        let stored = job.facts.meta.as_deref().unwrap_or("{}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(stored).expect("JSON"), wanted);
    }
    let refused =
        crate::jobs::all(&place.manager).into_iter().filter(|job| &*job.facts.ability == "refused");
    assert_eq!(refused.count(), 0);
    place.assert_sound();
}

fn values_that_cannot_be_stored_are_refused_and_leave_nothing(place: &mut Place) {
    let fine = || Asked::of("a").key("k");
    let late = Utc::now() + TimeDelta::days(368);
    let cases = [
        (Asked { ability: None, ..fine() }, "ability"),
        (Asked { arg: Some("{".to_owned()), ..fine() }, "json"),
        (Asked { arg: Some("'x'".to_owned()), ..fine() }, "json"),
        (Asked { arg: Some(String::new()), ..fine() }, "json"),
        (Asked { arg: Some("{\"a\":1} x".to_owned()), ..fine() }, "json"),
        (Asked { arg: Some(format!("\"{}\"", "x".repeat(8_388_607))), ..fine() }, "8388608"),
        (Asked { priority: Some(1 << 31), ..fine() }, ""),
        (Asked { priority: Some(-(1 << 31) - 1), ..fine() }, ""),
        (Asked { run_after: Some(late), ..fine() }, "a year"),
        (Asked { id: Some("no id".to_owned()), ..fine() }, "uuid"),
        (Asked { id: Some("01a22d3f0bac7000b30b1991f0c194b".to_owned()), ..fine() }, "uuid"),
    ];
    for (asked, reason) in cases {
        let shown = format!("{asked:?}").chars().take(200).collect::<String>();
        let refused = place.client.enqueue(&asked).expect_err(&shown);
        assert!(refused.to_lowercase().contains(reason), "{shown}: {refused}");
    }
    assert!(crate::jobs::all(&place.manager).is_empty());
    assert!(place.client.enqueue(&fine()).expect("stored").1, "the key is free");
    place.assert_sound();
}

fn the_limits_themselves_are_within_them(place: &mut Place) {
    let near = Utc::now() + TimeDelta::days(365);
    let asked = Asked {
        arg: Some(format!("\"{}\"", "x".repeat(8_388_606))),
        priority: Some(i64::from(i32::MAX)),
        run_after: Some(near),
        queue: Some("q".repeat(100)),
        ..Asked::of(&"a".repeat(100)).key(&"k".repeat(500))
    };
    if place.engine == "mysql" || place.engine == "mariadb" {
        let packet = place.client.ask("SELECT CAST(@@max_allowed_packet AS CHAR) AS one");
        assert!(packet.and_then(|text| text.parse::<u64>().ok()) > Some(9_000_000), "it fits");
    }
    let (id, is_new) = place.client.enqueue(&asked).expect("stored");
    assert!(is_new);
    let job = crate::jobs::find(&place.manager, id);
    assert_eq!((job.facts.priority, job.facts.arg.len()), (i32::MAX, 8_388_608));
    let lowest = Asked { priority: Some(i64::from(i32::MIN)), ..Asked::of("low") };
    let (id, _) = place.client.enqueue(&lowest).expect("stored");
    let job = crate::jobs::find(&place.manager, id);
    assert_eq!(job.facts.priority, -i32::MAX, "as the library stores it");
    place.assert_sound();
}

fn a_database_that_drains_takes_no_jobs(place: &mut Place) {
    let name = place.manager.database_names().remove(0);
    place.manager.drain(&name).expect("ordered");
    let refused = place.client.enqueue(&Asked::of("a")).expect_err("it drains");
    assert!(refused.contains("qudo: the database is draining"), "{refused}");
    assert!(crate::jobs::all(&place.manager).is_empty());
    place.manager.undrain(&name).expect("ordered");
    assert!(place.client.enqueue(&Asked::of("a")).expect("stored").1);
}
