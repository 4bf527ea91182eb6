//! What an error says, with its causes.

/// An error with its causes in one line, as logs and the exception log show it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Our own errors and those of some libraries tell their causes themselves.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let io = std::io::Error::other(std::fmt::Error);
        let told = with_causes(&io);
        assert_eq!(told.matches(&std::fmt::Error.to_string()).count(), 1, "{told}");
        let number = "x".parse::<u8>().expect_err("no number");
        assert_eq!(with_causes(&number), number.to_string());
    }
}
