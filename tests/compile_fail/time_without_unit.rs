#[qudo::ability(grab_for = 60)]
fn mail(to: String) {
    println!("{to}");
}

fn main() {}
