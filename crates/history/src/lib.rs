//! Histories of the `qudo` job queue: what many processes did, written to files, and a checker that
//! finds what should not have happened.
//!
//! Every process of a test records into a file of its own with a [`Recorder`]. At the end
//! [`History::read`] puts the files together, [`Remains::of`] asks the databases what is left, and
//! [`check`] lists every [`Fault`]:
//!
//! * every job whose enqueue was answered has ended, was dequeued, is in the exception log, or is
//!   still there;
//! * runs of one job do not overlap unless the earlier one had lost its lease, none begins after
//!   the job's end, and one run ends it;
//! * a unique key never lives twice;
//! * a reply was written by the run that ended the job;
//! * jobs of one queue in one database are claimed by priority.
//!
//! Use it for your own service: run it under the faults you fear, and let the checker say whether a
//! job was lost.
//!
//! ```
//! use std::time::Duration;
//! use qudo_core::{Ability, Job, Manager, JobResult};
//! use qudo_history::{History, Recorder, Remains, check};
//!
//! struct Greet;
//! impl Ability for Greet {
//!     const NAME: &'static str = "greet";
//!     type Arg = String;
//!     type Reply = ();
//!     fn work(_: &Job, _name: String) -> JobResult<()> { Ok(()) }
//! }
//!
//! let files = tempfile::tempdir()?;
//! let manager = Manager::builder()
//!     .database("memory:checked")
//!     .ability::<Greet>()
//!     .observer(Recorder::create(files.path().join("one.jsonl"))?)
//!     .build()?;
//! manager.enqueue(Greet::job("world".to_owned()))?;
//! manager.work_once()?;
//!
//! let history = History::read(files.path())?;
//! assert_eq!((history.len(), history.runs()), (1, 1));
//! assert_eq!(check(&history, &Remains::of(&manager)?), []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod event;
mod history;
mod recorder;

pub use check::{Fault, Rules, check};
pub use event::{Answer, Line, Micros, Step, micros};
pub use history::{History, Remains};
pub use recorder::Recorder;
