#[qudo::ability]
struct Mail {
    to: String,
}

fn main() {}
