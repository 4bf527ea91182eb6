use std::error::Error;

use qudo::Job;

#[qudo::ability]
fn scale(_job: &Job, width: u32) -> Result<u32, Box<dyn Error>> {
    Ok(width * 2)
}

fn main() {}
