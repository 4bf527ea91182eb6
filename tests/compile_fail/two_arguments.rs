use qudo::{Job, Result};

#[qudo::ability]
fn scale(_job: &Job, width: u32, height: u32) -> Result<u32> {
    Ok(width * height)
}

fn main() {}
