#![no_main]

#[path = "../dsn.rs"]
mod dsn;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dsn::check(bytes));
