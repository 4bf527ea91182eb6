use std::any::TypeId;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use qudo_hooks::{CodecError, CodecSet, FailureKind, JobFields, SourceLocation};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ability_options::AbilityOptions;
use crate::driver::{Name, ReplyRecord};
use crate::error::Error;
use crate::job::Job;
use crate::job_error::{JobError, Unfinished, Wish};
use crate::new_job::NewJob;
use crate::tools::causes::with_causes;

/// A kind of work that a manager can do.
///
/// Usually written with `#[qudo::ability]` on a function; you can also implement the trait
/// yourself.
pub trait Ability: 'static {
    /// The stored name; after a change of the name, jobs that are already stored under the old name
    /// do not run.
    const NAME: &'static str;

    /// The version of the argument's shape. A job stores the version with which it was enqueued; a
    /// job with an older version goes through [`upgrade`](Self::upgrade) first, a job with a newer
    /// version is put off, because it was meant for a newer program.
    const VERSION: u32 = 1;

    /// What a job carries.
    type Arg: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What the worker sends back; `()` stores no reply.
    type Reply: Serialize + 'static;

    /// Options of the ability; see [`AbilityOptions`] for the defaults.
    fn options() -> AbilityOptions {
        AbilityOptions::default()
    }

    /// The unique key that a job with this argument has unless another is set. Default: none.
    fn uniqkey(arg: &Self::Arg) -> Option<String> {
        let _ = arg;
        None
    }

    /// Turns an argument of version `from` into one of the next version. Called on a worker thread,
    /// step by step until the argument has this program's [`VERSION`](Self::VERSION).
    ///
    /// # Errors
    ///
    /// When the argument cannot be upgraded from that version: the attempt fails and is retried by the ability's rule,
    /// because a program of that version can run the job. An [abort](JobError::abort) or a [snooze](JobError::snooze)
    /// has the same effect as in [`work`](Self::work).
    fn upgrade(from: u32, arg: serde_json::Value) -> Result<serde_json::Value, JobError> {
        let _ = arg;
        Err(JobError::fail(format!("the ability has no way up from version {from}")))
    }

    /// Does the work. Called on a worker thread; a panic counts as a failed attempt.
    ///
    /// # Errors
    ///
    /// Any error fails the attempt; [`JobError`] also says abort, snooze or retry later.
    fn work(job: &Job, arg: Self::Arg) -> Result<Self::Reply, JobError>;

    /// A job of this ability, ready to be enqueued.
    fn job(arg: Self::Arg) -> NewJob<Self::Reply> {
        let options = Self::options();
        let uniqkey = Self::uniqkey(&arg);
        let mut fields = JobFields::typed(options.queue, options.codec, arg);
        fields.set_version(Self::VERSION);
        fields.set_uniqkey(uniqkey);
        NewJob::from_fields(Cow::Borrowed(Self::NAME), fields).priority(options.priority)
    }
}

/// The codec's name as it is stored, with the version of the argument unless it is the first or the name
/// has one already, as a client gives it that does not link the ability.
pub(crate) fn versioned(codec: &str, version: u32) -> Cow<'_, str> {
    if version == 1 || split_version(codec).0 != codec {
        Cow::Borrowed(codec)
    } else {
        Cow::Owned(format!("{codec}@{version}"))
    }
}

/// The codec and the version of a stored name.
pub(crate) fn split_version(stored: &str) -> (&str, u32) {
    let Some((codec, version)) = stored.rsplit_once('@') else { return (stored, 1) };
    version.parse().map_or((stored, 1), |version| (codec, version))
}

/// What functions under `#[ability]` may return: `Result<T, E>` or nothing.
#[diagnostic::on_unimplemented(
    message = "an ability cannot return `{Self}`",
    label = "an ability returns nothing, or a `Result`",
    note = "for instance `qudo::JobResult<u32>`, `anyhow::Result<u32>` or `std::io::Result<u32>`: the reply is something \
            that serde can serialize",
    note = "the error may be of any type that other threads may have: `Box<dyn Error + Send + Sync>`, not `Box<dyn Error>`"
)]
pub trait AbilityReturn {
    /// What is sent back.
    type Reply: Serialize + 'static;

    /// The reply, or what to do with the job instead.
    ///
    /// # Errors
    ///
    /// The function's own error.
    fn into_result(self) -> Result<Self::Reply, JobError>;
}

/// Any error: [`JobError`], what implements [`std::error::Error`], `anyhow::Error` and its like, a
/// text.
#[diagnostic::do_not_recommend]
impl<T, E> AbilityReturn for Result<T, E>
where
    T: Serialize + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Reply = T;

    fn into_result(self) -> Result<T, JobError> {
        self.map_err(|error| JobError::from_any(error))
    }
}

impl AbilityReturn for () {
    type Reply = ();

    fn into_result(self) -> Result<(), JobError> {
        Ok(())
    }
}

/// A job that a newer program enqueued is left to newer workers: looked at again after so long.
const NEWER_LATER: Duration = Duration::from_secs(10);

/// An ability with its types erased.
#[derive(Clone)]
pub(crate) struct AbilityEntry {
    pub(crate) name: Name,
    pub(crate) options: AbilityOptions,
    pub(crate) location: SourceLocation,
    type_id: TypeId,
    pub(crate) run: fn(&Job, &AbilityOptions, &CodecSet) -> Result<Option<ReplyRecord>, Unfinished>,
}

fn run_erased<A: Ability>(
    job: &Job,
    options: &AbilityOptions,
    codecs: &CodecSet,
) -> Result<Option<ReplyRecord>, Unfinished> {
    let arg = decode_arg::<A>(job, codecs)?;
    let reply = A::work(job, arg).map_err(|error| {
        let failed = Unfinished::from(error);
        if failed.wish == Wish::Fail && job.is_overdue() {
            return Unfinished::failed(FailureKind::Timeout, failed.failure.message());
        }
        failed
    })?;
    if TypeId::of::<A::Reply>() == TypeId::of::<()>() {
        return Ok(None);
    }
    // Of a chain only the last job may have an answer: the others return `None`, and their clients wait for it.
    if job.is_replaced() && serde_json::to_value(&reply).is_ok_and(|reply| reply.is_null()) {
        return Ok(None);
    }
    let encoded = codecs.get(&options.codec).and_then(|codec| qudo_hooks::encode(codec, &reply));
    let body = encoded.map_err(|error| {
        Unfinished::failed(FailureKind::Error, format!("the reply: {}", with_causes(&error)))
    })?;
    Ok(Some(ReplyRecord { codec: options.codec.clone(), body }))
}

fn decode_arg<A: Ability>(job: &Job, codecs: &CodecSet) -> Result<A::Arg, Unfinished> {
    let failed = |error: CodecError| {
        let text = with_causes(&error);
        if error.is_readable_elsewhere() {
            Unfinished::failed(FailureKind::Decode, text)
        } else {
            Unfinished::unreadable(text)
        }
    };
    let (codec, version) = split_version(job.codec());
    if version == A::VERSION {
        return codecs.decode(codec, job.arg_bytes()).map_err(failed);
    }
    if version > A::VERSION {
        return Err(Unfinished::snoozed(NEWER_LATER));
    }
    // A program of the older version reads these bytes, whatever goes wrong on the way up: so nothing of it is final.
    let not_here = |error: CodecError| Unfinished::failed(FailureKind::Decode, with_causes(&error));
    let mut arg: serde_json::Value = codecs.decode(codec, job.arg_bytes()).map_err(not_here)?;
    for from in version..A::VERSION {
        arg = A::upgrade(from, arg).map_err(|error| match error.wish {
            Wish::Fail => Unfinished::failed(FailureKind::Decode, error.message()),
            _ => Unfinished::from(error),
        })?;
    }
    serde_json::from_value(arg).map_err(|error| not_here(CodecError::decode(codec, error)))
}

/// Registers types that implement [`Ability`] at link time, as `#[ability]` does for functions.
///
/// ```
/// use qudo_core::{Ability, Job, JobResult};
///
/// struct Greet;
/// impl Ability for Greet {
///     const NAME: &'static str = "greet";
///     type Arg = String;
///     type Reply = String;
///     fn work(_: &Job, name: String) -> JobResult<String> { Ok(format!("hello {name}")) }
/// }
/// qudo_core::register!(Greet);
/// assert!(qudo_core::AbilitySet::linked()?.can_do("greet"));
/// # Ok::<(), qudo_core::Error>(())
/// ```
#[macro_export]
macro_rules! register {
    ($($ability:ty),+ $(,)?) => {
        $($crate::inventory::submit! {
            $crate::AbilityRegistration::of::<$ability>(
                $crate::SourceLocation::new(::core::file!(), ::core::line!()),
            )
        })+
    };
}

/// An ability that registers itself at link time; `#[qudo::ability]` submits one.
pub struct AbilityRegistration {
    build: fn() -> AbilityEntry,
    location: SourceLocation,
}

impl fmt::Debug for AbilityRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbilityRegistration")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl AbilityRegistration {
    /// Names the ability and the place of its registration.
    pub const fn of<A: Ability>(location: SourceLocation) -> Self {
        Self { build: entry::<A>, location }
    }
}

inventory::collect!(AbilityRegistration);

fn entry<A: Ability>() -> AbilityEntry {
    AbilityEntry {
        name: Name::from_static(A::NAME),
        options: A::options(),
        location: SourceLocation::new("", 0),
        type_id: TypeId::of::<A>(),
        run: run_erased::<A>,
    }
}

/// An ability as [`Manager::abilities`](crate::Manager::abilities) lists it.
#[derive(Debug, Clone)]
pub struct AbilityInfo {
    /// Its name.
    pub name: String,
    /// The queue of its new jobs.
    pub queue: String,
    /// Where it is registered.
    pub location: SourceLocation,
}

/// The abilities of a manager, by name.
#[derive(Clone, Default)]
pub struct AbilitySet {
    entries: BTreeMap<Name, AbilityEntry>,
    /// Former names, and the present ones.
    aliases: BTreeMap<Name, Name>,
}

impl fmt::Debug for AbilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl AbilitySet {
    /// The abilities that registered themselves at link time.
    ///
    /// # Errors
    ///
    /// When two of them have one name.
    pub fn linked() -> Result<Self, Error> {
        let mut set = Self::default();
        for registration in inventory::iter::<AbilityRegistration> {
            let mut entry = (registration.build)();
            entry.location = registration.location;
            set.insert_entry(entry)?;
        }
        Ok(set)
    }

    /// Adds an ability; adding the same type twice is harmless.
    ///
    /// # Errors
    ///
    /// When another ability has its name.
    pub fn insert<A: Ability>(&mut self, location: SourceLocation) -> Result<(), Error> {
        self.insert_entry(AbilityEntry { location, ..entry::<A>() })
    }

    fn insert_entry(&mut self, entry: AbilityEntry) -> Result<(), Error> {
        if let Some(other) = self.entries.get(&entry.name) {
            if other.type_id == entry.type_id {
                return Ok(());
            }
            return Err(Error::DuplicateAbility {
                name: entry.name.to_string(),
                first: other.location,
                second: entry.location,
            });
        }
        let names = entry.options.aliases.iter().map(AsRef::as_ref).chain([&*entry.name]);
        for name in names {
            if let Some(other) = self.get(name) {
                return Err(Error::DuplicateAbility {
                    name: name.to_owned(),
                    first: other.location,
                    second: entry.location,
                });
            }
        }
        for alias in &entry.options.aliases {
            self.aliases.insert(Name::from(&**alias), entry.name.clone());
        }
        self.entries.insert(entry.name.clone(), entry);
        Ok(())
    }

    /// Whether an ability of this name, or with this alias, is there.
    pub fn can_do(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The abilities with the places of their registration, by name.
    pub fn list(&self) -> Vec<AbilityInfo> {
        self.iter()
            .map(|entry| AbilityInfo {
                name: entry.name.to_string(),
                queue: entry.options.queue.to_string(),
                location: entry.location,
            })
            .collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&AbilityEntry> {
        let name = self.aliases.get(name).map_or(name, |name| name);
        self.entries.get(name)
    }

    /// All names under which jobs are claimed, with their abilities.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&Name, &AbilityEntry)> {
        let aliases = self.aliases.iter().map(|(alias, name)| (alias, &self.entries[name]));
        self.entries.iter().chain(aliases)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AbilityEntry> {
        self.entries.values()
    }

    /// The queues of the abilities, each once.
    pub(crate) fn queues(&self) -> Vec<Name> {
        let mut queues: Vec<_> = self.iter().map(|entry| entry.options.queue.as_ref()).collect();
        queues.sort_unstable();
        queues.dedup();
        queues.into_iter().map(Name::from).collect()
    }
}
