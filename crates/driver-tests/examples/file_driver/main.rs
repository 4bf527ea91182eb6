//! A driver that keeps everything in one file, as an example of how a driver is written.
//!
//! It is slow, because each step writes the whole file, and it is complete: it passes every behaviour of this
//! crate (`tests/files.rs`). Read `driver.rs` for the port, `state.rs` for what each step means, `file.rs` for how a
//! step becomes atomic and durable.
//!
//! ```sh
//! cargo run -p qudo-driver-tests --example file_driver
//! ```

mod driver;
mod file;
mod state;

use std::time::Duration;

use qudo::{JobResult, Manager};

#[qudo::ability]
fn greet(name: String) -> JobResult<String> {
    Ok(format!("hello {name}"))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let place = std::env::temp_dir().join(format!("qudo-{}", std::process::id()));
    // The driver registered its scheme when it was linked.
    let dsn = format!("file:{}", place.join("jobs.json").display());
    let manager = Manager::builder().database(&*dsn).build()?;
    manager.migrate()?;
    let working = manager.start()?;
    let sent = manager.enqueue(greet::job("file".to_owned()))?;
    println!("{}", sent.wait_as::<String>(Duration::from_secs(10))?);
    working.stop();
    std::fs::remove_dir_all(place)?;
    Ok(())
}
