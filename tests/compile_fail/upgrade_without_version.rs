#[qudo::ability(upgrade = |_, arg| Ok::<_, qudo::JobError>(arg))]
fn mail(to: String) {
    println!("{to}");
}

fn main() {}
