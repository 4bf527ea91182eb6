//! The chores of the workspace, run as `cargo xtask <command>`.
//!
//! Each command has a file of its own, named after it. This package must build on a machine that
//! has nothing but Rust and a C compiler, because it installs the rest.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod adapters;
mod bench;
mod cargo;
mod checksums;
mod databases;
mod engine;
mod examples;
mod galera;
mod lints;
mod matrix;
mod packages;
mod picture;
mod program;
mod report;
mod servers;
mod soak;
mod tally;
mod test;
mod tree;
mod upgrade;

/// The error of a chore: a sentence for the developer who reads the terminal.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The chores of the workspace.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(test::Arguments),
    Servers(servers::Arguments),
    Soak(soak::Arguments),
    Matrix(matrix::Arguments),
    #[command(hide = true)]
    MatrixRow(matrix::RowArguments),
    Bench(bench::Arguments),
    Picture(picture::Arguments),
}

fn main() -> ExitCode {
    match Xtask::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Servers(arguments) => servers::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Matrix(arguments) => matrix::run(&arguments),
        Command::MatrixRow(arguments) => matrix::run_one(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Picture(arguments) => picture::run(&arguments),
    }
}
