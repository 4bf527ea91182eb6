use crate::tools::time::Instant;

/// A claim whose answer was lost.
#[derive(Clone, Copy)]
pub(crate) struct Uncertain {
    pub(crate) claim: i64,
    /// A server that gets to it later leases nothing. Before, it may do so after a release that found
    /// nothing, and another is needed.
    pub(crate) deadline: Instant,
    pub(crate) released: bool,
}
