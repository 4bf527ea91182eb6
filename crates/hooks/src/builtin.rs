//! Hooks that come with the crate. Each is small, and an example to copy.
//!
//! ```
//! use std::time::Duration;
//! use qudo_hooks::builtin::{Deadline, Logging, RetryByKind};
//! use std::sync::Arc;
//! use qudo_hooks::{FailureKind, HookSet, SourceLocation};
//!
//! let mut hooks = HookSet::default();
//! hooks.insert(Arc::new(Logging::default()), SourceLocation::caller())?;
//! hooks.insert(Arc::new(Deadline::of(Duration::from_secs(3600))), SourceLocation::caller())?;
//! hooks.insert(
//!     Arc::new(RetryByKind::default().never(FailureKind::Decode)),
//!     SourceLocation::caller(),
//! )?;
//! assert_eq!(hooks.names(), ["deadline", "logging", "retry-by-kind"]);
//! # Ok::<(), qudo_hooks::HookSetError>(())
//! ```
//!
//! An application gives them to its manager: `.hook(Logging::default())`.

mod allow;
mod breaker;
mod deadline;
mod logging;
#[cfg(feature = "metrics")]
mod metrics;
mod retry;
mod timing;

pub use allow::AllowList;
pub use breaker::CircuitBreaker;
pub use deadline::Deadline;
pub use logging::Logging;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use retry::{RetryByKind, RetryGrowing};
pub use timing::{Timing, TimingReport};
