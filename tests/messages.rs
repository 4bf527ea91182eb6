//! What the compiler says to those who write an ability wrongly.

#![allow(missing_docs, reason = "a test is read, not called")]

#[test]
fn mistakes_are_explained_where_they_are_made() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
