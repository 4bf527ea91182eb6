use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use qudo_test_servers::ensure_installed;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Result;
use crate::databases::Databases;
use crate::engine::Engines;

/// Start a private server of each kind, for running single tests, until Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Keep every commit over a kill; slower.
    #[arg(long)]
    durable: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<()> {
    // Before the start, so that an early Ctrl-C ends the servers in the orderly way too.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let engines = Engines::all();
    ensure_installed(&engines.packages())?;
    let databases = Databases::start(&engines, arguments.durable)?;
    let mut stdout = std::io::stdout().lock();
    for (name, url) in databases.variables() {
        writeln!(stdout, "export {name}={url}")?;
    }
    stdout.flush()?;
    eprintln!("Ctrl-C stops the servers and removes their data.");
    signals.forever().next();
    Ok(())
}
