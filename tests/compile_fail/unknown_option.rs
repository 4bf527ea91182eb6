#[qudo::ability(retries = 3)]
fn mail(to: String) {
    println!("{to}");
}

fn main() {}
