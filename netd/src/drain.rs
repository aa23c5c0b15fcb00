//! Leaving: withdraw, refuse new work, finish what is open within the grace period, close.

use std::sync::Arc;
use std::time::Duration;

use proxy::Drain;
use router::Request;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Problem;
use crate::node::{Node, Phase};
use crate::output::{Output, banner, text};

/// How long telling the neighbours may take: they are told at once, or the link is broken.
const WITHDRAW: Duration = Duration::from_secs(2);
/// How long closing the links may take.
const CLOSE: Duration = Duration::from_secs(1);
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// The signals that end a node.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on SIGTERM and SIGINT are ours to answer.
    ///
    /// # Errors
    /// M6002 when the system refuses.
    pub fn listen() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind).map_err(|error| Problem::machine("signals cannot be listened to", &error))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) {
        // Both arms are safe to cancel: a signal not taken stays.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Leaves the network: by when this returns, calls have ended or been cut off and links are closed.
/// A second signal stops now.
pub async fn leave(
    node: &Arc<Node>,
    signals: &mut Signals,
    listeners: &CancellationToken,
    output: Output,
) {
    node.phase.send_replace(Phase::Draining);
    tracing::info!(calls = node.proxy.in_flight(), "draining");
    let withdraw = tokio::time::timeout(WITHDRAW, node.asks.request(Request::Leave));
    // The answer comes when neighbours have been told; where it does not, they will find out.
    let _ = withdraw.await;
    let drain = node.proxy.drain();
    let deadline = Instant::now() + node.grace;
    tokio::select! {
        () = finish(&drain, deadline, output) => {}
        () = signals.next() => output.say("stopping now"),
    }
    listeners.cancel();
    let cut = drain.in_flight();
    if cut > 0 {
        output.say(&format!("{} cut off", text::count(u64::from(cut), "call")));
        tracing::warn!(calls = cut, "calls were cut off at the end of the grace period");
    }
    let _ = tokio::time::timeout(CLOSE, node.tunnel.close(Duration::ZERO)).await;
}

/// Waits until no call is open, or for the deadline; says how many are left once a second.
async fn finish(drain: &Drain, deadline: Instant, output: Output) {
    let mut progress = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            () = drain.idle() => return,
            () = tokio::time::sleep_until(deadline) => return,
            _ = progress.tick() => {
                let left = deadline.saturating_duration_since(Instant::now());
                let calls = drain.in_flight();
                if calls > 0 {
                    output.say(&banner::draining(u64::from(calls), left));
                }
            }
        }
    }
}
