//! `sha256sum` as a job queue: one job per regular file, on any mix of databases.
//!
//! Prints what `sha256sum` prints, sorted by path. Killed anywhere and started again it goes on
//! where it was; several processes on one database share the work and each prints everything.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget};
use qudo::{Error, Job, JobError, JobId, JobResult, Manager, NewJob, Standing};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longer than any job takes; a database that is away is waited for.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Prints the SHA-256 of every regular file below a directory.
#[derive(Parser)]
struct Arguments {
    /// The directory.
    directory: PathBuf,
    /// A database to keep the jobs in, several times for several; a SQLite file by default.
    #[arg(long)]
    database: Vec<String>,
    /// Threads that read files.
    #[arg(long)]
    workers: Option<usize>,
}

/// A file that cannot be read fails at once; a crash of the process is tried again many times.
#[qudo::ability(queue = "checksums", max_crashes = 1000)]
fn checksum(_job: &Job, path: OsString) -> JobResult<String> {
    let named = |error| JobError::fail(format!("{}: {error}", Path::new(&path).display()));
    let mut file = std::fs::File::open(&path).map_err(named)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(named(error)),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

/// What lets a killed run be taken up again: a file that holds its id until the run ends.
struct Run {
    id: Uuid,
    marker: PathBuf,
    fresh: bool,
}

impl Run {
    fn begin(marker: PathBuf) -> std::io::Result<Self> {
        // Written aside and linked into place, so that nobody reads half an id.
        let id = Uuid::now_v7();
        let aside = marker.with_extension(id.simple().to_string());
        std::fs::write(&aside, id.to_string())?;
        let linked = std::fs::hard_link(&aside, &marker);
        std::fs::remove_file(&aside)?;
        match linked {
            Ok(()) => Ok(Self { id, marker, fresh: true }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let text = std::fs::read_to_string(&marker)?;
                let id = text.parse().map_err(std::io::Error::other)?;
                Ok(Self { id, marker, fresh: false })
            }
            Err(error) => Err(error),
        }
    }

    /// The same file has the same job in every process of a run.
    fn job(&self, path: &Path) -> NewJob<String> {
        let mut hasher = Sha256::new();
        hasher.update(self.id.as_bytes());
        hasher.update(path.as_os_str().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize()[..16]);
        let id = JobId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid());
        // The key sends it to the same database, too.
        checksum::job(path.as_os_str().to_owned()).with_id(id).uniqkey(id.to_string())
    }
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("checksums: {}", error.message());
            ExitCode::from(2)
        }
    }
}

/// Whether every file was read.
fn run(arguments: &Arguments) -> JobResult<bool> {
    let root = std::path::absolute(&arguments.directory)?;
    let mut hasher = DefaultHasher::new();
    (&root, &arguments.database).hash(&mut hasher);
    let place = std::env::temp_dir().join(format!("qudo-checksums-{:016x}", hasher.finish()));
    let own = place.with_extension("db");
    let mut builder = Manager::builder().heartbeat(Duration::from_secs(1), Duration::from_secs(5));
    if arguments.database.is_empty() {
        builder = builder.database(format!("sqlite:{}", own.display()));
    }
    for (number, dsn) in arguments.database.iter().enumerate() {
        builder = builder.database_as(format!("database-{}", number + 1), dsn);
    }
    if let Some(workers) = arguments.workers {
        builder = builder.workers(workers);
    }
    let manager = builder.build()?;
    manager.migrate()?;
    let (files, mut complete) = find(&arguments.directory)?;
    let run = Run::begin(place.with_extension("run"))?;
    let working = manager.start()?;
    let jobs = enqueue(&manager, &run, &files)?;
    complete &= print(&manager, &files, &jobs)?;
    working.stop();
    if let Err(error) = std::fs::remove_file(&run.marker)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error.into());
    }
    Ok(complete)
}

/// Regular files below a directory, sorted by the bytes of their paths; `false` if some directory
/// could not be read.
fn find(directory: &Path) -> JobResult<(Vec<PathBuf>, bool)> {
    let (mut files, mut complete) = (Vec::new(), true);
    for entry in walkdir::WalkDir::new(directory) {
        match entry {
            Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
            Ok(_) => {}
            Err(error) if error.depth() == 0 => return Err(error.into()),
            Err(error) => {
                eprintln!("checksums: {error}");
                complete = false;
            }
        }
    }
    files.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    Ok((files, complete))
}

/// Enqueues the files that this run does not know yet; returns all jobs in the files' order.
fn enqueue(manager: &Manager, run: &Run, files: &[PathBuf]) -> JobResult<Vec<JobId>> {
    let mut ids = Vec::with_capacity(files.len());
    for chunk in files.chunks(1_000) {
        let mut jobs = Vec::with_capacity(chunk.len());
        for file in chunk {
            let job = run.job(&std::path::absolute(file)?);
            ids.push(job.id());
            // A run that is taken up may have finished this file already.
            if run.fresh || matches!(manager.ticket(job.id()).check()?, Standing::Unknown) {
                jobs.push(job);
            }
        }
        manager.enqueue_many(jobs)?;
    }
    Ok(ids)
}

/// Prints the lines in order as they become known; `false` if some file could not be read.
fn print(manager: &Manager, files: &[PathBuf], jobs: &[JobId]) -> JobResult<bool> {
    let bar = ProgressBar::with_draw_target(Some(files.len() as u64), ProgressDrawTarget::stderr());
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut complete = true;
    for (file, job) in files.iter().zip(jobs) {
        match manager.ticket(*job).wait_as::<String>(PATIENCE) {
            Ok(sum) => write_line(&mut out, &sum, file)?,
            Err(Error::JobFailed { message, .. }) => {
                bar.suspend(|| eprintln!("checksums: {message}"));
                complete = false;
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(complete)
}

/// As `sha256sum` writes it: a name with a backslash or a line break is escaped, and so marked.
fn write_line(out: &mut impl Write, sum: &str, file: &Path) -> std::io::Result<()> {
    let name = file.as_os_str().as_bytes();
    if !name.iter().any(|byte| b"\\\n\r".contains(byte)) {
        write!(out, "{sum}  ")?;
        out.write_all(name)?;
        return out.write_all(b"\n");
    }
    write!(out, "\\{sum}  ")?;
    for byte in name {
        match byte {
            b'\\' => out.write_all(b"\\\\")?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            byte => out.write_all(&[*byte])?,
        }
    }
    out.write_all(b"\n")
}
