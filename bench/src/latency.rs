//! Latencies, counted in nanoseconds and told in microseconds.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency told apart from longer ones, in nanoseconds: one minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Decimal digits kept of each latency.
const DIGITS: u8 = 3;
/// Width of the bars of a plot, in characters.
const BAR: f64 = 48.0;
/// The percentiles drawn in a plot.
const DRAWN: [f64; 8] = [0.0, 50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0];

/// A histogram of latencies.
pub struct Latency(Histogram<u64>);

/// What most people want to know of a histogram; all in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The mean.
    pub mean: f64,
    /// Half were at most this.
    pub p50: f64,
    /// 90 % were at most this.
    pub p90: f64,
    /// 99 % were at most this.
    pub p99: f64,
    /// 99.9 % were at most this.
    pub p99_9: f64,
    /// The worst.
    pub max: f64,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS);
        Self(histogram.expect("the bounds are constants in the range the histogram takes"))
    }
}

impl Latency {
    /// Counts one latency; above a minute counts as a minute.
    pub fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS);
        self.0.saturating_record(nanoseconds);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The usual percentiles.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            mean: self.0.mean() / 1000.0,
            p50: self.at(50.0),
            p90: self.at(90.0),
            p99: self.at(99.0),
            p99_9: self.at(99.9),
            max: self.at(100.0),
        }
    }

    /// The latency that `percent` of all did not exceed, in microseconds.
    fn at(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    /// Latency by percentile as plain text, bars on a linear scale up to p99.99.
    pub fn plot(&self) -> String {
        let scale = self.at(99.99).max(0.001);
        let mut text = format!("latency by percentile (µs), {} calls\n", self.count());
        for percent in DRAWN {
            let value = self.at(percent);
            let full = BAR * value / scale;
            let bar = "█".repeat(full.min(BAR) as usize);
            let more = if full > BAR { "▶" } else { "" };
            let _ = writeln!(text, "{:>7} ┤{bar}{more} {value:.1}", format!("p{percent}"));
        }
        text
    }

    /// The percentile distribution in the text form HdrHistogram's plotters read; microseconds.
    pub fn distribution(&self) -> String {
        let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
        let mut seen = 0;
        for step in self.0.iter_quantiles(5) {
            seen += step.count_since_last_iteration();
            let quantile = step.quantile_iterated_to();
            let value = step.value_iterated_to() as f64 / 1000.0;
            let _ = write!(text, "{value:12.3} {quantile:14.12} {seen:10}");
            if quantile < 1.0 {
                let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut latency = Latency::default();
        for microseconds in 1..=10_000 {
            latency.record(Duration::from_micros(microseconds));
        }
        let told = latency.percentiles();
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted * 0.002;
        assert!(near(told.p50, 5_000.0), "{told:?}");
        assert!(near(told.p99, 9_900.0), "{told:?}");
        assert!(near(told.max, 10_000.0), "{told:?}");
    }

    #[test]
    fn longer_than_a_minute_is_kept_as_a_minute() {
        let mut latency = Latency::default();
        latency.record(Duration::from_secs(600));
        assert_eq!(latency.count(), 1);
        assert!(latency.percentiles().max >= 59_000_000.0);
    }

    #[test]
    fn a_plot_and_a_distribution_end_at_the_worst() {
        let mut latency = Latency::default();
        for microseconds in [100, 200, 300] {
            latency.record(Duration::from_micros(microseconds));
        }
        assert!(latency.plot().lines().last().is_some_and(|line| line.contains("p100")));
        let distribution = latency.distribution();
        let last = distribution.lines().last().unwrap_or_default();
        assert!(last.contains("300.") && last.contains("1.000000000000"), "{last}");
    }
}
