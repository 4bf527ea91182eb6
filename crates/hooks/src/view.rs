use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{JobId, Meta, PluginError, PluginSet};

/// A job as hooks see it: read-only, without leases or connections.
///
/// The fields can grow without breaking hooks. The constructor and the setters are public so that
/// a hook can be tested without a database.
#[derive(Clone)]
pub struct JobView<'a> {
    id: JobId,
    ability: &'a str,
    queue: &'a str,
    database: &'a str,
    uniqkey: Option<&'a str>,
    priority: i32,
    attempt: u32,
    max_retries: u32,
    enqueued_at: Option<DateTime<Utc>>,
    waited: Option<Duration>,
    codec: &'a str,
    arg: &'a [u8],
    meta: Option<&'a str>,
    plugins: Option<&'a PluginSet>,
}

impl fmt::Debug for JobView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The argument may hold secrets, and so may a key that is made of it.
        f.debug_struct("JobView")
            .field("id", &self.id)
            .field("ability", &self.ability)
            .field("queue", &self.queue)
            .field("database", &self.database)
            .field("priority", &self.priority)
            .field("attempt", &self.attempt)
            .field("codec", &self.codec)
            .field("arg_bytes", &self.arg.len())
            .finish_non_exhaustive()
    }
}

impl<'a> JobView<'a> {
    /// A view with an empty argument on its first attempt.
    pub fn new(id: JobId, ability: &'a str, queue: &'a str) -> Self {
        Self {
            id,
            ability,
            queue,
            database: "",
            uniqkey: None,
            priority: 0,
            attempt: 1,
            max_retries: 0,
            enqueued_at: None,
            waited: None,
            codec: crate::JSON,
            arg: b"null",
            meta: None,
            plugins: None,
        }
    }

    /// Sets the short name of the job's database.
    #[must_use]
    pub fn with_database(mut self, database: &'a str) -> Self {
        self.database = database;
        self
    }

    /// Sets the unique key.
    #[must_use]
    pub fn with_uniqkey(mut self, uniqkey: Option<&'a str>) -> Self {
        self.uniqkey = uniqkey;
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the attempt and how many retries the ability allows.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32, max_retries: u32) -> Self {
        self.attempt = attempt;
        self.max_retries = max_retries;
        self
    }

    /// Sets when the job was enqueued.
    #[must_use]
    pub fn with_enqueued_at(mut self, at: Option<DateTime<Utc>>) -> Self {
        self.enqueued_at = at;
        self
    }

    /// Sets how long the job was ready before this run.
    #[must_use]
    pub fn with_waited(mut self, waited: Option<Duration>) -> Self {
        self.waited = waited;
        self
    }

    /// Sets the encoded argument and the name of its codec.
    #[must_use]
    pub fn with_arg(mut self, codec: &'a str, arg: &'a [u8]) -> Self {
        self.codec = codec;
        self.arg = arg;
        self
    }

    /// Sets what the client added to the argument, as [it is stored](Meta::to_text).
    #[must_use]
    pub fn with_meta(mut self, meta: Option<&'a str>) -> Self {
        self.meta = meta;
        self
    }

    /// What the client added to the argument. It is read anew at each call.
    pub fn meta(&self) -> Meta {
        Meta::from_text(self.meta)
    }

    /// Gives the view the plugins of the manager.
    #[must_use]
    pub fn with_plugins(mut self, plugins: &'a PluginSet) -> Self {
        self.plugins = Some(plugins);
        self
    }

    /// The manager's plugin of this type.
    ///
    /// # Errors
    ///
    /// When the manager has none of that type.
    pub fn plugin<P: Send + Sync + 'static>(&self) -> Result<&'a P, PluginError> {
        self.plugins.ok_or_else(PluginError::missing::<P>)?.get()
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// The kind of work.
    pub fn ability(&self) -> &'a str {
        self.ability
    }

    /// The queue the job is in.
    pub fn queue(&self) -> &'a str {
        self.queue
    }

    /// The short name of the job's database.
    pub fn database(&self) -> &'a str {
        self.database
    }

    /// The unique key, if the job has one.
    pub fn uniqkey(&self) -> Option<&'a str> {
        self.uniqkey
    }

    /// The priority; higher runs first.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Which run this is; 1 on the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How many retries the ability allows after the first run.
    pub fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// How long the job was ready before this run began: since it was enqueued, due, or put back after an earlier run. Not known
    /// outside of a run.
    pub fn waited(&self) -> Option<Duration> {
        self.waited
    }

    /// When the job was enqueued, by its database's clock; not known before the insert.
    pub fn enqueued_at(&self) -> Option<DateTime<Utc>> {
        self.enqueued_at
    }

    /// The name of the codec that encoded the argument.
    pub fn codec(&self) -> &'a str {
        self.codec
    }

    /// The encoded argument.
    pub fn arg(&self) -> &'a [u8] {
        self.arg
    }
}
