//! Names the crate of its abilities, and prints what is linked.

use std::time::Duration;

use qudo::{Manager, NewJob};
use qudo_linked_jobs as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = Manager::builder().database("memory:linked").build()?;
    for ability in manager.abilities() {
        println!("{} at {}", ability.name, ability.location);
    }
    println!("{manager:?}");
    let sent = manager.enqueue(NewJob::named("linked_double", 21.into()))?;
    manager.work_once()?;
    println!("{}", sent.wait_as::<u64>(Duration::ZERO)?);
    Ok(())
}
