/// The channel; the payload is the queue's name and nothing else.
pub(super) const CHANNEL: &str = "qudo";
