use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{Codec, CodecSet, Hook, HookSet, Plugin, PluginError, PluginSet, SourceLocation};

use crate::ability::{Ability, AbilityEntry, AbilitySet};
use crate::ability_options::OwnHook;
use crate::client::spool::{self, Spool};
use crate::client::{Client, forward};
use crate::database::data_source::DataSource;
use crate::database::open::{Source, open_all};
use crate::database::set::Databases;
use crate::database::{DatabaseReport, OnChange, Settings};
use crate::driver::{Driver, DriverRegistration};
use crate::error::Error;
use crate::names::check_name;
use crate::observe::Observer;
use crate::options::{FOR_EVER, Options, check_span};
use crate::program::Program;

/// Describes a [`Manager`](crate::Manager).
///
/// No connection is made before it is needed, so a database that is down does not fail the build.
#[must_use = "a builder does nothing until build is called"]
pub struct ManagerBuilder {
    options: Options,
    sources: Vec<Source>,
    linked: bool,
    abilities: Vec<InsertAbility>,
    ability_places: Vec<SourceLocation>,
    hooks: Vec<(Arc<dyn Hook>, SourceLocation)>,
    plugins: PluginSet,
    plugin_options: BTreeMap<String, serde_json::Value>,
    plugin_error: Option<PluginError>,
    codecs: CodecSet,
    spool: Option<(String, u64)>,
    observer: Option<Arc<dyn Observer>>,
    on_change: Option<OnChange>,
}

/// Without the data source names, which may hold passwords, and the options of plugins.
impl fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks: Vec<_> = self.hooks.iter().map(|(hook, _)| hook.name()).collect();
        f.debug_struct("ManagerBuilder")
            .field("databases", &self.sources.len())
            .field("linked", &self.linked)
            .field("abilities", &self.ability_places)
            .field("hooks", &hooks)
            .field("plugins", &self.plugins)
            .finish_non_exhaustive()
    }
}

type InsertAbility = fn(&mut AbilitySet, SourceLocation) -> Result<(), Error>;

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
            plugin_options: BTreeMap::new(),
            plugin_error: None,
            codecs: CodecSet::default(),
            spool: None,
            observer: None,
            on_change: None,
        }
    }
}

impl ManagerBuilder {
    /// Adds a database by its data source name: `sqlite:FILE`, `postgres://…`, `mysql://…` or
    /// `memory:NAME`. Its short name is taken from it: the file's stem, or `database@host`.
    ///
    /// The password of a server may be left out of the name and come from a file, a variable of the
    /// environment (`?password_file=/run/secrets/jobs`, `?password_env=JOBS_PASSWORD`) or a function; see
    /// [`DataSource::password`]. It is read for each new connection, so it can be changed while the
    /// program works.
    pub fn database(mut self, source: impl Into<DataSource>) -> Self {
        self.sources.push(Source::Dsn(source.into()));
        self
    }

    /// Adds a database under a short name of your own, for logs, tickets and
    /// [`NewJob::database`](crate::NewJob::database).
    pub fn database_as(self, name: impl Into<String>, dsn: impl Into<String>) -> Self {
        self.database(DataSource::new(dsn).name(name))
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

    /// Adds an object that abilities reach by its type with [`Job::plugin`](crate::Job::plugin). A plugin that has
    /// to start and stop with the work goes to [`live_plugin`](Self::live_plugin).
    pub fn plugin<P: Send + Sync + 'static>(mut self, plugin: P) -> Self {
        if let Err(error) = self.plugins.insert(plugin) {
            self.plugin_error.get_or_insert(error);
        }
        self
    }

    /// Adds a plugin that [starts](Plugin::start) and [stops](Plugin::stop) with the work.
    pub fn live_plugin<P: Plugin>(mut self, plugin: P) -> Self {
        if let Err(error) = self.plugins.insert_live(plugin) {
            self.plugin_error.get_or_insert(error);
        }
        self
    }

    /// Builds a plugin from its options and adds it; it starts and stops with the work.
    pub fn plugin_from<P: Plugin>(mut self, options: P::Options) -> Self {
        if let Err(error) = self.plugins.insert_built::<P>(options) {
            self.plugin_error.get_or_insert(error);
        }
        self
    }

    /// Sets the options of a plugin that registers itself at link time, by its name. Default: none,
    /// which is enough for plugins whose options all have defaults. Not used if a plugin of this type was given.
    pub fn plugin_options(
        mut self,
        name: impl Into<String>,
        options: impl Into<serde_json::Value>,
    ) -> Self {
        self.plugin_options.insert(name.into(), options.into());
        self
    }

    /// Adds a codec, or replaces the one of its name.
    pub fn codec(mut self, codec: impl Codec + 'static) -> Self {
        self.codecs.insert(Arc::new(codec));
        self
    }

    /// Whether abilities, hooks and plugins that registered themselves at link time are used.
    /// Default: yes.
    pub fn linked(mut self, yes: bool) -> Self {
        self.linked = yes;
        self
    }

    /// The most jobs that one claim takes, 1 to 10,000. Not set: adaptive, starting at 30 and
    /// growing to 1,000 while jobs are short. With a limit below 1,000 a server never gets two claims at the same
    /// time.
    pub fn find_job_limit_size(mut self, jobs: u32) -> Self {
        self.options.find_job_limit_size = Some(jobs);
        self
    }

    /// The longest pause, in seconds, between two probes of a database that is down. Default: 30.
    /// The first probes come sooner.
    pub fn retry_seconds(mut self, seconds: u64) -> Self {
        self.options.retry_seconds = Duration::from_secs(seconds);
        self
    }

    /// The longest pause between two looks at an idle database. Default: 5 s. Wake-ups end it.
    pub fn delay(mut self, pause: Duration) -> Self {
        self.options.delay = pause;
        self
    }

    /// The version of your program, such as `env!("CARGO_PKG_VERSION")`: it is stored with each worker process
    /// and with each failed attempt, so that each failure shows the version in which it happened. At most 100
    /// bytes. Default: none.
    pub fn version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.options.version = Some(version.into());
        self
    }

    /// How many threads run jobs. Default: one per core.
    pub fn workers(mut self, threads: usize) -> Self {
        self.options.workers = threads;
        self
    }

    /// The queues this manager works, in this order. Default: those of its abilities.
    pub fn queues<Q: AsRef<str>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.options.queues = Some(queues.into_iter().map(|one| one.as_ref().into()).collect());
        self
    }

    /// How long a lease lasts when its ability does not say: the longest that a run may take
    /// before another worker gets the job. Default: 1 h. A crash is noticed much sooner.
    pub fn grab_for(mut self, lease: Duration) -> Self {
        self.options.grab_for = lease;
        self
    }

    /// How long a soft shutdown waits for running jobs and for databases that do not answer. Default: 25 s, because
    /// orchestrators kill after 30 s. A job that still runs then is settled when it ends, if the process lives until
    /// then; otherwise it is rescued and runs again.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.options.shutdown_timeout = limit;
        self
    }

    /// How often a worker process sends a heartbeat, and how long it may be silent before its jobs are
    /// rescued. Default: every 5 s, dead after 20 s; so the jobs of a process that was killed are
    /// ready again within 25 s. It sends at least four heartbeats within `dead_after`, also if `every`
    /// is longer; `dead_after` must be at least 200 ms and at least twice `every`.
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

    /// How long replies are kept for clients, at least one hour. Default: 7 days. For the same time the database
    /// keeps which jobs were removed before they ran, and to which database moved jobs went: an overtaken mover may
    /// be that late. [Tickets](crate::Ticket) use this to tell how a job ended, so set the same time in all programs
    /// of a database.
    pub fn keep_replies(mut self, age: Duration) -> Self {
        self.options.keep.replies = age.min(FOR_EVER);
        self
    }

    /// How long the job status history is kept. Default: 90 days.
    pub fn keep_job_status(mut self, age: Duration) -> Self {
        self.options.keep.status = age.min(FOR_EVER);
        self
    }

    /// How long the exception log keeps failures after which the job ran again, and those of discarded
    /// jobs that were redriven; at least as long as replies. Default: 90 days.
    pub fn keep_exceptions(mut self, age: Duration) -> Self {
        self.options.keep.exceptions = age.min(FOR_EVER);
        self
    }

    /// How many rows the exception log keeps at most, whatever their age; the oldest go. Discarded jobs that were not redriven are kept all the same, and
    /// count, and so do rows by which tickets know that a job failed, as long as replies. For
    /// services in which a fault makes millions of failures. Default: any number.
    pub fn keep_exceptions_at_most(mut self, rows: u64) -> Self {
        self.options.keep.exceptions_at_most = Some(rows);
        self
    }

    /// How long the exception log keeps discarded jobs that were not redriven. After that they are
    /// removed with their arguments and cannot be redriven; at least as long as replies. Default:
    /// for ever.
    pub fn keep_discarded(mut self, age: Duration) -> Self {
        self.options.keep.discarded = Some(age.min(FOR_EVER));
        self
    }

    /// How long a database keeps the numbers of each minute, which [`Manager::stats`](crate::Manager::stats) tells. The sums since there are any are
    /// kept for ever. Default: 14 days.
    pub fn keep_stats(mut self, age: Duration) -> Self {
        self.options.keep.stats = age.min(FOR_EVER);
        self
    }

    /// Sets an observer, which gets every step of every job.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// The longest time that a caller waits for a database. Default: 10 s. After that the caller goes on, a
    /// job may be stored in another database, and a probe finds out whether the database is down. Listings
    /// have six times this limit, migrations have no limit. An insert whose answer was lost is repeated only
    /// while more than 200 ms of its limit are left, so it is never repeated with a limit of 200 ms or less.
    pub fn call_limit(mut self, limit: Duration) -> Self {
        self.options.call_limit = limit;
        self
    }

    /// Whether a job enqueued in the caller's own transaction wakes workers at the commit, if the
    /// engine can do this. Default: yes. Without it, workers find the job at their next look, at
    /// most `delay` later. The manager's own enqueues wake workers after their commit, always.
    pub fn notify_in_transactions(mut self, yes: bool) -> Self {
        self.options.notify_in_transactions = yes;
        self
    }

    /// Sets a function that is called whenever a database goes down or comes up again, on the
    /// thread that noticed the change; the function should return soon and must not call the
    /// manager.
    pub fn on_database_change(
        mut self,
        listener: impl Fn(&DatabaseReport) + Send + Sync + 'static,
    ) -> Self {
        self.on_change = Some(Arc::new(listener));
        self
    }

    /// Sets a local SQLite file, such as `sqlite:spool.db`, that takes at most `limit` jobs while no
    /// database can, so that an enqueue does not fail while the databases are down. Its tables are
    /// made at the first use.
    ///
    /// A background thread forwards its jobs, by id and without storing any job twice, as soon as a
    /// database is back; until then no worker sees them. A job with a unique key is spooled while
    /// its home is down, and forwarded there; if another job holds the key by then, the spooled job
    /// is dropped with a warning in the log. Jobs that name a database are not spooled. Processes
    /// of one machine may share the file.
    pub fn spool(mut self, dsn: impl Into<String>, limit: u64) -> Self {
        self.spool = Some((dsn.into(), limit));
        self
    }

    /// All but the manager itself.
    pub(crate) fn into_client(self) -> Result<Arc<Client>, Error> {
        self.options.check()?;
        if self.linked && !DriverRegistration::registry_is_visible() {
            return Err(Error::EmptyRegistry);
        }
        if let Some(error) = self.plugin_error {
            return Err(error.into());
        }
        let mut plugins = self.plugins;
        if self.linked {
            plugins.build_linked(&self.plugin_options)?;
        } else if let Some(name) = self.plugin_options.into_keys().next() {
            let known = "none, because .linked(false) leaves them out".to_owned();
            return Err(PluginError::Unknown { name, known }.into());
        }
        let mut abilities = if self.linked { AbilitySet::linked()? } else { AbilitySet::default() };
        for (insert, place) in self.abilities.iter().zip(&self.ability_places) {
            insert(&mut abilities, *place)?;
        }
        for entry in abilities.iter() {
            check_name("ability", &entry.name)?;
            check_name("queue", &entry.options.queue)?;
            for alias in &entry.options.aliases {
                check_name("ability", alias)?;
            }
            if let Some(limit) = entry.options.grab_for {
                check_span("grab_for", limit)?;
            }
            check_time_limit(entry, self.options.grab_for)?;
            self.codecs.get(&entry.options.codec).map_err(|source| Error::Codec {
                what: format!("the ability {:?} cannot be used", entry.name),
                source,
            })?;
        }
        let mut hooks = if self.linked { HookSet::linked()? } else { HookSet::default() };
        for (hook, place) in self.hooks {
            hooks.insert(hook, place)?;
        }
        for entry in abilities.iter() {
            let mut own = HookSet::default();
            for OwnHook(hook, location) in &entry.options.hooks {
                own.insert(Arc::clone(hook), *location)?;
            }
            hooks.insert_for(&entry.name, &own)?;
        }
        let settings = Settings {
            retry: self.options.retry_seconds,
            limit: self.options.call_limit,
            on_change: self.on_change,
            identities: Arc::default(),
        };
        let databases = open_all(self.sources, &settings)?;
        let keep_trails = self.options.keep.replies;
        let spool = match self.spool {
            None => None,
            Some((dsn, limit)) => {
                let database = spool::open(&dsn, &databases, &settings)?;
                Some(Arc::new(Spool::new(database, limit, keep_trails)))
            }
        };
        let spooled = spool.as_ref().map(|spool| Arc::clone(&spool.database));
        let databases = Databases::new(databases, spooled, settings);
        let program =
            Program::new(self.options, abilities, hooks, plugins, self.codecs, self.observer);
        let client = Arc::new(Client::new(program, databases, spool));
        forward::start(&client)?;
        Ok(client)
    }
}

/// Refuses a time limit that ends only after the lease. A limit as long as the lease is let through, although the lease counts from
/// the claim and the limit from the start of the run: by how much they differ no option tells.
fn check_time_limit(entry: &AbilityEntry, grab_for: Duration) -> Result<(), Error> {
    let (option, lease) = ("time_limit", entry.options.grab_for.unwrap_or(grab_for));
    match entry.options.time_limit {
        Some(limit) if limit > lease => {
            let name = &entry.name;
            let reason = format!(
                "the ability {name:?} may run for {limit:?}, but its lease ends after {lease:?} and others \
                 take the job; raise its grab_for"
            );
            Err(Error::InvalidOption { option, reason })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ability_options::AbilityOptions;
    use crate::job::Job;
    use crate::job_error::JobResult;

    struct Hasty;

    impl Ability for Hasty {
        type Arg = ();
        type Reply = ();
        const NAME: &'static str = "hasty";

        fn options() -> AbilityOptions {
            AbilityOptions { grab_for: Some(Duration::ZERO), ..Default::default() }
        }

        fn work(_: &Job, (): ()) -> JobResult<()> {
            Ok(())
        }
    }

    #[test]
    fn a_lease_that_ends_when_it_begins_is_refused() {
        let builder =
            ManagerBuilder::default().database("memory:hasty").linked(false).ability::<Hasty>();
        let error = builder.build().expect_err("no time at all").to_string();
        assert!(error.contains("grab_for"), "{error}");
    }

    struct Endless;

    impl Ability for Endless {
        type Arg = ();
        type Reply = ();
        const NAME: &'static str = "endless";

        fn options() -> AbilityOptions {
            AbilityOptions::default().time_limit(Duration::from_secs(60))
        }

        fn work(_: &Job, (): ()) -> JobResult<()> {
            Ok(())
        }
    }

    #[test]
    fn a_run_that_may_outlive_its_lease_is_refused() {
        let with = |lease| {
            let builder = ManagerBuilder::default().database("memory:endless").linked(false);
            builder.ability::<Endless>().grab_for(Duration::from_secs(lease)).build()
        };
        let error = with(59).expect_err("others would take it").to_string();
        assert!(error.contains("time_limit") && error.contains("endless"), "{error}");
        with(60).expect("no longer than the lease");
    }

    #[test]
    fn absurd_options_are_refused_by_name() {
        let base = || ManagerBuilder::default().database("memory:options").linked(false);
        for (builder, option) in [
            (base().find_job_limit_size(0), "find_job_limit_size"),
            (base().workers(0), "workers"),
            (base().retry_seconds(0), "retry_seconds"),
            (base().delay(Duration::ZERO), "delay"),
            (base().grab_for(Duration::MAX), "grab_for"),
            (base().queues::<&str>([]), "queues"),
            (base().keep_replies(Duration::ZERO), "keep_replies"),
            (base().heartbeat(Duration::from_secs(5), Duration::from_secs(6)), "heartbeat"),
        ] {
            let error = builder.build().expect_err(option).to_string();
            assert!(error.contains(option), "{error}");
        }
    }
}
