#[qudo::ability]
fn greet(name: &str) {
    println!("hello {name}");
}

fn main() {}
