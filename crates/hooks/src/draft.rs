use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{Meta, PluginError, PluginSet, TypedArg};

/// When a job may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// As soon as a worker is free.
    #[default]
    Now,
    /// Not before this instant, by the database's clock.
    At(DateTime<Utc>),
    /// No sooner than this long after the insert, by the database's clock.
    In(Duration),
}

/// The argument of a job that is not encoded yet, or that came encoded.
pub enum Arg {
    /// A typed value; the codec encodes it after the `pre_enqueue` hooks.
    Typed(TypedArg),
    /// Plain JSON, from a client that does not link the ability.
    Json(Value),
    /// Bytes that already are in the format that the codec's name says.
    Encoded(Vec<u8>),
}

impl fmt::Debug for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may hold secrets, so only their kind is printed.
        f.write_str(match self {
            Self::Typed(_) => "Typed(..)",
            Self::Json(_) => "Json(..)",
            Self::Encoded(_) => "Encoded(..)",
        })
    }
}

/// What a client asks for: the fields of a job before it is in a database.
#[derive(Debug)]
pub struct JobFields {
    queue: Cow<'static, str>,
    priority: i32,
    uniqkey: Option<String>,
    due: Due,
    codec: Cow<'static, str>,
    version: u32,
    arg: Arg,
    meta: Meta,
    suppressed: bool,
}

impl JobFields {
    /// Fields with a typed argument, encoded later by the codec named.
    pub fn typed(
        queue: impl Into<Cow<'static, str>>,
        codec: impl Into<Cow<'static, str>>,
        arg: impl serde::Serialize + Send + Sync + 'static,
    ) -> Self {
        Self::new(queue.into(), codec.into(), Arg::Typed(TypedArg::new(arg)))
    }

    /// Fields with a plain JSON argument.
    pub fn json(queue: impl Into<Cow<'static, str>>, arg: Value) -> Self {
        Self::new(queue.into(), Cow::Borrowed(crate::JSON), Arg::Json(arg))
    }

    /// Fields with an argument that already is in the format of the codec named.
    pub fn encoded(
        queue: impl Into<Cow<'static, str>>,
        codec: impl Into<Cow<'static, str>>,
        arg: Vec<u8>,
    ) -> Self {
        Self::new(queue.into(), codec.into(), Arg::Encoded(arg))
    }

    fn new(queue: Cow<'static, str>, codec: Cow<'static, str>, arg: Arg) -> Self {
        Self {
            queue,
            priority: 0,
            uniqkey: None,
            due: Due::Now,
            codec,
            version: 1,
            arg,
            meta: Meta::default(),
            suppressed: false,
        }
    }

    /// The queue.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// Sets the queue.
    pub fn set_queue(&mut self, queue: impl Into<Cow<'static, str>>) {
        self.queue = queue.into();
    }

    /// The priority; higher runs first.
    pub fn priority(&self) -> i32 {
        self.priority
    }

    /// Sets the priority; higher runs first.
    pub fn set_priority(&mut self, priority: i32) {
        self.priority = priority;
    }

    /// The unique key.
    pub fn uniqkey(&self) -> Option<&str> {
        self.uniqkey.as_deref()
    }

    /// Sets or removes the unique key.
    pub fn set_uniqkey(&mut self, uniqkey: Option<String>) {
        self.uniqkey = uniqkey;
    }

    /// When the job may run.
    pub fn due(&self) -> Due {
        self.due
    }

    /// Sets when the job may run.
    pub fn set_due(&mut self, due: Due) {
        self.due = due;
    }

    /// The codec's name.
    pub fn codec(&self) -> &str {
        &self.codec
    }

    /// Chooses another codec for an argument that is not encoded yet.
    pub fn set_codec(&mut self, codec: impl Into<Cow<'static, str>>) {
        self.codec = codec.into();
    }

    /// The version of the argument's shape; 1 unless the ability says otherwise.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Sets the version of the argument's shape. It stays when another codec is chosen.
    pub fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// The argument.
    pub fn arg(&self) -> &Arg {
        &self.arg
    }

    /// Replaces the argument.
    pub fn set_arg(&mut self, arg: Arg) {
        self.arg = arg;
    }

    /// What the client adds to the argument.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The same, to be changed.
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    /// Takes the argument out, leaving JSON null.
    pub fn take_arg(&mut self) -> Arg {
        std::mem::replace(&mut self.arg, Arg::Json(Value::Null))
    }

    /// Takes the queue out, leaving an empty name.
    pub fn take_queue(&mut self) -> Cow<'static, str> {
        std::mem::take(&mut self.queue)
    }

    /// Takes the unique key out, leaving none.
    pub fn take_uniqkey(&mut self) -> Option<String> {
        self.uniqkey.take()
    }

    /// Whether the insert is suppressed.
    pub fn is_suppressed(&self) -> bool {
        self.suppressed
    }

    /// Suppresses the insert: enqueue succeeds and tells the caller that nothing was stored.
    pub fn suppress(&mut self) {
        self.suppressed = true;
    }
}

/// What [`pre_enqueue`](crate::Hook::pre_enqueue) sees and may change.
#[derive(Debug)]
pub struct JobDraft<'a> {
    ability: &'a str,
    fields: &'a mut JobFields,
    plugins: Option<&'a PluginSet>,
}

impl<'a> JobDraft<'a> {
    /// A draft over a client's fields; public so that hooks can be tested alone.
    pub fn new(ability: &'a str, fields: &'a mut JobFields) -> Self {
        Self { ability, fields, plugins: None }
    }

    /// Gives the draft the plugins of the manager.
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

    /// The kind of work; a hook cannot change it.
    pub fn ability(&self) -> &str {
        self.ability
    }

    /// The argument as JSON, whatever codec will store it.
    ///
    /// # Errors
    ///
    /// When the value has no JSON form, or came encoded in another format.
    pub fn arg_json(&self) -> Result<Value, crate::CodecError> {
        match &self.fields.arg {
            Arg::Typed(value) => serde_json::to_value(value)
                .map_err(|error| crate::CodecError::encode(crate::JSON, error)),
            Arg::Json(value) => Ok(value.clone()),
            Arg::Encoded(bytes) if self.fields.codec == crate::JSON => {
                serde_json::from_slice(bytes)
                    .map_err(|error| crate::CodecError::decode(crate::JSON, error))
            }
            Arg::Encoded(_) => Err(crate::CodecError::unknown(&self.fields.codec)),
        }
    }

    /// Replaces the argument with plain JSON; the codec still encodes it.
    pub fn set_arg_json(&mut self, arg: Value) {
        self.fields.arg = Arg::Json(arg);
    }
}

impl std::ops::Deref for JobDraft<'_> {
    type Target = JobFields;

    fn deref(&self) -> &JobFields {
        self.fields
    }
}

impl std::ops::DerefMut for JobDraft<'_> {
    fn deref_mut(&mut self) -> &mut JobFields {
        self.fields
    }
}
