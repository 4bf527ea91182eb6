//! The `#[ability]` attribute, re-exported by the facade crate `qudo`.

mod ability;
mod options;

use proc_macro::TokenStream;

/// Turns a function, or the method `work` of a type, into an ability and registers it at link time.
///
/// The function takes a reference to the job, an argument, both, or neither, and returns nothing
/// or a `Result` whose value is the reply. Its error may be `qudo::JobError` (the default of
/// `qudo::JobResult`), anything that implements `std::error::Error`, `anyhow::Error`, or a text. Beside
/// it stands a type of the same name: `NAME::job(arg)` makes a job to enqueue, and as the type it can
/// be given to `ManagerBuilder::ability`.
///
/// An `async fn` runs on the runtime whose handle the manager was given as a plugin; it needs the
/// feature `tokio` of `qudo`.
///
/// Options, all optional:
///
/// | option | value | default |
/// |---|---|---|
/// | `name` | stored name | the function's name; a type's name in `snake_case` |
/// | `aliases` | `["former_name"]`: names whose jobs are run too | none |
/// | `queue` | queue of new jobs | `"default"` |
/// | `codec` | codec of new jobs and replies | `"json"` |
/// | `priority` | higher runs first | `0` |
/// | `unique_by` | <code>&#124;arg&#124; ..</code>: the unique key, from the argument | none |
/// | `max_retries` | tries after the first | `0` |
/// | `max_crashes` | crashes before the job is given up | `5` |
/// | `retry_delay` | `"10s"`, `exponential("1s", "1h")`, or an expression: `Duration`, `Backoff`, `fn(&JobView) -> Duration` | none |
/// | `grab_for` | longest run, as `"60s"` or a `Duration` expression | the manager's |
/// | `time_limit` | when a run is told to stop, as `"60s"` | none |
/// | `job_status` | `true` keeps a history row for each run | `false` |
/// | `hooks` | `[MyHook]`: hooks of this ability alone | none |
/// | `plugins` | `[Mailer]`: types of plugins without which a manager refuses to work | none |
/// | `version` | version of the argument's shape | `1` |
/// | `upgrade` | `fn(from: u32, arg: JsonValue) -> Result<JsonValue>`: one step up | none |
///
/// Times are a number and a unit: `ms`, `s`, `m`, `h`, `d`.
#[proc_macro_attribute]
pub fn ability(options: TokenStream, item: TokenStream) -> TokenStream {
    ability::expand(options.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
