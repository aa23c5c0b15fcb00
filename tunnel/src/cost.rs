//! What a link costs, in expected microseconds, without its noise.

use std::time::Duration;

use proto::Cost;

use crate::transport::Stats;

/// What is added for each packet in a hundred that is lost, in the same unit as the round trip:
/// a loss costs about one more of it, and more often than it is seen.
const LOSS_WEIGHT: u64 = 4;
/// Nothing is said of a change below this part of the cost that was published last…
const NOISE: u32 = 5;
/// …nor of one below this many microseconds: links within one rack are all alike.
const NOISE_MICROS: u32 = 500;
/// Packets that must be sent before loss is taken from them.
const ENOUGH: u64 = 50;

/// The cost of one link: what was published, and what is seen.
#[derive(Debug)]
pub(crate) struct Costing {
    published: Cost,
    last: Stats,
    /// Lost packets in a million, smoothed.
    loss: u64,
}

impl Costing {
    pub(crate) fn new(stats: Stats) -> Self {
        Self { published: cost(stats.rtt, 0), last: stats, loss: 0 }
    }

    pub(crate) fn published(&self) -> Cost {
        self.published
    }

    /// Lost packets in a million.
    pub(crate) fn loss(&self) -> u32 {
        u32::try_from(self.loss).unwrap_or(u32::MAX)
    }

    /// Takes what is seen now; gives the cost if it has changed by more than noise.
    pub(crate) fn see(&mut self, stats: Stats) -> Option<Cost> {
        let sent = stats.packets_out.saturating_sub(self.last.packets_out);
        if sent >= ENOUGH {
            let lost = stats.lost.saturating_sub(self.last.lost).min(sent);
            self.loss = (self.loss * 3 + lost * 1_000_000 / sent) / 4;
            self.last = stats;
        }
        let seen = cost(stats.rtt, self.loss);
        let (before, now) = (self.published.as_micros(), seen.as_micros());
        let noise = (before / NOISE).max(NOISE_MICROS);
        (before.abs_diff(now) > noise).then(|| {
            self.published = seen;
            seen
        })
    }
}

fn cost(rtt: Duration, loss: u64) -> Cost {
    let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
    let penalty = rtt.saturating_mul(loss).saturating_mul(LOSS_WEIGHT) / 1_000_000;
    Cost::of(Duration::from_micros(rtt.saturating_add(penalty)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rtt: u64, packets_out: u64, lost: u64) -> Stats {
        Stats { rtt: Duration::from_micros(rtt), packets_out, lost, ..Stats::default() }
    }

    #[test]
    fn noise_is_kept_to_oneself_and_a_real_change_is_told_once() {
        let mut costing = Costing::new(stats(20_000, 0, 0));
        assert_eq!(costing.see(stats(23_000, 10, 0)), None);
        assert_eq!(costing.see(stats(30_000, 20, 0)), Some(Cost::from_micros(30_000)));
        assert_eq!(costing.see(stats(30_500, 30, 0)), None);
    }

    #[test]
    fn loss_makes_a_path_dearer() {
        let mut costing = Costing::new(stats(20_000, 0, 0));
        let dearer = costing.see(stats(20_000, 1_000, 300)).expect("a quarter is no noise");
        assert!(dearer > Cost::from_micros(24_000));
    }
}
