//! Tells the router what programs here want to hear of: the first change at once, and the more
//! changes come the more of them at a time. Each telling is records that go to every node.

use std::time::{Duration, Instant};

use proxy::Broker;
use router::Request;

use crate::drive::Asks;

/// The wait between two tellings: at first, doubled with each, and at most.
const HOLD: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// After this long without a change the wait begins anew.
const CALM: Duration = Duration::from_secs(1);

/// Tells until the router has left.
pub async fn tell(broker: Broker, asks: Asks) {
    let mut hold = HOLD.0;
    let mut told = Instant::now();
    loop {
        let changes = broker.changes().await;
        hold = if told.elapsed() > CALM { HOLD.0 } else { (hold * 2).min(HOLD.1) };
        match asks.request(Request::Interest(changes)).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::warn!(%refusal, "not all interest in topics is told"),
            Err(_leaving) => return,
        }
        told = Instant::now();
        tokio::time::sleep(hold).await;
    }
}
