#[qudo::ability(grab_for = "2 fortnights")]
fn slow() {}

fn main() {}
