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
use crate::spans::timeout;
use page::{Ask, page};

/// Which databases to ask, and where to answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// Answer Prometheus at this address, such as `127.0.0.1:9717`, at /metrics, until the process is ended. Without it the numbers are
    /// printed once.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How many seconds a database has to answer; less than the scrape's own timeout.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = timeout)]
    timeout: Duration,
    /// Jobs are counted up to this number.
    #[arg(long, value_name = "JOBS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    count_to: u64,
    /// The greatest number of pairs of queue and ability of a database; each has 66 series.
    #[arg(long, value_name = "PAIRS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pairs: u32,
}

/// Prints the numbers once: 0 when all databases answered all questions, 2 when one did not. With `--listen` it answers scrapes until the process is stopped.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { timeout: limit, count_to, pairs, .. } = *arguments;
    let ask = Ask { limit, count_to, pairs };
    let Some(address) = arguments.listen else {
        let page = page(manager, ask).map_err(|error| Failure::Usage(error.to_string()))?;
        say(page.text.trim_end());
        for (database, trouble) in &page.troubles {
            eprintln!("qudo: database {database:?}: {trouble}");
        }
        let whole = page.troubles.is_empty();
        return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(2) });
    };
    server::serve(manager.clone(), ask, address)
        .map_err(|error| Failure::Usage(format!("cannot listen at {address}: {error}")))?;
    Ok(ExitCode::SUCCESS)
}
