struct Mail;

#[qudo::ability]
impl Mail {
    fn send(self) {}
}

fn main() {}
