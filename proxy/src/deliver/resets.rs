//! How many streams of one connection to an instance were reset lately. Pure: the time comes in with
//! each reset.
//!
//! Since "rapid reset" (CVE-2023-44487) HTTP/2 servers close a connection on which many streams are
//! reset, and every call on it is lost: Netty after 200 in 30 s, Node.js after 1000 and 33 a second
//! more, the `h2` crate after 20 that it has not yet taken up. Callers that give up together, as after
//! an outage, must not bring that about for others: a connection that had its share is not used for
//! new calls, and ends when those on it have.

use std::time::{Duration, Instant};

/// Resets within [`WINDOW`] after which a connection gets no new stream. With every stream that may
/// be on it then ([`super::http2::STREAMS`]) it stays well below 200.
const MOST: u32 = 64;
/// How long a reset counts, about.
const WINDOW: Duration = Duration::from_secs(30);

/// The resets of one connection.
#[derive(Debug, Default)]
pub(super) struct Resets {
    since: Option<Instant>,
    count: u32,
}

impl Resets {
    /// A stream was reset; true when that was one too many.
    pub(super) fn add(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            *self = Self { since: Some(now), count: 0 };
        }
        self.count += 1;
        self.count >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_too_much_and_a_trickle_is_not() {
        let (mut now, mut resets) = (Instant::now(), Resets::default());
        let passed = (0..200).take_while(|_| !resets.add(now)).count();
        assert_eq!(passed + 1, MOST as usize);
        let mut resets = Resets::default();
        for _ in 0..10_000 {
            now += Duration::from_millis(500);
            assert!(!resets.add(now));
        }
    }

    #[test]
    fn a_retired_connection_stays_below_what_servers_take() {
        assert!(MOST as usize + super::super::http2::STREAMS < 200);
    }
}
