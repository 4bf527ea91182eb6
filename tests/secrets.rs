//! No argument, reply or password in any text: the rule that every public type follows, the types that hold
//! one, and data source names with whatever a hand may have slipped into them.

#![allow(missing_docs, reason = "a test is read, not called")]

#[path = "../fuzz/dsn.rs"]
mod dsn;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use qudo::driver::{
    ClaimedJob, Due, Exception, Flags, JobFacts, JobInfo, JobRecord, JobState, MovingJob, Password,
    ReplyRecord, ReplyRow,
};
use qudo::hook::{FailureKind, JobView};
use qudo::{DataSource, JobId, Manager, NewJob};
use syn::visit::Visit;

const SECRET: &str = "s3cr3t-0f-4-us3r";

/// Types whose `Debug` is written by hand because they hold a secret; each is shown below.
const HIDING: [&str; 22] = [
    "Arg",
    "ClaimedJob",
    "DataSource",
    "Encodable",
    "Encrypted",
    "Exception",
    "Failure",
    "JobFacts",
    "JobInfo",
    "JobRecord",
    "JobView",
    "ManagerBuilder",
    "Meta",
    "MovingJob",
    "NewJob",
    "Outgoing",
    "Password",
    "ReplyRecord",
    "ReplyRow",
    "Ticket",
    "TypedArg",
    "Values",
];

/// Types whose `Debug` is written by hand for another reason: they hold functions, threads or sets, of which
/// they show names, numbers or nothing.
const PLAIN: [&str; 30] = [
    "AbilityRegistration",
    "AbilitySet",
    "CodecSet",
    "Compressed",
    "Database",
    "DieselDriver",
    "Enqueued",
    "FaultyDriver",
    "Filter",
    "HookRegistration",
    "HookSet",
    "Job",
    "JobId",
    "LivePlugin",
    "Manager",
    "MemoryDriver",
    "Name",
    "NamedDriver",
    "OwnHook",
    "PluginRegistration",
    "PluginSet",
    "RetryDelay",
    "Sqlite",
    "Target",
    "TestQueueBuilder",
    "UpdateStream",
    "Updates",
    "Visit",
    "WorkHandle",
    "WorkerView",
];

/// Names of fields that hold what must not be shown.
const SUSPICIOUS: [&str; 7] = ["arg", "args", "body", "dsn", "password", "secret", "reply"];

/// What the source files say of the types in them.
#[derive(Default)]
struct Types {
    /// Public types with a derived `Debug` and a field that looks like a secret.
    derived: BTreeSet<String>,
    by_hand: BTreeSet<String>,
}

fn derives_debug(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|one| one.path().is_ident("derive")).any(|one| {
        let mut found = false;
        let _ = one.parse_nested_meta(|meta| {
            found |= meta.path.segments.last().is_some_and(|last| last.ident == "Debug");
            Ok(())
        });
        found
    })
}

/// Bytes, or a name that tells.
fn is_suspicious(field: &syn::Field) -> bool {
    struct Bytes(bool);
    impl Visit<'_> for Bytes {
        fn visit_path(&mut self, path: &syn::Path) {
            self.0 |= path.is_ident("u8");
            syn::visit::visit_path(self, path);
        }
    }
    let mut bytes = Bytes(false);
    bytes.visit_type(&field.ty);
    let is_number = matches!(&field.ty, syn::Type::Path(path) if path.path.is_ident("u8"));
    let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
    (bytes.0 && !is_number) || SUSPICIOUS.contains(&&*name)
}

impl Visit<'_> for Types {
    fn visit_item_struct(&mut self, item: &syn::ItemStruct) {
        if derives_debug(&item.attrs) && item.fields.iter().any(is_suspicious) {
            self.derived.insert(item.ident.to_string());
        }
    }

    fn visit_item_enum(&mut self, item: &syn::ItemEnum) {
        let mut fields = item.variants.iter().flat_map(|variant| &variant.fields);
        if derives_debug(&item.attrs) && fields.any(is_suspicious) {
            self.derived.insert(item.ident.to_string());
        }
    }

    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if item.ident != "tests" {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        let of = item.trait_.as_ref().and_then(|(_, path, _)| path.segments.last());
        if of.is_some_and(|of| of.ident == "Debug")
            && let syn::Type::Path(path) = &*item.self_ty
            && let Some(name) = path.path.segments.last()
        {
            self.by_hand.insert(name.ident.to_string());
        }
    }
}

fn all_types() -> Types {
    let mut types = Types::default();
    for source in ["core", "hooks", "driver-diesel", "history"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates").join(source).join("src");
        for entry in walkdir::WalkDir::new(root) {
            let entry = entry.expect("reads");
            if entry.path().extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(entry.path()).expect("reads");
                types.visit_file(&syn::parse_file(&text).expect("parses"));
            }
        }
    }
    types
}

/// Derived, it would show the field.
const SHOWN: [(&str, &str); 6] = [
    ("Error", "its data source name is shown without the password"),
    ("InvalidDsn", "the same"),
    ("JobFields", "its argument hides itself"),
    ("Options", "its password hides itself"),
    ("Array", "never leaves the driver, and is not logged"),
    ("Bind", "the same"),
];

#[test]
fn a_type_that_holds_a_secret_says_by_hand_what_it_shows() {
    let types = all_types();
    let allowed: BTreeSet<_> = SHOWN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let derived: Vec<_> = types.derived.difference(&allowed).collect();
    assert!(derived.is_empty(), "these derive Debug and would show a secret: {derived:?}");
    let known: BTreeSet<_> = HIDING.iter().chain(&PLAIN).map(|name| (*name).to_owned()).collect();
    let new: Vec<_> = types.by_hand.difference(&known).collect();
    assert!(
        new.is_empty(),
        "is a secret in them? add them to a list, and to the test below: {new:?}"
    );
    let gone: Vec<_> = known.difference(&types.by_hand).collect();
    assert!(gone.is_empty(), "they are no more: {gone:?}");
}

#[track_caller]
fn hidden(what: &str, shown: &impl std::fmt::Debug) {
    for text in [format!("{shown:?}"), format!("{shown:#?}")] {
        let bytes = format!("{:?}", SECRET.as_bytes());
        assert!(!text.contains(SECRET) && !text.contains(&bytes), "{what}: {text}");
    }
}

fn facts() -> JobFacts {
    JobFacts {
        uniqkey: Some(SECRET.to_owned()),
        meta: Some(SECRET.into()),
        ..JobFacts::new("mail", "default", "json", SECRET.as_bytes().to_vec())
    }
}

fn record() -> JobRecord {
    JobRecord { id: JobId::new(), facts: facts(), due: Due::Now }
}

#[test]
fn no_type_shows_an_argument_a_reply_or_a_password() {
    let now = chrono::Utc::now();
    let arg = || SECRET.as_bytes().to_vec();
    hidden("JobFacts", &facts());
    hidden("JobRecord", &record());
    hidden(
        "ClaimedJob",
        &ClaimedJob {
            id: JobId::new(),
            facts: facts(),
            flags: Flags::NONE,
            attempt: 1,
            crashes: 0,
            claim: 1,
            ordinal: 0,
            enqueued_at: now,
            ready_since: std::time::Instant::now(),
        },
    );
    hidden(
        "MovingJob",
        &MovingJob {
            record: record(),
            attempt: 1,
            crashes: 0,
            flags: Flags::NONE,
            enqueued_at: now,
            departure: uuid::Uuid::nil(),
        },
    );
    hidden("ReplyRow", &ReplyRow { codec: "json".to_owned(), body: arg() });
    hidden("ReplyRecord", &ReplyRecord { codec: "json".into(), body: arg() });
    hidden(
        "Exception",
        &Exception::new(
            qudo::driver::ExceptionId::new(),
            JobId::new(),
            facts(),
            FailureKind::Error,
            "failed",
            qudo::driver::WorkerId::new(),
            now,
        ),
    );
    let error = std::io::Error::other(SECRET);
    let failure = qudo::hook::Failure::new(FailureKind::Error, "failed").with_error(error);
    hidden("Failure", &failure);
    hidden("Password", &Password::from_fn(|| Ok(SECRET.to_owned())));
    let dsn = format!("postgres://app:{SECRET}@db/jobs");
    hidden("DataSource", &DataSource::new(dsn).password(|| Ok(SECRET.to_owned())));
    let manager =
        Manager::builder().linked(false).database("memory:secrets").build().expect("valid");
    let sent = manager.enqueue(NewJob::named("mail", SECRET.into())).expect("stored");
    hidden("Manager", &manager);
    hidden("Enqueued and Ticket", &sent);
    hidden("NewJob", &NewJob::named("mail", SECRET.into()).meta("secret", SECRET));
    let job = NewJob::named("mail", SECRET.into()).uniqkey(SECRET).meta("secret", SECRET);
    let outgoing = qudo::adapter::Outgoing::prepare(&manager, qudo::adapter::Dialect::Sqlite, job);
    let outgoing = outgoing.expect("valid").expect("kept");
    hidden("Outgoing", &outgoing);
    hidden("Values", &outgoing.values());
    hidden("Encodable", &qudo::codec::Encodable::new(&SECRET));
    hidden("TypedArg", &qudo::codec::TypedArg::new(SECRET));
    let mut meta = qudo::Meta::default();
    meta.set("secret", SECRET);
    hidden("Meta", &meta);
    hidden("ManagerBuilder", &Manager::builder().database(format!("postgres://u:{SECRET}@h/d")));
    let stored: Vec<JobInfo> = manager
        .jobs(&qudo::admin::JobFilter::all(), &qudo::admin::Paging::default())
        .into_iter()
        .flat_map(|on| on.answer.expect("answers"))
        .collect();
    assert_eq!((stored.len(), stored[0].state), (1, JobState::Ready));
    hidden("JobInfo", &stored);
}

struct Shows;

impl qudo::hook::Hook for Shows {
    fn name(&self) -> &'static str {
        "shows"
    }

    fn pre_enqueue(&self, job: &mut qudo::hook::JobDraft<'_>) -> Result<(), qudo::hook::HookError> {
        hidden("JobDraft and Arg", job);
        Ok(())
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), qudo::hook::HookError> {
        hidden("JobView", job);
        Ok(())
    }
}

#[qudo::ability]
fn mail(job: &qudo::Job, text: String) -> qudo::JobResult<String> {
    assert_eq!(text, SECRET);
    hidden("Job", job);
    Ok(text)
}

#[test]
fn hooks_and_abilities_are_shown_no_argument() {
    let manager = Manager::builder()
        .linked(false)
        .database("memory:shown")
        .ability::<mail>()
        .hook(Shows)
        .build()
        .expect("valid");
    manager.enqueue(NewJob::named("mail", SECRET.into())).expect("stored");
    let outcome = manager.work_once().expect("works").expect("there is one");
    assert!(outcome.failure().is_none(), "{outcome:?}");
    hidden("Outcome", &outcome);
}

#[cfg(feature = "aead")]
#[test]
fn a_key_is_not_shown() {
    let codec = qudo::codec::Encrypted::over(qudo::codec::Json)
        .key("one", *b"0123456789abcdef0123456789abcdef");
    let text = format!("{codec:?}");
    assert!(!text.contains("0123456789abcdef") && !text.contains("48, 49, 50"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same that the fuzz target walks.
    #[test]
    fn no_text_about_a_data_source_name_shows_its_password(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        dsn::check(&bytes);
    }
}
