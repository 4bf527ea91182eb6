/// The URL of the server that a test run has for an engine: `postgres`, `pooler`, `mariadb` or `mysql`.
///
/// `None` for an engine that this machine cannot have today, which `QUDO_TEST_WITHOUT` names; a test
/// then says so and ends.
///
/// # Panics
///
/// When neither the variable `QUDO_TEST_ENGINE_URL` of the engine is set nor the engine left out:
/// a test that nobody meant to leave out must not pass unseen.
pub fn given(engine: &str) -> Option<String> {
    let without = std::env::var("QUDO_TEST_WITHOUT").unwrap_or_default();
    if without.split(',').any(|one| one == engine) {
        println!("NOT RUN: this machine has no server for {engine} today");
        return None;
    }
    let variable = format!("QUDO_TEST_{}_URL", engine.to_uppercase());
    let url = std::env::var(&variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run `cargo xtask test`"));
    Some(url)
}
