//! What hooks, codecs and the dispatch cost without a database.
//!
//! `cargo bench --bench micro --all-features`. The group `enqueue` is all that happens to a job before
//! its insert: hooks and encoding. `dispatch` is all that happens from claim to settlement over the
//! driver in memory, per job: with more hooks on one thread, and without on more threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qudo::codec::{Codec, Compressed, Encodable, Encrypted, Json, MessagePack, Raw};
use qudo::driver::ManagerInside;
use qudo::hook::Hook;
use qudo::{Manager, ManagerBuilder};
use serde::{Deserialize, Serialize};

/// Jobs of one round of the dispatch.
const ROUND: usize = 20_000;

/// How many jobs ran.
static DONE: AtomicUsize = AtomicUsize::new(0);

#[qudo::ability(queue = "micro")]
fn nothing(_text: String) {
    DONE.fetch_add(1, Ordering::Relaxed);
}

/// A hook that does nothing at its six points.
struct Idle(String);

impl Hook for Idle {
    fn name(&self) -> &str {
        &self.0
    }
}

fn manager(hooks: usize, threads: usize) -> Manager {
    let builder = Manager::builder().linked(false).ability::<nothing>().database("memory:");
    let with = |builder: ManagerBuilder, n: usize| builder.hook(Idle(format!("idle {n}")));
    (0..hooks).fold(builder, with).workers(threads).build().expect("valid")
}

fn enqueue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("enqueue");
    for hooks in [0, 1, 10] {
        let manager = manager(hooks, 1);
        group.bench_function(BenchmarkId::new("hooks", hooks), |bencher| {
            bencher.iter(|| manager.prepare_record(nothing::job("0".repeat(48))).expect("valid"));
        });
    }
    group.finish();
}

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch");
    group.sample_size(10);
    let mut measure = |id, manager: &Manager| {
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|jobs| {
                let rounds = (jobs as usize).div_ceil(ROUND);
                let took: Duration = (0..rounds).map(|_| work(manager)).sum();
                took.mul_f64(jobs as f64 / (rounds * ROUND) as f64)
            });
        });
    };
    for hooks in [0, 1, 10] {
        measure(BenchmarkId::new("hooks", hooks), &manager(hooks, 1));
    }
    for threads in [1, 2, 4, 8] {
        measure(BenchmarkId::new("threads", threads), &manager(0, threads));
    }
    group.finish();
}

/// From the start of the work to the last settlement of one round.
fn work(manager: &Manager) -> Duration {
    let jobs = (0..ROUND).map(|n| nothing::job(format!("{n:048}")));
    manager.enqueue_many(jobs).expect("stored");
    let wanted = DONE.load(Ordering::Relaxed) + ROUND;
    let begun = Instant::now();
    let working = manager.start().expect("starts");
    while DONE.load(Ordering::Relaxed) < wanted {
        std::thread::sleep(Duration::from_micros(50));
    }
    // To count those that are left takes the longer the more they are.
    let left = || manager.job_count().into_iter().any(|on| !on.answer.expect("counts").is_empty());
    while left() {
        std::thread::sleep(Duration::from_micros(50));
    }
    let took = begun.elapsed();
    working.stop();
    took
}

#[derive(Serialize, Deserialize)]
struct Thumbnail {
    path: String,
    width: u32,
    tags: Vec<String>,
}

/// About this many bytes of JSON.
fn thumbnail(bytes: usize) -> Thumbnail {
    let tags = (0..bytes.saturating_sub(45) / 18).map(|n| format!("tag number {n:04}")).collect();
    Thumbnail { path: "cats/tabby/1234.jpg".into(), width: 640, tags }
}

fn codecs(criterion: &mut Criterion) {
    let codecs: [Box<dyn Codec>; 4] = [
        Box::new(Json),
        Box::new(MessagePack),
        Box::new(Compressed::over(Json)),
        Box::new(Encrypted::over(Json).key("2026", [7; 32])),
    ];
    for bytes in [50, 5_000] {
        let value = thumbnail(bytes);
        let mut group = criterion.benchmark_group(format!("codec, {bytes} bytes"));
        for codec in &codecs {
            let encoded = codec.encode(Encodable::new(&value)).expect("encodes");
            group.throughput(Throughput::Bytes(encoded.len() as u64));
            group.bench_function(BenchmarkId::new("encode", codec.name()), |bencher| {
                bencher.iter(|| codec.encode(Encodable::new(&value)).expect("encodes"));
            });
            group.bench_function(BenchmarkId::new("decode", codec.name()), |bencher| {
                bencher.iter(|| {
                    qudo::codec::decode::<Thumbnail>(&**codec, &encoded).expect("decodes")
                });
            });
        }
        group.finish();
    }
    criterion.bench_function("codec raw, 5000 bytes, decode", |bencher| {
        let bytes = vec![7; 5_000];
        let encoded = Raw.encode(Encodable::new(&bytes)).expect("encodes");
        bencher.iter(|| qudo::codec::decode::<Vec<u8>>(&Raw, &encoded).expect("decodes"));
    });
}

criterion_group!(benches, enqueue, codecs, dispatch);
criterion_main!(benches);
