//! What the databases tell, as the text that Prometheus reads.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use qudo::Manager;
use qudo::admin::{Gauge, Histogram, Reading, StatRow, StatScan, Watch};

/// What is asked, and for how long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) limit: Duration,
    /// Jobs are counted up to this.
    pub(super) count_to: u64,
    /// So many pairs of queue and ability of one database are told at most.
    pub(super) pairs: u32,
}

/// A page, and why it is not whole.
pub(super) struct Page {
    pub(super) text: String,
    /// The databases that told only a part, or nothing, with the reason.
    pub(super) troubles: Vec<(String, String)>,
}

#[derive(Debug)]
struct Told {
    readings: Vec<Reading>,
    pairs: usize,
    took: Duration,
}

/// Asks all databases and writes what they tell.
pub(super) fn page(manager: &Manager, ask: Ask) -> Result<Page, fmt::Error> {
    let begun = Instant::now();
    let mut scan = StatScan::ever();
    scan.limit = ask.pairs.saturating_add(1);
    let mut watch = Watch::default();
    (watch.within, watch.count_to, watch.stats) = (ask.limit, ask.count_to, Some(scan));
    let readings = manager.readings(watch);
    let trouble = |one: &Reading| Some((one.database.clone(), one.trouble.clone()?));
    let troubles = readings.iter().filter_map(trouble).collect();
    let mut registry = Registry::default();
    let told = Told { readings, pairs: ask.pairs as usize, took: begun.elapsed() };
    registry.register_collector(Box::new(told));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(Page { text, troubles })
}

type Labels<'l> = Vec<(&'l str, &'l str)>;

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.gauges(&mut encoder)?;
        self.runs(&mut encoder)?;
        let help = "How long the runs took, with their hooks";
        self.times(&mut encoder, "qudo_run_seconds", help, |row| &row.stats.running)?;
        let help = "How long jobs were ready before their runs";
        self.times(&mut encoder, "qudo_wait_seconds", help, |row| &row.stats.waiting)?;
        let help = "Whether the database told its numbers of runs";
        self.of_each(&mut encoder, "qudo_stats_up", help, |one| Some(one.stats.is_some()))?;
        let help = "Whether there are more queues and abilities than are told";
        let is_cut = |one: &Reading| Some(one.stats.as_ref()?.len() > self.pairs);
        self.of_each(&mut encoder, "qudo_stats_cut", help, is_cut)?;
        let (name, help) = ("qudo_ask_seconds", "How long it took to ask the databases");
        let mut took = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        took.encode_gauge(&self.took.as_secs_f64())
    }
}

impl Told {
    /// Those of one name together, as the text has to have them.
    fn gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let of = |one: &'_ Reading| (one.database.clone(), Gauge::of(one));
        let all: Vec<_> = self.readings.iter().map(of).collect();
        let kinds = Gauge::of(&Reading::default());
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

    /// Yes or no of each database that told.
    fn of_each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&Reading) -> Option<bool>,
    ) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for one in &self.readings {
            if let Some(is_so) = of(one) {
                let labels: Labels<'_> = vec![("database", &one.database)];
                family.encode_family(&labels)?.encode_gauge(&i64::from(is_so))?;
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
        self.readings.iter().flat_map(|one| {
            let rows = one.stats.as_deref().unwrap_or_default();
            rows.iter().take(self.pairs).map(|row| (&*one.database, row))
        })
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
