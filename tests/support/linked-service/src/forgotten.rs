//! Names nobody, so that the linker may drop the crate of its abilities; prints what is said then.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = qudo::Manager::builder().database("memory:forgotten").build()?;
    match manager.start() {
        Ok(_) => println!("it works"),
        Err(error) => println!("{error}"),
    }
    Ok(())
}
