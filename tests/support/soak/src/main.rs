//! `qudo-soak run --minutes N --seed S`: random faults over four databases, and a verdict.
//! `--jobs N` goes on until so many jobs were accepted, `--defaults` sets no limit of the manager.
//! `cargo xtask soak` calls it.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, Subcommand};
use qudo::history::{Rules, micros};
use qudo_soak::{
    Crew, Hammer, Load, Options, Phase, Result, Upgrade, World, hammer, judge, pair, random,
    upgrade,
};

/// A silent process is dead after 5 s, found within a second, and a call may have taken 2.
const CLAIMS_RETURN: Duration = Duration::from_secs(10);

/// The same where nobody set a limit: 20 s, 5 s and 10 s.
const CLAIMS_RETURN_BY_DEFAULT: Duration = Duration::from_secs(40);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Does random faults to four databases and their workers, and judges.
    Run(Soak),
    /// Lets many clients insert single jobs and many workers claim a few, and counts.
    Hammer(Hammer),
    /// Works; started by `run`.
    Worker(Options),
    /// Lets two builds work side by side over an upgrade under load.
    Upgrade(Upgrade),
    /// Makes or changes the tables; started by `upgrade`.
    Migrate(Migrate),
    /// Moves the waiting jobs of one database to another; started by a test, which kills it.
    Move(Move),
}

#[derive(clap::Args)]
struct Soak {
    /// How long faults are done at least.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// How many jobs are accepted at least, without a pause between two enqueues.
    #[arg(long)]
    jobs: Option<u64>,
    /// Workers with every limit as a user has it who sets none.
    #[arg(long)]
    defaults: bool,
    /// What the faults are chosen by; chosen by chance and printed if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Worker processes.
    #[arg(long, default_value_t = 4)]
    workers: usize,
}

#[derive(clap::Args)]
struct Migrate {
    /// A database, as NAME=DSN.
    #[arg(long = "database", value_parser = pair)]
    databases: Vec<(String, String)>,
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
struct Move {
    /// A database, as NAME=DSN.
    #[arg(long = "database", value_parser = pair)]
    databases: Vec<(String, String)>,
    #[arg(long)]
    from: String,
    #[arg(long)]
    to: String,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let outcome = match Arguments::parse().command {
        Command::Worker(options) => qudo_soak::work(&options).map(|()| true),
        Command::Hammer(options) => hammer(&options).map(|outcome| {
            println!("{outcome}");
            outcome.is_good()
        }),
        Command::Move(Move { databases, from, to }) => {
            move_jobs(&databases, &from, &to).map(|()| true)
        }
        Command::Upgrade(arguments) => upgrade(&arguments).map(|()| true),
        Command::Migrate(Migrate { databases, force }) => migrate(&databases, force),
        Command::Run(soak) => run(&soak),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("qudo-soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if a database refused.
fn migrate(databases: &[(String, String)], force: bool) -> Result<bool> {
    let mut done = true;
    for on in qudo_soak::builder(databases).build()?.migrate_each(force) {
        match on.answer {
            Ok(applied) if applied.is_empty() => println!("{}: up to date", on.database),
            Ok(applied) => println!("{}: applied {}", on.database, applied.join(", ")),
            Err(error) => {
                eprintln!("{error}");
                done = false;
            }
        }
    }
    Ok(done)
}

fn move_jobs(databases: &[(String, String)], from: &str, to: &str) -> Result<()> {
    qudo_soak::builder(databases).build()?.move_jobs(from, to)?;
    Ok(())
}

fn run(soak: &Soak) -> Result<bool> {
    let seed = soak.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {} minutes, {} worker processes", soak.minutes, soak.workers);
    fastrand::seed(seed);
    let world = World::with_mysql()?;
    let short = Options::of(&world);
    let (options, claims_return) = if soak.defaults {
        (short.with_defaults(), CLAIMS_RETURN_BY_DEFAULT)
    } else {
        (short, CLAIMS_RETURN)
    };
    let mut crew = Crew::start(std::env::current_exe()?, options, soak.workers)?;
    // Many jobs in a short time take many clients: each waits for the disk, and for what is away.
    let (clients, pause) = match soak.jobs {
        Some(_) => (16, Duration::ZERO),
        None => (3, Duration::from_millis(10)),
    };
    let load = Load::start(&world, clients, pause)?;
    std::thread::sleep(Duration::from_secs(3));
    load.phase(Phase::During);
    let mut rng = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let mut faults = 0;
    let mut rules = Rules::default();
    while begun.elapsed().as_secs_f64() < soak.minutes * 60.0
        || load.accepted() < soak.jobs.unwrap_or(0)
    {
        let fault = random(&mut rng);
        println!("{:>6.1} s  {fault}", begun.elapsed().as_secs_f32());
        let from = micros(SystemTime::now());
        fault.inject(&world, &mut crew)?;
        // What a claim took that nobody noted is back when its process counts as dead.
        let until = micros(SystemTime::now() + claims_return);
        rules = rules.with_disturbance(from, until);
        faults += 1;
        std::thread::sleep(Duration::from_millis(rng.u64(100..1_500)));
    }
    world.heal()?;
    load.phase(Phase::After);
    std::thread::sleep(Duration::from_secs(4));
    let (took, accepted) = (begun.elapsed(), load.accepted());
    let (manager, phases) = load.stop()?;
    // A backlog of all of them is worked off at a thousand a second at least.
    let limit = Duration::from_secs(120 + accepted / 1_000);
    let verdict = judge(&world, &manager, &rules, limit)?;
    let slowest = crew.stop()?;
    for (phase, tally) in &phases {
        println!("{phase:?}: {tally}");
    }
    let failed = phases.values().any(|tally| !tally.failed.is_empty());
    for error in phases.values().flat_map(|tally| &tally.failed).take(5) {
        println!("an enqueue failed: {error}");
    }
    println!(
        "{faults} faults in {:.0} s, {accepted} jobs accepted; the slowest worker stopped in {:.1} s",
        took.as_secs_f32(),
        slowest.as_secs_f32()
    );
    println!("seed {seed}: {verdict}");
    Ok(verdict.faults.is_empty() && verdict.audit.is_none() && !failed)
}
