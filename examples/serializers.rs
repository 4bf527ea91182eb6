//! Codecs: what arguments and replies are stored as, per ability and per job. Ends by itself.

use std::time::Duration;

use qudo::codec::{Compressed, Json};
use qudo::hook::{JobDraft, JobView};
use qudo::{JobResult, Manager};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Page {
    title: String,
    text: String,
}

/// Compact, and not readable in the tables.
#[qudo::ability(codec = "msgpack")]
fn index(page: Page) -> JobResult<usize> {
    Ok(page.title.len() + page.text.len())
}

/// Bytes as they are.
#[qudo::ability(codec = "raw")]
fn checksum(image: Vec<u8>) -> JobResult<Vec<u8>> {
    Ok(vec![image.iter().fold(0, |sum, byte| sum ^ byte)])
}

/// A version ago a page had no title; what was enqueued then is brought up to date.
#[qudo::ability(version = 2, upgrade = add_title)]
fn archive(page: Page) -> JobResult<String> {
    Ok(page.title)
}

fn add_title(from: u32, mut page: qudo::JsonValue) -> JobResult<qudo::JsonValue> {
    let fields = page.as_object_mut().ok_or_else(|| qudo::abort("a page has fields"))?;
    fields.insert("title".to_owned(), format!("untitled, of version {from}").into());
    Ok(page)
}

/// Whoever enqueues may choose too: long arguments are compressed.
struct CompressLong;

impl qudo::hook::Hook for CompressLong {
    fn name(&self) -> &'static str {
        "compress-long"
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), qudo::hook::HookError> {
        if job.ability() == "index" {
            job.set_codec("json+zstd");
        }
        Ok(())
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        println!("{}: {} bytes of {}", job.ability(), job.arg().len(), job.codec());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manager = Manager::builder()
        .database("memory:serializers")
        .codec(Compressed::over(Json))
        .hook(CompressLong)
        .build()?;
    let text = "all work and no play makes Jack a dull boy\n".repeat(1_000);
    let indexed = manager.enqueue(index::job(Page { title: "A page".to_owned(), text }))?;
    let sum = manager.enqueue(checksum::job(vec![1, 2, 255]))?;
    let old = qudo::NewJob::named("archive", serde_json::json!({"text": "from last year"}));
    let archived = manager.enqueue(old)?;
    while manager.work_once()?.is_some() {}
    println!("{} letters", indexed.wait(Duration::ZERO)?);
    println!("checksum {:?}", sum.wait(Duration::ZERO)?);
    println!("archived as {:?}", archived.wait(Duration::ZERO)?);
    Ok(())
}
