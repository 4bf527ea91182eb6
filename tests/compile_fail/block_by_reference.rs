use qudo::Job;

struct Mail;

#[qudo::ability]
impl Mail {
    fn work(&self, _job: &Job) {}
}

fn main() {}
