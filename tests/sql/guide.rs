//! The guide's own statements.

use crate::jobs::all;
use crate::on_every_engine;
use crate::place::Place;

on_every_engine!(every_statement_of_the_guide_does_what_it_says);

const GUIDE: &str = include_str!("../../docs/guide/sql.md");

fn every_statement_of_the_guide_does_what_it_says(place: &mut Place) {
    let heading = match place.engine {
        "sqlite" => "## SQLite",
        "postgres" => "## PostgreSQL",
        _ => "## MySQL and MariaDB",
    };
    let part = GUIDE.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next());
    let blocks: Vec<&str> = part
        .expect("the guide has it")
        .split("```sql")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .collect();
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    for block in &blocks {
        place.client.run(block).unwrap_or_else(|error| panic!("{block}: {error}"));
    }
    let mut jobs: Vec<_> = all(&place.manager)
        .into_iter()
        .map(|job| (job.facts.ability.to_string(), job.facts.queue.to_string(), job.facts.uniqkey))
        .collect();
    jobs.sort();
    let key = || Some("user 7".to_owned());
    let job = |ability: &str, queue: &str, key| (ability.to_owned(), queue.to_owned(), key);
    let wanted = [
        job("remind", "mail", key()),
        job("welcome", "default", None),
        job("welcome", "default", key()),
    ];
    assert_eq!(jobs, wanted);
    place.assert_sound();
}
