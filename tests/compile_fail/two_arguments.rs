use qudo::{Job, JobResult};

#[qudo::ability]
fn scale(_job: &Job, width: u32, height: u32) -> JobResult<u32> {
    Ok(width * height)
}

fn main() {}
