//! The numbers of the databases for Prometheus.

mod page;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use qudo::Manager;

use crate::Failure;
use crate::output::say;
use crate::sources::Databases;
use page::{Ask, page};

/// What is told, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// Answer Prometheus at this address, such as `127.0.0.1:9717`, at /metrics, until the process is ended. Without it the numbers are
    /// printed once.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How many seconds a database has to answer; less than the scrape's own timeout.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = crate::health::seconds)]
    timeout: Duration,
    /// Jobs are counted up to this number.
    #[arg(long, value_name = "JOBS", default_value_t = 1_000_000)]
    count_to: u64,
}

/// Prints the numbers, or answers for them.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let ask = Ask { limit: arguments.timeout, count_to: arguments.count_to };
    let Some(address) = arguments.listen else {
        let text = page(manager, ask).map_err(|error| Failure::Usage(error.to_string()))?;
        say(text.trim_end());
        return Ok(ExitCode::SUCCESS);
    };
    server::serve(manager.clone(), ask, address)
        .map_err(|error| Failure::Usage(format!("cannot listen at {address}: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
