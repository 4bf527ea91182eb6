//! The arguments of the commands that are about one job.

use qudo::JobId;

use crate::sources::Databases;

/// Which job the command is about.
#[derive(Debug, clap::Args)]
pub(crate) struct OneJob {
    /// The id of the job.
    pub(crate) job: JobId,
    /// One JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}
