#[qudo::ability]
fn store<T>(value: T) {
    drop(value);
}

fn main() {}
