//! Samples to medians, ratios, a table and a JSON file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::program::System;

/// Which way a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// A rate.
    Higher,
    /// A cost.
    Lower,
}

/// One figure of one round of one system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// What: the row.
    pub(crate) what: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Which way it counts.
    pub(crate) better: Better,
    /// The figure.
    pub(crate) value: f64,
}

impl Sample {
    /// A rate.
    pub(crate) const fn higher(what: &'static str, unit: &'static str, value: f64) -> Self {
        Self { what, unit, better: Better::Higher, value }
    }

    /// A cost.
    pub(crate) const fn lower(what: &'static str, unit: &'static str, value: f64) -> Self {
        Self { what, unit, better: Better::Lower, value }
    }
}

/// All rounds of one figure.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    better: Better,
    afterimage: Vec<f64>,
    postgresql: Vec<f64>,
    /// How many times better Afterimage's median is; below 1 it is worse.
    ratio: f64,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    facts: Vec<(String, String)>,
    rows: Vec<Row>,
}

/// Middle of the samples; the mean of the two middle ones of an even number. NaN of none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(half)) {
        (_, None) => f64::NAN,
        (1, Some(middle)) => *middle,
        (_, Some(upper)) => (sorted[half - 1] + upper) / 2.0,
    }
}

/// The sample that `share` of all are at or below.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a handful of samples")]
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Nothing measured yet.
    pub(crate) const fn new(facts: Vec<(String, String)>) -> Self {
        Self { facts, rows: Vec::new() }
    }

    /// The samples of one measurement.
    pub(crate) fn add(&mut self, name: &'static str, samples: Vec<(System, Sample)>) {
        for (system, sample) in samples {
            let known = self.rows.iter().position(|r| r.name == name && r.what == sample.what);
            let at = known.unwrap_or_else(|| {
                self.rows.push(Row {
                    name,
                    what: sample.what,
                    unit: sample.unit,
                    better: sample.better,
                    afterimage: Vec::new(),
                    postgresql: Vec::new(),
                    ratio: f64::NAN,
                });
                self.rows.len() - 1
            });
            let row = &mut self.rows[at];
            match system {
                System::Afterimage => row.afterimage.push(sample.value),
                System::Postgres => row.postgresql.push(sample.value),
            }
            let (ours, theirs) = (median(&row.afterimage), median(&row.postgresql));
            row.ratio = match row.better {
                Better::Higher => ours / theirs,
                Better::Lower => theirs / ours,
            };
        }
    }

    /// The facts, one a line.
    pub(crate) fn heading(&self) -> String {
        let wide = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in &self.facts {
            writeln!(out, "{name:<wide$}  {value}").expect("writing to a String cannot fail");
        }
        out.push('\n');
        out
    }

    /// One line per row: medians, least and greatest sample, ratio.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            ["measured", "unit", "better", "Afterimage", "(least .. greatest)", "PostgreSQL", "(least .. greatest)", "ratio"]
                .map(str::to_owned),
        ];
        for row in &self.rows {
            lines.push([
                format!("{}: {}", row.name, row.what),
                row.unit.to_owned(),
                if row.better == Better::Higher { "higher" } else { "lower" }.to_owned(),
                shown(median(&row.afterimage)),
                range(&row.afterimage),
                shown(median(&row.postgresql)),
                range(&row.postgresql),
                format!("{:.2}", row.ratio),
            ]);
        }
        let widths: Vec<usize> = (0..8).map(|column| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for line in lines {
            for (column, (cell, wide)) in line.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                if column < 3 {
                    write!(out, "{gap}{cell:<wide$}").expect("writing to a String cannot fail");
                } else {
                    write!(out, "{gap}{cell:>wide$}").expect("writing to a String cannot fail");
                }
            }
            out.push('\n');
        }
        out.push_str("\nratio: how many times better Afterimage's median is; below 1 it is worse\n");
        out
    }

    /// Writes facts, rows and samples.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn range(samples: &[f64]) -> String {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("({} .. {})", shown(least), shown(greatest))
}

#[cfg(test)]
mod tests {
    use super::{Report, Sample, median, quantile};
    use crate::program::System;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.99), 4.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
    }

    #[test]
    fn a_ratio_above_one_is_better_whichever_way_the_row_counts() {
        let mut report = Report::new(Vec::new());
        report.add(
            "x",
            vec![
                (System::Afterimage, Sample::higher("rate", "tps", 20.0)),
                (System::Postgres, Sample::higher("rate", "tps", 10.0)),
                (System::Afterimage, Sample::lower("cost", "us", 5.0)),
                (System::Postgres, Sample::lower("cost", "us", 20.0)),
            ],
        );
        let ratios: Vec<f64> = report.rows.iter().map(|r| r.ratio).collect();
        assert_eq!(ratios, [2.0, 4.0]);
        let table = report.table();
        let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["x:", "rate", "tps", "higher", "20.0", "(20.0", "..", "20.0)", "10.0", "(10.0", "..", "10.0)", "2.00"]);
    }
}
