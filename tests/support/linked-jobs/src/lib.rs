//! Abilities, a hook and a plugin in a crate of their own: whoever links it has them.

use qudo::hook::Hook;
use qudo::plugin::Plugin;
use qudo::{Job, JobResult};

/// Answers with twice its argument.
///
/// # Errors
///
/// Without the plugin.
#[qudo::ability]
pub fn linked_double(job: &Job, n: u64) -> JobResult<u64> {
    Ok(n * job.plugin::<Factor>()?.0)
}

/// An ability without a macro.
#[derive(Debug)]
pub struct Plain;

impl qudo::Ability for Plain {
    const NAME: &'static str = "linked_plain";
    type Arg = ();
    type Reply = ();

    fn work(_job: &Job, (): ()) -> JobResult {
        Ok(())
    }
}

qudo::register!(Plain);

/// What is multiplied with.
#[derive(Debug)]
pub struct Factor(u64);

impl Plugin for Factor {
    const NAME: &'static str = "factor";
    type Options = ();

    fn build((): ()) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(2))
    }
}

qudo::plugin::register_plugin!(Factor);

struct Seen;

impl Hook for Seen {
    fn name(&self) -> &'static str {
        "linked-hook"
    }
}

qudo::hook::register_hook!(Seen);
