//! The `#[ability]` attribute, re-exported by the facade crate `qudo`.

mod ability;
mod options;

use proc_macro::TokenStream;

/// Turns a function into an ability and registers it at link time.
///
/// The function takes a reference to the job, an argument, both, or neither, and returns nothing
/// or a `Result` whose value is the reply. Beside it stands a type of the same name: `NAME::job(arg)`
/// makes a job to enqueue, and as the type it can be given to `ManagerBuilder::ability`.
///
/// Options, all optional:
///
/// | option | value | default |
/// |---|---|---|
/// | `name` | stored name | the function's name |
/// | `queue` | queue of new jobs | `"default"` |
/// | `codec` | codec of new jobs and replies | `"json"` |
/// | `priority` | higher runs first | `0` |
/// | `max_retries` | tries after the first | `0` |
/// | `max_crashes` | crashes before the job is given up | `5` |
/// | `retry_delay` | `"10s"`, or an expression: `Duration`, `Backoff`, `fn(&JobView) -> Duration` | none |
/// | `grab_for` | longest run, as `"60s"` or a `Duration` expression | the manager's |
/// | `set_job_status` | `true` keeps a history row for each run | `false` |
///
/// Times are a number and a unit: `ms`, `s`, `m`, `h`, `d`.
#[proc_macro_attribute]
pub fn ability(options: TokenStream, item: TokenStream) -> TokenStream {
    ability::expand(options.into(), item.into())
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
