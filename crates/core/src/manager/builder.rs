use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{Codec, CodecSet, Hook, HookSet, PluginError, PluginSet, SourceLocation};

use super::bell::Epoch;
use super::database::Database;
use super::names::check_name;
use super::{Inner, Manager};
use crate::backoff::LONGEST_DELAY;
use crate::driver::DriverRegistration;
use crate::{Ability, AbilitySet, Driver, Error};

/// Settings of a manager, checked.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) find_job_limit_size: Option<u32>,
    pub(crate) retry_seconds: Duration,
    pub(crate) delay: Duration,
    pub(crate) workers: usize,
    pub(crate) queues: Option<Vec<Arc<str>>>,
    pub(crate) grab_for: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) heartbeat_every: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) max_arg_size: usize,
    pub(crate) keep_replies: Duration,
    pub(crate) keep_job_status: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            find_job_limit_size: None,
            retry_seconds: Duration::from_secs(30),
            delay: Duration::from_secs(5),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            queues: None,
            grab_for: Duration::from_secs(3600),
            shutdown_timeout: Duration::from_secs(30),
            heartbeat_every: Duration::from_secs(5),
            dead_after: Duration::from_secs(30),
            max_arg_size: 8 * 1024 * 1024,
            keep_replies: Duration::from_secs(7 * 24 * 3600),
            keep_job_status: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

/// Describes a [`Manager`].
///
/// Nothing connects before it must: a database that is down does not fail the build.
#[must_use = "a builder does nothing until build is called"]
pub struct ManagerBuilder {
    options: Options,
    sources: Vec<Source>,
    linked: bool,
    abilities: Vec<InsertAbility>,
    ability_places: Vec<SourceLocation>,
    hooks: Vec<(Arc<dyn Hook>, SourceLocation)>,
    plugins: PluginSet,
    plugin_error: Option<PluginError>,
    codecs: CodecSet,
}

type InsertAbility = fn(&mut AbilitySet, SourceLocation) -> Result<(), Error>;

enum Source {
    Dsn { name: Option<String>, dsn: String },
    Driver { name: String, driver: Arc<dyn Driver> },
}

impl Default for ManagerBuilder {
    fn default() -> Self {
        Self {
            options: Options::default(),
            sources: Vec::new(),
            linked: true,
            abilities: Vec::new(),
            ability_places: Vec::new(),
            hooks: Vec::new(),
            plugins: PluginSet::default(),
            plugin_error: None,
            codecs: CodecSet::default(),
        }
    }
}

impl ManagerBuilder {
    /// Adds a database by its data source name: `sqlite:FILE`, `postgres://…`, `mysql://…` or
    /// `memory:NAME`. Its short name is taken from it: the file's stem, or `database@host`.
    pub fn database(mut self, dsn: impl Into<String>) -> Self {
        self.sources.push(Source::Dsn { name: None, dsn: dsn.into() });
        self
    }

    /// Adds a database under a short name of your own, for logs, tickets and
    /// [`NewJob::database`](crate::NewJob::database).
    pub fn database_as(mut self, name: impl Into<String>, dsn: impl Into<String>) -> Self {
        self.sources.push(Source::Dsn { name: Some(name.into()), dsn: dsn.into() });
        self
    }

    /// Adds a driver of your own under a short name.
    pub fn driver(mut self, name: impl Into<String>, driver: Arc<dyn Driver>) -> Self {
        self.sources.push(Source::Driver { name: name.into(), driver });
        self
    }

    /// Adds an ability explicitly, beside those linked.
    #[track_caller]
    pub fn ability<A: Ability>(mut self) -> Self {
        self.abilities.push(AbilitySet::insert::<A>);
        self.ability_places.push(SourceLocation::caller());
        self
    }

    /// Adds a hook explicitly, beside those linked.
    #[track_caller]
    pub fn hook(mut self, hook: impl Hook + 'static) -> Self {
        self.hooks.push((Arc::new(hook), SourceLocation::caller()));
        self
    }

    /// Adds an object that abilities reach by its type with [`Job::plugin`](crate::Job::plugin).
    pub fn plugin<P: Send + Sync + 'static>(mut self, plugin: P) -> Self {
        if let Err(error) = self.plugins.insert(plugin) {
            self.plugin_error.get_or_insert(error);
        }
        self
    }

    /// Adds a codec, or replaces the one of its name.
    pub fn codec(mut self, codec: impl Codec + 'static) -> Self {
        self.codecs.insert(Arc::new(codec));
        self
    }

    /// Whether abilities and hooks that registered themselves at link time are used. Default: yes.
    pub fn linked(mut self, yes: bool) -> Self {
        self.linked = yes;
        self
    }

    /// The most jobs that one claim takes, 1 to 10,000. Not set: adaptive, starting at 30 and
    /// growing to 1,000 while jobs are short.
    pub fn find_job_limit_size(mut self, jobs: u32) -> Self {
        self.options.find_job_limit_size = Some(jobs);
        self
    }

    /// How many seconds a dead database is left alone at most before it is tried again.
    /// Default: 30. The first tries come sooner.
    pub fn retry_seconds(mut self, seconds: u64) -> Self {
        self.options.retry_seconds = Duration::from_secs(seconds);
        self
    }

    /// The longest pause between two looks at an idle database. Default: 5 s. Wake-ups end it.
    pub fn delay(mut self, pause: Duration) -> Self {
        self.options.delay = pause;
        self
    }

    /// How many threads run jobs. Default: one per core.
    pub fn workers(mut self, threads: usize) -> Self {
        self.options.workers = threads;
        self
    }

    /// The queues this manager works, in this order. Default: those of its abilities.
    pub fn queues<Q: AsRef<str>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.options.queues = Some(queues.into_iter().map(|one| Arc::from(one.as_ref())).collect());
        self
    }

    /// How long a lease lasts when its ability does not say: the longest that a run may take
    /// before another worker gets the job. Default: 1 h. A crash is noticed much sooner.
    pub fn grab_for(mut self, lease: Duration) -> Self {
        self.options.grab_for = lease;
        self
    }

    /// How long a soft shutdown waits for running jobs and hanging databases. Default: 30 s.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.options.shutdown_timeout = limit;
        self
    }

    /// How often a worker process says that it lives, and how long it may be silent before its
    /// jobs are rescued. Default: every 5 s, dead after 30 s.
    pub fn heartbeat(mut self, every: Duration, dead_after: Duration) -> Self {
        self.options.heartbeat_every = every;
        self.options.dead_after = dead_after;
        self
    }

    /// The largest encoded argument in bytes. Default: 8 MiB.
    pub fn max_arg_size(mut self, bytes: usize) -> Self {
        self.options.max_arg_size = bytes;
        self
    }

    /// How long replies are kept for clients. Default: 7 days.
    pub fn keep_replies(mut self, age: Duration) -> Self {
        self.options.keep_replies = age;
        self
    }

    /// How long the job status history is kept. Default: 90 days.
    pub fn keep_job_status(mut self, age: Duration) -> Self {
        self.options.keep_job_status = age;
        self
    }

    /// Checks everything and builds the manager.
    ///
    /// # Errors
    ///
    /// When a data source name is malformed, a name is taken twice, an option is out of range, or
    /// two abilities, hooks or plugins collide.
    pub fn build(self) -> Result<Manager, Error> {
        self.check_options()?;
        if let Some(error) = self.plugin_error {
            return Err(error.into());
        }
        let mut abilities = if self.linked { AbilitySet::linked()? } else { AbilitySet::default() };
        for (insert, place) in self.abilities.iter().zip(&self.ability_places) {
            insert(&mut abilities, *place)?;
        }
        for entry in abilities.iter() {
            check_name("ability", &entry.name)?;
            check_name("queue", &entry.options.queue)?;
            self.codecs.get(&entry.options.codec).map_err(|source| Error::Codec {
                what: format!("the ability {:?} cannot be used", entry.name),
                source,
            })?;
        }
        let mut hooks = if self.linked { HookSet::linked()? } else { HookSet::default() };
        for (hook, place) in self.hooks {
            hooks.insert(hook, place)?;
        }
        let databases = open(self.sources, self.options.retry_seconds)?;
        Ok(Manager {
            inner: Arc::new(Inner {
                options: self.options,
                databases,
                abilities,
                hooks: Arc::new(hooks).into(),
                plugins: self.plugins,
                codecs: self.codecs,
                settled: Epoch::default(),
                working: false.into(),
                unknown_abilities: std::sync::Mutex::default(),
            }),
        })
    }

    fn check_options(&self) -> Result<(), Error> {
        let out_of_range =
            |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.to_owned() });
        let options = &self.options;
        if let Some(0 | 10_001..) = options.find_job_limit_size {
            return out_of_range("find_job_limit_size", "expected 1 to 10000");
        }
        if !(1..=4096).contains(&options.workers) {
            return out_of_range("workers", "expected 1 to 4096 threads");
        }
        if options.retry_seconds.is_zero() || options.retry_seconds > LONGEST_DELAY {
            return out_of_range("retry_seconds", "expected 1 second to a year");
        }
        for (option, value) in [
            ("delay", options.delay),
            ("grab_for", options.grab_for),
            ("heartbeat", options.heartbeat_every),
        ] {
            if value < Duration::from_millis(1) || value > LONGEST_DELAY {
                return out_of_range(option, "expected 1 millisecond to a year");
            }
        }
        if options.shutdown_timeout > LONGEST_DELAY {
            return out_of_range("shutdown_timeout", "expected at most a year");
        }
        if options.dead_after > LONGEST_DELAY {
            return out_of_range("heartbeat", "dead_after must be at most a year");
        }
        if options.dead_after < options.heartbeat_every * 2 {
            return out_of_range("heartbeat", "dead_after must be at least twice the interval");
        }
        for queue in options.queues.iter().flatten() {
            check_name("queue", queue)?;
        }
        Ok(())
    }
}

fn open(sources: Vec<Source>, retry: Duration) -> Result<Vec<Arc<Database>>, Error> {
    let mut databases: Vec<Arc<Database>> = Vec::with_capacity(sources.len());
    for source in sources {
        let (name, driver) = match source {
            Source::Driver { name, driver } => (name, driver),
            Source::Dsn { name, dsn } => {
                let opened = DriverRegistration::open_linked(&dsn)
                    .map_err(|reason| Error::InvalidDsn { dsn: hide_password(&dsn), reason })?;
                (name.unwrap_or(opened.name), opened.driver)
            }
        };
        check_name("database name", &name)?;
        if databases.iter().any(|other| *other.name == *name) {
            return Err(Error::DuplicateDatabase(name));
        }
        databases.push(Arc::new(Database::new(Arc::from(name), driver, retry)));
    }
    if databases.is_empty() {
        return Err(Error::NoDatabase);
    }
    Ok(databases)
}

/// Hides what stands between the first `:` after `//` and the last `@`, and the value of a
/// `password` parameter, without trusting that the rest parses.
fn hide_password(dsn: &str) -> String {
    let mut text = dsn.to_owned();
    if let Some(start) = text.find("//").map(|at| at + 2)
        && let Some(at) = text.rfind('@')
        && at > start
        && let Some(colon) = text[start..at].find(':')
    {
        text.replace_range(start + colon + 1..at, "***");
    }
    if let Some(start) = text.find("password=").map(|at| at + "password=".len()) {
        let end = text[start..].find(['&', ' ']).map_or(text.len(), |at| start + at);
        text.replace_range(start..end, "***");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_even_in_names_that_do_not_parse() {
        for (dsn, hidden) in [
            ("postgres://me:se@cr:et@db/x", "postgres://me:***@db/x"),
            ("mysql://me:secret@[bad", "mysql://me:***@[bad"),
            ("postgres://db/x?password=secret&a=b", "postgres://db/x?password=***&a=b"),
            ("sqlite:jobs.db", "sqlite:jobs.db"),
        ] {
            assert_eq!(hide_password(dsn), hidden);
        }
    }

    #[test]
    fn absurd_options_are_refused_by_name() {
        let base = || Manager::builder().database("memory:options").linked(false);
        for (builder, option) in [
            (base().find_job_limit_size(0), "find_job_limit_size"),
            (base().workers(0), "workers"),
            (base().retry_seconds(0), "retry_seconds"),
            (base().delay(Duration::ZERO), "delay"),
            (base().grab_for(Duration::MAX), "grab_for"),
            (base().heartbeat(Duration::from_secs(5), Duration::from_secs(6)), "heartbeat"),
        ] {
            let error = builder.build().expect_err(option).to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
