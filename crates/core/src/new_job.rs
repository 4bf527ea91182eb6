use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{Due, JobFields, JobId, Meta};
use serde_json::Value;

use crate::ability_options::DEFAULT_QUEUE;

/// What happens to a job with a unique key when the key's home database is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UniqPolicy {
    /// The enqueue is refused with an error: the key stays unique.
    #[default]
    Refuse,
    /// The next database that is up takes the job: two live jobs may then have the key.
    Available,
}

/// A job to be enqueued.
///
/// ```
/// use std::time::Duration;
/// use qudo_core::NewJob;
///
/// // A client that does not link the ability names it and sends plain JSON.
/// let job = NewJob::named("thumbnail", serde_json::json!({"path": "cat.jpg"}))
///     .queue("images")
///     .priority(5)
///     .uniqkey("cat.jpg")
///     .delay(Duration::from_secs(60));
/// assert_eq!(job.ability(), "thumbnail");
/// ```
///
/// `R` is the type of the ability's reply, which the job's [`Ticket`](crate::Ticket) returns. For abilities that are
/// known by name it is JSON.
#[must_use = "a job does nothing until it is enqueued"]
pub struct NewJob<R = Value> {
    pub(crate) id: JobId,
    pub(crate) ability: Cow<'static, str>,
    pub(crate) fields: JobFields,
    pub(crate) database: Option<String>,
    pub(crate) policy: UniqPolicy,
    pub(crate) open: Open,
    pub(crate) reply: PhantomData<fn() -> R>,
}

/// The reply's type has no part in it.
impl<R> fmt::Debug for NewJob<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("id", &self.id)
            .field("ability", &self.ability)
            .field("fields", &self.fields)
            .field("database", &self.database)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// What nobody chose yet of a job whose ability is known by name: it is as the ability says, if that is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Open {
    pub(crate) queue: bool,
    pub(crate) priority: bool,
    pub(crate) codec: bool,
}

impl NewJob {
    /// A job for an ability known by name, with a plain JSON argument.
    ///
    /// Queue, priority and codec are those of the ability if the manager that enqueues the job knows the ability;
    /// otherwise they are `default`, 0 and `json`. The codec encodes the argument as a JSON value. So if the ability's
    /// codec does not store the types of its values, as `postcard` and similar codecs do not, set `.codec("json")`.
    pub fn named(ability: impl Into<Cow<'static, str>>, arg: Value) -> Self {
        let open = Open { queue: true, priority: true, codec: true };
        Self { open, ..Self::from_fields(ability.into(), JobFields::json(DEFAULT_QUEUE, arg)) }
    }

    /// A job for an ability known by name, with an argument that is already encoded. Queue and priority as with
    /// [`named`](Self::named).
    pub fn encoded(
        ability: impl Into<Cow<'static, str>>,
        codec: impl Into<Cow<'static, str>>,
        arg: Vec<u8>,
    ) -> Self {
        let open = Open { queue: true, priority: true, codec: false };
        Self {
            open,
            ..Self::from_fields(ability.into(), JobFields::encoded(DEFAULT_QUEUE, codec, arg))
        }
    }
}

impl<R> NewJob<R> {
    pub(crate) fn from_fields(ability: Cow<'static, str>, fields: JobFields) -> Self {
        let (database, policy, open) = (None, UniqPolicy::default(), Open::default());
        Self { id: JobId::new(), ability, fields, database, policy, open, reply: PhantomData }
    }

    /// The same job without the type of its reply: to keep jobs of several abilities in one list. The reply is
    /// JSON then.
    ///
    /// ```
    /// use qudo_core::{Ability, Job, JobResult, NewJob};
    ///
    /// # struct Mail;
    /// # impl Ability for Mail {
    /// #     const NAME: &'static str = "mail";
    /// #     type Arg = String;
    /// #     type Reply = ();
    /// #     fn work(_: &Job, _: String) -> JobResult<()> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// # struct Count;
    /// # impl Ability for Count {
    /// #     const NAME: &'static str = "count";
    /// #     type Arg = u32;
    /// #     type Reply = u32;
    /// #     fn work(_: &Job, n: u32) -> JobResult<u32> {
    /// #         Ok(n)
    /// #     }
    /// # }
    /// let jobs: Vec<NewJob> = vec![Mail::job("eve".to_owned()).untyped(), Count::job(7).untyped()];
    /// assert_eq!(jobs.len(), 2);
    /// ```
    pub fn untyped(self) -> NewJob {
        self.cast()
    }

    fn cast<T>(self) -> NewJob<T> {
        let Self { id, ability, fields, database, policy, open, reply: _ } = self;
        NewJob { id, ability, fields, database, policy, open, reply: PhantomData }
    }

    /// The ability's name.
    pub fn ability(&self) -> &str {
        &self.ability
    }

    /// The id that the job will have.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Sets the id: enqueuing twice with one id while the job lives stores it once. The second enqueue
    /// is answered as the first, and `post_enqueue` hooks are told twice.
    ///
    /// Give different work a different id, also after the first job has ended: what is kept of a job's end, a reply,
    /// a failure or a removal, is the answer for every job that had this id.
    pub fn with_id(mut self, id: JobId) -> Self {
        self.id = id;
        self
    }

    /// Sets the queue; the ability's own by default.
    pub fn queue(mut self, queue: impl Into<Cow<'static, str>>) -> Self {
        self.fields.set_queue(queue);
        self.open.queue = false;
        self
    }

    /// Sets the priority; higher runs first.
    pub fn priority(mut self, priority: i32) -> Self {
        self.fields.set_priority(priority);
        self.open.priority = false;
        self
    }

    /// Sets a unique key: while a job of the same ability with this key lives, no second job is
    /// stored. At most 500 bytes.
    pub fn uniqkey(mut self, key: impl Into<String>) -> Self {
        self.fields.set_uniqkey(Some(key.into()));
        self
    }

    /// What to do when the unique key's home database is down.
    pub fn uniq_policy(mut self, policy: UniqPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a value beside the argument, for hooks, the ability and people: at most 64 KiB in all. Jobs that replace this one
    /// inherit it.
    ///
    /// ```
    /// use qudo_core::NewJob;
    ///
    /// let job = NewJob::named("mail", "eve".into()).meta("tenant", 7).tag("eu");
    /// assert_eq!(job.metadata().get("tenant"), Some(&7.into()));
    /// ```
    pub fn meta(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.meta_mut().set(name, value);
        self
    }

    /// Adds a tag, as [`meta`](Self::meta) adds a value.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.fields.meta_mut().tag(tag);
        self
    }

    /// What was added beside the argument so far.
    pub fn metadata(&self) -> &Meta {
        self.fields.meta()
    }

    /// Not before this instant, by the database's clock.
    pub fn run_after(mut self, at: DateTime<Utc>) -> Self {
        self.fields.set_due(Due::At(at));
        self
    }

    /// Runs the job no sooner than this long after the insert, by the database's clock.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.fields.set_due(Due::In(delay));
        self
    }

    /// Stores the job in the database of this short name, and only there.
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.database = Some(name.into());
        self
    }

    /// The short name of the database that was chosen.
    pub fn chosen_database(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// Chooses the codec; the ability's own by default.
    pub fn codec(mut self, codec: impl Into<Cow<'static, str>>) -> Self {
        self.fields.set_codec(codec);
        self.open.codec = false;
        self
    }

    /// Goes through the hooks but is not stored (Qudo's `suppress_job`).
    pub fn suppress(mut self) -> Self {
        self.fields.suppress();
        self
    }
}
