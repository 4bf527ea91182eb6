//! Mixes of jobs, worked in turn and set against plain ones of the same round.

use std::iter;

use super::counts::WORK_JOBS;
use super::mix::{Kind, Mix};
use super::patience::Any;
use super::{Metric, Setting, measure};

/// Measures each mix so often and prints a line for each.
pub(super) fn measure(setting: &Setting, mixes: &[Mix], repeat: u32, json: bool) -> Any<()> {
    let rounds = iter::repeat_with(|| round(setting, mixes));
    let rounds: Vec<Vec<f64>> = rounds.take(repeat as usize).collect::<Any<_>>()?;
    let plain = mixes.iter().position(|mix| mix.kind == Kind::Plain);
    for (at, mix) in mixes.iter().enumerate() {
        let rate = median(rounds.iter().map(|round| round[at]));
        // Of each round by itself: the machine may be slower in one than in another.
        let share = plain.map(|plain| median(rounds.iter().map(|round| round[at] / round[plain])));
        print(setting, *mix, rate, share, json);
    }
    Ok(())
}

/// The rates of all mixes.
fn round(setting: &Setting, mixes: &[Mix]) -> Any<Vec<f64>> {
    let level = log::max_level();
    let rate = |mix: &Mix| {
        if mix.kind != Kind::Plain {
            // A line for each failure would be measured too.
            log::set_max_level(log::LevelFilter::Off);
        }
        let figure = measure::measure(setting, Metric::Work, *mix);
        log::set_max_level(level);
        figure?.per_second.ok_or_else(|| "no rate".into())
    };
    mixes.iter().map(rate).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(setting: &Setting, mix: Mix, rate: f64, share: Option<f64>, json: bool) {
    let database = setting.sources();
    if json {
        let mut line = serde_json::json!({
            "database": database, "metric": Metric::Work.as_str(), "mix": mix.to_string(),
            "jobs": setting.jobs(WORK_JOBS), "workers": setting.workers, "per_second": rate,
        });
        if let Some(share) = share {
            line["of_plain"] = share.into();
        }
        println!("{line}");
        return;
    }
    let share = share.map(|share| format!("  {share:.2} of plain")).unwrap_or_default();
    println!("{:<13} {rate:>10.0} jobs/s{share}  ({database})", mix.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_one_in_the_middle() {
        let is = |values: &[f64], middle: f64| {
            (median(values.iter().copied()) - middle).abs() < f64::EPSILON
        };
        assert!(is(&[3.0, 1.0, 2.0], 2.0) && is(&[1.0], 1.0));
    }
}
