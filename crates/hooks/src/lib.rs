//! Hooks and plugins of the `qudo` job queue, and the views they see.
//!
//! This is the ground floor of the tower: it knows neither databases nor the
//! manager. A [`Hook`] is called at fixed points of a job's life, a plugin is a
//! named, typed object that abilities reach through their job, and a [`Codec`]
//! turns a typed argument into bytes and back.
//!
//! ```
//! use qudo_hooks::{Hook, HookError, JobDraft, JobFields};
//!
//! struct NoEmptyQueues;
//!
//! impl Hook for NoEmptyQueues {
//!     fn name(&self) -> &str {
//!         "no-empty-queues"
//!     }
//!
//!     fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
//!         if job.queue().is_empty() {
//!             job.set_queue("default");
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let mut fields = JobFields::json("", serde_json::json!({"n": 1}));
//! NoEmptyQueues.pre_enqueue(&mut JobDraft::new("count", &mut fields))?;
//! assert_eq!(fields.queue(), "default");
//! # Ok::<(), HookError>(())
//! ```

pub mod builtin;
mod codec;
#[cfg(feature = "zstd")]
mod compressed;
mod draft;
#[cfg(feature = "aead")]
mod encrypted;
mod erased;
mod error;
mod hook;
mod id;
mod location;
mod meta;
mod outcome;
mod plugin;
mod raw;
mod redact;
mod set;
mod view;

#[cfg(feature = "msgpack")]
pub use codec::MessagePack;
pub use codec::{Codec, CodecError, CodecSet, JSON, Json, decode, encode};
#[cfg(feature = "zstd")]
pub use compressed::Compressed;
pub use draft::{Arg, Due, JobDraft, JobFields};
#[cfg(feature = "aead")]
pub use encrypted::Encrypted;
pub use erased::{Encodable, TypedArg, Visit};
pub use error::{HookError, Veto};
pub use hook::Hook;
pub use id::{JobId, ParseJobIdError};
pub use location::SourceLocation;
pub use meta::Meta;
pub use outcome::{Decision, Failure, FailureKind, Outcome};
pub use plugin::{
    LivePlugin, Plugin, PluginError, PluginNeed, PluginRegistration, PluginSet, WorkerView,
};
pub use raw::Raw;
pub use set::{HookRegistration, HookSet, HookSetError};
pub use view::JobView;

/// The `inventory` that [`register_hook!`] submits to; not part of the public interface.
#[doc(hidden)]
pub use inventory;
