/// Whether a test run is about an engine: `postgres`, `pooler`, `mariadb` or `mysql`.
///
/// `QUDO_TEST_ENGINES` names the engines of a partial run, of which `mixed` stands for the three
/// servers and `pooled` for PostgreSQL with its pooler; unset it means all. `QUDO_TEST_WITHOUT`
/// names those that this machine cannot have today. The reason is printed.
pub fn takes_part(engine: &str) -> bool {
    let listed = |variable| std::env::var(variable).unwrap_or_default();
    let without = listed("QUDO_TEST_WITHOUT");
    if without.split(',').any(|one| one == engine) {
        println!("NOT RUN: this machine has no server for {engine} today");
        return false;
    }
    let chosen = listed("QUDO_TEST_ENGINES");
    let meant = chosen.is_empty() || chosen.split(',').any(|one| is_part_of(engine, one));
    if !meant {
        println!("left out: QUDO_TEST_ENGINES={chosen} is not about {engine}");
    }
    meant
}

/// Whether a test that starts a server of its own can do so, as [`takes_part`]; a run on a named
/// server may have to go without.
pub fn can_start(engine: &str) -> bool {
    let without = std::env::var("QUDO_TEST_WITHOUT").unwrap_or_default();
    let own = format!("own {engine}");
    if without.split(',').any(|one| one == own) {
        println!("NOT RUN: this machine cannot start a server of {engine} today");
        return false;
    }
    takes_part(engine)
}

fn is_part_of(engine: &str, chosen: &str) -> bool {
    match chosen {
        "mixed" => engine != "pooler",
        "pooled" => engine == "pooler" || engine == "postgres",
        chosen => engine == chosen,
    }
}

/// The URL of the server that a test run has for an engine: `postgres`, `pooler`, `mariadb` or `mysql`.
///
/// `None` for an engine that does not [take part](takes_part); a test then ends.
///
/// # Panics
///
/// When the engine takes part and its variable `QUDO_TEST_ENGINE_URL` is not set: a test that nobody
/// meant to leave out must not pass unseen.
pub fn given(engine: &str) -> Option<String> {
    if !takes_part(engine) {
        return None;
    }
    let variable = format!("QUDO_TEST_{}_URL", engine.to_uppercase());
    let url = std::env::var(&variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run `cargo xtask test`"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::is_part_of;

    #[test]
    fn a_partial_run_is_about_the_servers_of_its_engines() {
        assert!(is_part_of("mysql", "mysql") && !is_part_of("mysql", "mariadb"));
        assert!(is_part_of("mysql", "mixed") && !is_part_of("pooler", "mixed"));
        assert!(is_part_of("postgres", "pooled") && is_part_of("pooler", "pooled"));
        assert!(!is_part_of("mariadb", "pooled") && !is_part_of("mariadb", "sqlite"));
    }
}
