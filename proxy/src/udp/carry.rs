//! Packets both ways between two ends, until nothing passes any more.

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::IDLE;
use super::ends::{Ends, Gone, Lost};

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing has passed for long.
    Idle,
    /// By the program, or the way to it.
    First,
    /// By the instance, or the way to it.
    Second(Gone),
}

/// What passes is counted in.
pub(crate) struct Counters<'a> {
    /// Bytes to the instance.
    pub(crate) up: &'a Counter,
    /// Bytes from it.
    pub(crate) down: &'a Counter,
    /// Packets that were dropped.
    pub(crate) lost: &'a Counter,
}

/// Carries packets between a program, or the node it is on, and an instance, or its node. `heard` is
/// told of each packet of the instance.
pub(crate) async fn carry(
    mut first: Ends,
    mut second: Ends,
    counters: Counters<'_>,
    mut heard: impl FnMut(),
) -> Ended {
    let Counters { up, down, lost } = counters;
    let count = |given: Result<(), Lost>| {
        if given.is_err() {
            lost.inc();
        }
    };
    let mut until = Instant::now() + IDLE;
    let ended = loop {
        tokio::select! {
            packet = first.turn() => match packet {
                Ok(Some(packet)) => {
                    up.inc_by(packet.len() as u64);
                    count(second.give(packet));
                }
                Ok(None) => continue,
                Err(_) => break Ended::First,
            },
            packet = second.turn() => match packet {
                Ok(Some(packet)) => {
                    down.inc_by(packet.len() as u64);
                    heard();
                    count(first.give(packet));
                }
                Ok(None) => continue,
                Err(gone) => break Ended::Second(gone),
            },
            () = tokio::time::sleep_until(until) => break Ended::Idle,
        }
        until = Instant::now() + IDLE;
    };
    let of_second = match ended {
        Ended::Second(gone) => Some(gone),
        Ended::Idle | Ended::First => None,
    };
    first.end(of_second);
    second.end(None);
    ended
}
