//! How fast strangers may knock, by where they come from. Pure: the time comes in with each knock.
//!
//! A handshake costs a few hundred microseconds before anything is known of who asks for it. An
//! address that nobody has proven can be anybody's, so a flood of unproven knocks is asked to prove
//! its addresses (a Retry, RFC 9000 §8.1.2, which keeps no state), and only proven ones are refused:
//! nobody can use up what belongs to another's prefix.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use proto::Time;

use crate::bucket::{Bucket, Rate};

/// Handshakes with unproven addresses of one prefix; above it they prove them first. A node that
/// comes back makes a few; the extra round trip costs nobody more than that.
const UNPROVEN: Rate = Rate::new(16, 64);
/// Handshakes with proven addresses of one prefix; above it they are refused. The burst lets a site
/// of five hundred nodes behind one address come back at once, the rate is 5 % of a core.
const PROVEN: Rate = Rate::new(64, 512);
/// Prefixes remembered. When all of them are busy, those that are new share one more.
const MOST: usize = 4096;
/// How often a full table is looked through for prefixes that are quiet.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What to do with somebody who knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Let them prove their key.
    Admit,
    /// Let them prove their address first.
    Retry,
    /// Turn them away.
    Refuse,
}

/// The prefixes that knocked lately.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    known: HashMap<Prefix, Knocks, foldhash::fast::RandomState>,
    others: Knocks,
    /// When the table was last looked through, which takes long enough to be worth rationing.
    swept: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct Knocks {
    unproven: Bucket,
    proven: Bucket,
}

/// What belongs together: /24 of IPv4, /48 of IPv6, the smallest that is routed between networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Prefix {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Self::V6([a, b, c, d, e, f])
            }
        }
    }
}

impl Prefixes {
    /// Somebody knocks from `address`, proven or not.
    pub(crate) fn knock(&mut self, address: IpAddr, proven: bool, now: Time) -> Verdict {
        let knocks = self.knocks(address.into(), now);
        let (bucket, rate, otherwise) = if proven {
            (&mut knocks.proven, PROVEN, Verdict::Refuse)
        } else {
            (&mut knocks.unproven, UNPROVEN, Verdict::Retry)
        };
        if bucket.try_take(rate, now) { Verdict::Admit } else { otherwise }
    }

    fn knocks(&mut self, prefix: Prefix, now: Time) -> &mut Knocks {
        if self.known.len() >= MOST && !self.known.contains_key(&prefix) {
            if now.since(self.swept) >= SWEEP_EVERY {
                let busy =
                    |knocks: &Knocks| !knocks.unproven.is_full(now) || !knocks.proven.is_full(now);
                self.known.retain(|_, knocks| busy(knocks));
                self.swept = now;
            }
            if self.known.len() >= MOST {
                return &mut self.others;
            }
        }
        self.known.entry(prefix).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn admitted(prefixes: &mut Prefixes, address: &str, proven: bool, now: Time) -> usize {
        let address = address.parse().unwrap();
        (0..2_000).filter(|_| prefixes.knock(address, proven, now) == Verdict::Admit).count()
    }

    #[test]
    fn a_prefix_has_a_burst_and_a_rate_and_others_have_theirs() {
        let mut prefixes = Prefixes::default();
        assert_eq!(admitted(&mut prefixes, "192.0.2.1", true, at(0)), 512);
        assert_eq!(admitted(&mut prefixes, "192.0.2.200", true, at(0)), 0, "the same /24");
        assert_eq!(admitted(&mut prefixes, "::ffff:192.0.2.9", true, at(0)), 0, "and the same");
        assert_eq!(admitted(&mut prefixes, "192.0.3.1", true, at(0)), 512);
        assert_eq!(admitted(&mut prefixes, "2001:db8:1::1", true, at(0)), 512);
        assert_eq!(admitted(&mut prefixes, "2001:db8:1:ffff::1", true, at(0)), 0, "one /48");
        assert_eq!(admitted(&mut prefixes, "2001:db8:2::1", true, at(0)), 512);
        assert_eq!(admitted(&mut prefixes, "192.0.2.1", true, at(1)), 64);
    }

    #[test]
    fn unproven_knocks_are_asked_for_proof_and_use_up_nothing_of_the_proven() {
        let mut prefixes = Prefixes::default();
        assert_eq!(admitted(&mut prefixes, "192.0.2.1", false, at(0)), 64);
        let forged = "192.0.2.1".parse().unwrap();
        assert_eq!(prefixes.knock(forged, false, at(0)), Verdict::Retry);
        assert_eq!(admitted(&mut prefixes, "192.0.2.1", true, at(0)), 512);
        assert_eq!(prefixes.knock(forged, true, at(0)), Verdict::Refuse);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_is_quiet() {
        let mut prefixes = Prefixes::default();
        let address = |n: u32| IpAddr::from((n << 8).to_be_bytes());
        for n in 0..20_000 {
            let _ = prefixes.knock(address(n), true, at(0));
        }
        assert_eq!(prefixes.known.len(), MOST);
        // Newcomers share what is left of one prefix; those known keep theirs.
        assert_eq!(prefixes.knock(address(30_000), true, at(0)), Verdict::Refuse);
        assert_eq!(prefixes.knock(address(1), true, at(0)), Verdict::Admit);
        assert_eq!(prefixes.knock(address(30_000), true, at(10)), Verdict::Admit);
        assert!(prefixes.known.len() < 10);
    }
}
