//! What the databases tell, as the text that Prometheus reads.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use qudo::Manager;
use qudo::admin::{Gauge, Histogram, Overview, StatRow, StatScan};

/// So many queues and abilities of one database are told at most.
const MAX_ROWS: u32 = 10_000;

/// What is asked, and for how long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) limit: Duration,
    /// Jobs are counted up to this.
    pub(super) count_to: u64,
}

/// One database.
#[derive(Debug)]
struct Told {
    database: String,
    seen: Option<Overview>,
    rows: Vec<StatRow>,
    /// Whether there are more rows than are told.
    cut: bool,
}

#[derive(Debug)]
struct Page {
    databases: Vec<Told>,
    took: Duration,
}

/// Asks all databases and writes what they tell.
pub(super) fn page(manager: &Manager, ask: Ask) -> Result<String, fmt::Error> {
    let begun = Instant::now();
    let mut scan = StatScan::ever();
    scan.limit = MAX_ROWS + 1;
    // Both are asked of all databases at the same time.
    let (seen, stats) = std::thread::scope(|scope| {
        let stats = scope.spawn(|| manager.stats_within(&scan, ask.limit));
        (manager.overview_counting(ask.limit, ask.count_to), stats.join())
    });
    let mut stats = stats.unwrap_or_default();
    let told = |seen: qudo::admin::PerDatabase<Overview>| {
        let at = stats.iter().position(|on| on.database == seen.database);
        let rows = at.map(|at| stats.swap_remove(at));
        let mut rows = rows.and_then(|on| on.answer.ok()).unwrap_or_default();
        let cut = rows.len() > MAX_ROWS as usize;
        rows.truncate(MAX_ROWS as usize);
        Told { database: seen.database, seen: seen.answer.ok(), rows, cut }
    };
    let databases = seen.into_iter().map(told).collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { databases, took: begun.elapsed() }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

type Labels<'l> = Vec<(&'l str, &'l str)>;

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.gauges(&mut encoder)?;
        self.runs(&mut encoder)?;
        let help = "How long the runs took, with their hooks";
        self.times(&mut encoder, "qudo_run_seconds", help, |row| &row.stats.running)?;
        let help = "How long jobs were ready before their runs";
        self.times(&mut encoder, "qudo_wait_seconds", help, |row| &row.stats.waiting)?;
        let help = "Whether there are more queues and abilities than are told";
        let name = "qudo_stats_cut";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for one in &self.databases {
            let labels: Labels<'_> = vec![("database", &one.database)];
            family.encode_family(&labels)?.encode_gauge(&i64::from(one.cut))?;
        }
        let help = "How long it took to ask the databases";
        let name = "qudo_ask_seconds";
        let mut took = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        took.encode_gauge(&self.took.as_secs_f64())
    }
}

impl Page {
    /// Those of one name together, as the text has to have them.
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of = |one: &Told| Gauge::of(one.seen.as_ref());
        let all: Vec<_> = self.databases.iter().map(|one| (&*one.database, of(one))).collect();
        let kinds = Gauge::of(None);
        for kind in kinds.chunk_by(|one, next| one.name == next.name) {
            let Gauge { name, help, .. } = kind[0];
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (database, gauges) in &all {
                // What a database did not tell is left out.
                let known = gauges.iter().filter(|one| one.name == name && !one.value.is_nan());
                for one in known {
                    let mut labels: Labels<'_> = vec![("database", database)];
                    labels.extend(one.label);
                    family.encode_family(&labels)?.encode_gauge(&one.value)?;
                }
            }
        }
        Ok(())
    }

    fn runs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Runs that ended, by their outcome, since the database counts them";
        let mut family = encoder.encode_descriptor("qudo_runs", help, None, MetricType::Counter)?;
        for (database, row) in self.rows() {
            for (outcome, count) in row.stats.by_outcome() {
                let mut labels = of_row(database, row);
                labels.push(("outcome", outcome));
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn times(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&StatRow) -> &Histogram,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (database, row) in self.rows() {
            histogram(family.encode_family(&of_row(database, row))?, of(row))?;
        }
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = (&str, &StatRow)> {
        self.databases.iter().flat_map(|one| one.rows.iter().map(|row| (&*one.database, row)))
    }
}

fn of_row<'l>(database: &'l str, row: &'l StatRow) -> Labels<'l> {
    vec![("database", database), ("queue", &row.queue), ("ability", &row.ability)]
}

fn histogram(mut encoder: MetricEncoder<'_>, histogram: &Histogram) -> Result<(), fmt::Error> {
    let bounds = Histogram::BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(histogram.counts().iter().copied()).collect();
    let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
