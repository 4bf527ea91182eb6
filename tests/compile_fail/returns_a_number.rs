use qudo::Job;

#[qudo::ability]
fn scale(_job: &Job, width: u32) -> u32 {
    width * 2
}

fn main() {}
