//! The README's complete example is the file that is run.

#![allow(missing_docs, reason = "a test is read, not called")]

#[test]
fn the_readme_shows_the_quickstart_to_the_letter() {
    let example = include_str!("../examples/quickstart.rs");
    assert!(include_str!("../README.md").contains(example));
}
