//! One guide a module, in reading order.

#[doc = include_str!("../docs/guide/start.md")]
pub mod start {}

#[doc = include_str!("../docs/guide/databases.md")]
pub mod databases {}

#[doc = include_str!("../docs/guide/abilities.md")]
pub mod abilities {}

#[doc = include_str!("../docs/guide/enqueuing.md")]
pub mod enqueuing {}

#[doc = include_str!("../docs/guide/replies.md")]
pub mod replies {}

#[doc = include_str!("../docs/guide/sql.md")]
pub mod sql {}

#[doc = include_str!("../docs/guide/hooks.md")]
pub mod hooks {}

#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

#[doc = include_str!("../docs/guide/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/guide/monitoring.md")]
pub mod monitoring {}

#[doc = include_str!("../docs/guide/promises.md")]
pub mod promises {}

#[doc = include_str!("../docs/guide/limits.md")]
pub mod limits {}

#[doc = include_str!("../docs/guide/performance.md")]
pub mod performance {}

#[doc = include_str!("../docs/from-perl.md")]
pub mod from_perl {}
