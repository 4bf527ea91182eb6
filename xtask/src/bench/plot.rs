//! Charts as SVG.

use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::Result;

const SIZE: (u32, u32) = (720, 420);

/// Okabe and Ito's colours, told apart by everybody.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(120, 120, 120)];

/// Lines over the same few points of x.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// The points of x, at equal distances.
    pub(super) points: &'a [String],
    /// A name and a value for each point.
    pub(super) lines: Vec<(&'a str, Vec<f64>)>,
    /// Whether the values span powers of ten.
    pub(super) powers: bool,
    /// Whether the lines rise, so that their names fit above them.
    pub(super) rising: bool,
}

impl Chart<'_> {
    pub(super) fn draw(&self, file: &Path) -> Result<()> {
        let values = || self.lines.iter().flat_map(|line| line.1.iter().copied());
        let highest = values().fold(0.0, f64::max) * 1.1;
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&root);
        builder
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(76);
        let x = -0.2..self.points.len() as f64 - 0.8;
        if self.powers {
            let lowest = values().fold(f64::MAX, f64::min) / 2.0;
            let chart = builder.build_cartesian_2d(x, (lowest..highest * 2.0).log_scale())?;
            self.fill(chart)?;
        } else {
            self.fill(builder.build_cartesian_2d(x, 0.0..highest)?)?;
        }
        root.present()?;
        Ok(())
    }

    fn fill<'a, Y>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>,
    ) -> Result<()>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let label = |at: &f64| {
            let whole = (at - at.round()).abs() < 0.01 && *at > -0.5;
            let point = whole.then(|| self.points.get(at.round() as usize)).flatten();
            point.cloned().unwrap_or_default()
        };
        chart
            .configure_mesh()
            .x_labels(self.points.len() + 1)
            .x_label_formatter(&label)
            .y_label_formatter(&|value| thousands(*value))
            .x_desc(self.x)
            .y_desc(self.y)
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.0))
            .draw()?;
        for ((name, values), colour) in self.lines.iter().zip(COLOURS) {
            let points: Vec<_> =
                values.iter().enumerate().map(|(at, value)| (at as f64, *value)).collect();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(if self.rising {
                SeriesLabelPosition::UpperLeft
            } else {
                SeriesLabelPosition::LowerLeft
            })
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }
}

/// `12 k` for 12,000: rates are never known better.
fn thousands(value: f64) -> String {
    if value >= 10_000.0 {
        format!("{:.0} k", value / 1_000.0)
    } else if value >= 1_000.0 {
        format!("{:.1} k", value / 1_000.0)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Chart, thousands};

    #[test]
    fn a_chart_shows_its_names_points_and_lines() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let points = ["one".to_owned(), "two".to_owned(), "four".to_owned()];
        for powers in [false, true] {
            let lines = vec![("ours", vec![1.0, 20.0, 400.0]), ("theirs", vec![3.0, 2.0, 1.0])];
            let (title, x, y) = ("A title", "databases", "jobs/s");
            let chart = Chart { title, x, y, points: &points, lines, powers, rising: powers };
            let file = place.path().join("chart.svg");
            chart.draw(&file).expect("draws");
            let svg = std::fs::read_to_string(&file).expect("written");
            for word in ["A title", "databases", "jobs/s", "one", "two", "four", "ours", "theirs"] {
                assert!(svg.contains(word), "{word} is missing");
            }
            assert_eq!(svg.matches("<circle").count(), 6);
        }
    }

    #[test]
    fn large_values_are_told_in_thousands() {
        assert_eq!([950.0, 1_250.0, 96_400.0].map(thousands), ["950", "1.2 k", "96 k"]);
    }
}
