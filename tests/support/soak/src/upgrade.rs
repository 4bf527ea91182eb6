use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use qudo::history::{History, Rules};

use crate::{Crew, Load, Options, Phase, Result, World, judge};

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

/// With this, the newer build carries a migration with which no older program may go on.
const BREAKING: &str = "QUDO_TEST_BREAKING_MIGRATION";

/// Two builds side by side over an upgrade, under load.
#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// This program, built with more migrations (`--cfg qudo_upgrade_test`).
    #[arg(long)]
    newer: PathBuf,
}

/// Migrates under load, lets workers of both builds work side by side, and takes the older ones away.
///
/// # Errors
///
/// When something did not go as it should.
pub fn upgrade(arguments: &Upgrade) -> Result<()> {
    let world = World::with_mysql()?;
    let older = std::env::current_exe()?;
    let newer = &arguments.newer;
    let mut first = Crew::start(older, Options::of(&world), 3)?;
    let load = Load::start(&world, 2, Duration::from_millis(10))?;
    more(&load, 200)?;
    load.phase(Phase::During);

    println!("migrating while the older build works");
    let databases = world.databases().len();
    succeed(
        &migrate(newer, &world, false, false)?,
        databases,
        "a migration that older programs may go on with",
    )?;
    more(&load, 200)?;
    let second = Crew::start(newer, Options::of(&world), 2)?;
    works(&world, &first, "the older build goes on")?;
    works(&world, &second, "the newer build works beside it")?;
    // Rolled back: a program of the older build starts on the newer tables.
    let took = first.replace(0)?;
    println!("a worker of the older build was replaced by another in {took:.1?}");
    works(&world, &first, "the older build starts on newer tables")?;

    let refused = migrate(newer, &world, true, false)?;
    fail(
        &refused,
        databases,
        "worker processes live",
        "a migration that live workers must not meet",
    )?;
    more(&load, 100)?;
    let slowest = first.stop()?;
    println!("the older build stopped within {slowest:.1?}");
    works(&world, &second, "the newer build is alone")?;
    let (manager, phases) = load.stop()?;
    let failed: Vec<_> = phases.values().flat_map(|tally| &tally.failed).collect();
    if !failed.is_empty() {
        return Err(format!("enqueues failed: {failed:?}").into());
    }
    let verdict = judge(&world, &manager, &Rules::default(), DEADLINE)?;
    println!("{verdict}");
    if !verdict.faults.is_empty() || verdict.audit.is_some() {
        return Err("jobs were lost or doubled".into());
    }

    second.stop()?;
    let applied = migrate(newer, &world, true, false)?;
    succeed(&applied, databases, "the same migration, when no worker lives")?;
    let options = Options::of(&world);
    let alone = Command::new(std::env::current_exe()?).args(options.arguments()).output()?;
    fail(
        &alone,
        1,
        "newer than this program",
        "a worker of the older build on tables it must not use",
    )?;
    Ok(())
}

fn migrate(program: &Path, world: &World, breaks: bool, force: bool) -> Result<Output> {
    let mut command = Command::new(program);
    command.arg("migrate");
    for (name, dsn) in world.databases() {
        command.arg(format!("--database={name}={dsn}"));
    }
    if force {
        command.arg("--force");
    }
    if breaks {
        command.env(BREAKING, "1");
    }
    Ok(command.output()?)
}

/// A migration was applied to each database.
fn succeed(output: &Output, databases: usize, what: &str) -> Result<()> {
    let told = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || told.matches(": applied ").count() != databases {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what} failed: {told} {said}").into());
    }
    println!("{what}: {}", told.trim());
    Ok(())
}

/// Each database refused and did nothing.
fn fail(output: &Output, databases: usize, because: &str, what: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let done = String::from_utf8_lossy(&output.stdout).contains("applied");
    if output.status.success() || done || said.matches(because).count() < databases {
        return Err(format!("{what} was not refused because of {because:?}: {said}").into());
    }
    println!("{what} is refused: {}", said.lines().next().unwrap_or_default());
    Ok(())
}

/// Waits until `count` more enqueues were answered.
fn more(load: &Load, count: usize) -> Result<()> {
    let goal = load.count() + count;
    until("clients go on", || Ok(load.count() >= goal))
}

/// Waits until each process of this crew has ended more than 20 runs since now.
fn works(world: &World, crew: &Crew, what: &str) -> Result<()> {
    let since = qudo::history::micros(std::time::SystemTime::now());
    until(what, || {
        let history = History::read(world.history())?;
        let runs = |pid: &u32| -> usize {
            let workers = history.workers_of(&format!("worker-{pid}"));
            workers.iter().map(|worker| history.finished_by(worker, since)).sum()
        };
        Ok(crew.pids().iter().all(|pid| runs(pid) > 20))
    })?;
    println!("{what}");
    Ok(())
}

fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !condition()? {
        if begun.elapsed() > DEADLINE {
            return Err(format!("not within {DEADLINE:?}: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
