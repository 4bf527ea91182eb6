//! qudo under real faults.
//!
//! A [`World`] is one SQLite file, one PostgreSQL, one MariaDB and where wanted one MySQL, the servers behind proxies. A
//! [`Crew`] is worker processes on it, a [`Load`] client threads that enqueue without a pause. Faults
//! are done to the world and the crew; at the end everything is healed, worked off, and the history
//! that every process recorded is [judged](judge).
//!
//! The program `qudo-soak` does this at random, from a seed; the tests do one fault at a time.

mod abilities;
mod crew;
mod fault;
mod hammer;
mod load;
mod upgrade;
mod verdict;
mod world;

pub use abilities::{Effort, effort};
pub use crew::{Crew, Options, pair, work};
pub use fault::{Fault, random};
pub use hammer::{Hammer, Outcome, hammer};
pub use load::{Load, Phase, Tally, client};
pub use upgrade::{Upgrade, upgrade};
pub use verdict::{Verdict, judge};
pub use world::{World, builder};

/// The error of a run: a sentence for whoever reads the terminal.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
