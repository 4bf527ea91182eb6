//! What the rows of lists have in the fields of a filter.

use chrono::{DateTime, Utc};
use qudo_hooks::{CodecSet, Meta};
use serde_json::Value as Json;

use crate::ability::split_version;
use crate::driver::{
    Exception, JobFacts, JobInfo, JobState, PlacedJob, StatusRow, WorkerId, WorkerSeen,
};
use crate::filter::{Field, Filter, Filtered, Value};
use crate::tools::time::utc_now;

/// What is needed to look into rows of one database.
pub(super) struct Lens<'l> {
    pub(super) database: &'l str,
    pub(super) codecs: &'l CodecSet,
    /// Read where the filter asks for the names of workers.
    pub(super) workers: &'l [WorkerSeen],
    now: DateTime<Utc>,
    asks: Asks,
}

/// Which costly fields a filter asks for.
#[derive(Clone, Copy)]
pub(super) struct Asks {
    pub(super) arg: bool,
    meta: bool,
    pub(super) worker: bool,
}

impl Asks {
    pub(super) fn of<R: Filtered>(filter: &Filter<R>) -> Self {
        Self {
            arg: filter.asks_for(Field::Arg),
            meta: filter.asks_for(Field::Meta) || filter.asks_for(Field::Tag),
            worker: filter.asks_for(Field::Worker),
        }
    }
}

impl<'l> Lens<'l> {
    pub(super) fn new(
        database: &'l str,
        codecs: &'l CodecSet,
        workers: &'l [WorkerSeen],
        asks: Asks,
        now: Option<DateTime<Utc>>,
    ) -> Self {
        Self { database, codecs, workers, now: now.unwrap_or_else(utc_now), asks }
    }

    /// Whether a job is meant, as far as its row of a narrow table tells.
    pub(super) fn placed(&self, filter: &Filter<JobInfo>, job: &PlacedJob) -> Option<bool> {
        filter.holds(&|field, _| match field {
            Field::Id => Value::Id(*job.at.id().as_uuid()),
            Field::Ability => Value::text(&*job.ability),
            Field::Queue => Value::text(&*job.queue),
            Field::Priority => Value::Number(job.priority.into()),
            Field::Attempt => Value::Number(job.attempt.into()),
            field => self.of_state(field, &job.state),
        })
    }

    /// Whether a live job is meant.
    pub(super) fn job(&self, filter: &Filter<JobInfo>, job: &JobInfo) -> Option<bool> {
        let beside = self.beside(&job.facts);
        filter.holds(&|field, path| match field {
            Field::Id => Value::Id(*job.id.as_uuid()),
            Field::Attempt => Value::Number(job.attempt.into()),
            Field::Enqueued => Value::Instant(job.enqueued_at),
            Field::Age => Value::Span(self.now - job.enqueued_at),
            Field::State | Field::Due | Field::Worker | Field::Db => {
                self.of_state(field, &job.state)
            }
            field => beside.value(&job.facts, field, path),
        })
    }

    fn of_state<'r>(&'r self, field: Field, state: &'r JobState) -> Value<'r> {
        match (field, state) {
            (Field::Db, _) => Value::text(self.database),
            (Field::State, _) => Value::text(state.as_str()),
            (Field::Due, JobState::Scheduled { run_after }) => Value::Instant(*run_after),
            (Field::Worker, JobState::Running { worker, .. }) => self.worker(*worker),
            (Field::Due | Field::Worker, _) => Value::Absent,
            _ => Value::Unknown,
        }
    }

    fn worker(&self, id: WorkerId) -> Value<'_> {
        let seen = self.workers.iter().find(|one| one.info.id == id);
        let name = seen.map(|one| (&*one.info.name).into());
        Value::Texts(std::iter::once(id.to_string().into()).chain(name).collect())
    }

    /// Whether a row of the exception log is meant.
    pub(super) fn exception(&self, filter: &Filter<Exception>, row: &Exception) -> Option<bool> {
        let beside = self.beside(&row.facts);
        filter.holds(&|field, path| match field {
            Field::Id => Value::Id(*row.job.as_uuid()),
            Field::Exception => Value::Id(*row.id.as_uuid()),
            Field::Db => Value::text(self.database),
            Field::Attempt => Value::Number(row.attempt.into()),
            Field::Failed => Value::Instant(row.failed_at),
            Field::Age => Value::Span(self.now - row.failed_at),
            Field::Worker => {
                let name = row.worker_name.as_deref().map(Into::into);
                Value::Texts(std::iter::once(row.worker.to_string().into()).chain(name).collect())
            }
            Field::Version => Value::opt_text(row.version.as_deref()),
            Field::Kind => Value::text(row.kind.as_str()),
            Field::Class => Value::opt_text(row.class.as_deref()),
            Field::Error => {
                let class = row.class.as_deref().map(Into::into);
                Value::Texts(std::iter::once((&*row.message).into()).chain(class).collect())
            }
            Field::Discarded => Value::YesNo(row.discarded),
            Field::Redriven => Value::YesNo(row.redriven_as.is_some()),
            field => beside.value(&row.facts, field, path),
        })
    }

    /// Whether a row of the job status is meant.
    pub(super) fn status(&self, filter: &Filter<StatusRow>, row: &StatusRow) -> Option<bool> {
        filter.holds(&|field, _| match field {
            Field::Id => Value::Id(*row.job.as_uuid()),
            Field::Db => Value::text(self.database),
            Field::Ability => Value::text(&*row.ability),
            Field::Status => Value::text(&*row.status),
            Field::Attempt => Value::Number(row.attempt.into()),
            Field::Key => Value::opt_text(row.uniqkey.as_deref()),
            Field::Enqueued => Value::Instant(row.enqueued_at),
            Field::Started => Value::Instant(row.started_at),
            Field::Finished => Value::Instant(row.finished_at),
            Field::Age => Value::Span(self.now - row.finished_at),
            Field::Took => Value::Span(row.finished_at - row.started_at),
            Field::Error => Value::opt_text(row.message.as_deref()),
            _ => Value::Absent,
        })
    }

    fn beside(&self, facts: &JobFacts) -> Beside {
        let meta = || Meta::from_text(facts.meta.as_deref());
        Beside {
            arg: if self.asks.arg { readable(self.codecs, facts) } else { None },
            meta: if self.asks.meta { meta() } else { Meta::default() },
        }
    }
}

/// The argument, if it can be read and may be. Of a failure that was retried there is none.
pub(crate) fn readable(codecs: &CodecSet, facts: &JobFacts) -> Option<Json> {
    let (codec, _) = split_version(&facts.codec);
    if codecs.get(codec).ok()?.hides() {
        return None;
    }
    codecs.decode(codec, &facts.arg).ok()
}

/// What was read of a job's argument and metadata.
struct Beside {
    arg: Option<Json>,
    meta: Meta,
}

impl Beside {
    fn value<'r>(&'r self, facts: &'r JobFacts, field: Field, path: &[String]) -> Value<'r> {
        match field {
            Field::Ability => Value::text(&*facts.ability),
            Field::Queue => Value::text(&*facts.queue),
            // Of a failure that was retried neither is stored.
            Field::Codec | Field::Arg if facts.codec.is_empty() => Value::Absent,
            Field::Codec => Value::text(&*facts.codec),
            Field::Key => Value::opt_text(facts.uniqkey.as_deref()),
            Field::Priority => Value::Number(facts.priority.into()),
            Field::Tag => Value::Texts(self.meta.tags().map(Into::into).collect()),
            Field::Meta => {
                let found =
                    path.split_first().and_then(|(name, rest)| at(self.meta.get(name)?, rest));
                found.map_or(Value::Absent, Value::Json)
            }
            Field::Arg => match &self.arg {
                None => Value::Unknown,
                Some(arg) => at(arg, path).map_or(Value::Absent, Value::Json),
            },
            _ => Value::Absent,
        }
    }
}

/// What lies in a JSON value at a path.
fn at<'j>(json: &'j Json, path: &[String]) -> Option<&'j Json> {
    path.iter().try_fold(json, |json, name| match json {
        Json::Array(elements) => elements.get(name.parse::<usize>().ok()?),
        other => other.get(name),
    })
}
