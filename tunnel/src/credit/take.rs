//! The two ends of one stream: who reads it grants, who writes it keeps to what was granted.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::credit::INITIAL;
use tokio::time::Instant;

use super::{Allowance, Credits, LARGEST};

/// A sender is listed once it has sent this much: well before the first grant can come, which is
/// when the reader has read half of [`INITIAL`].
const LISTED: u64 = INITIAL / 4;
/// A window whose half takes longer to be read than this many round trips, and this long, is larger
/// than the reader needs.
const SLOW: u32 = 8;
const SLOW_AT_LEAST: Duration = Duration::from_millis(100);

/// The reading end.
#[derive(Debug)]
pub(crate) struct Inbound {
    read: u64,
    granted: u64,
    window: u64,
    since: Option<Instant>,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { read: 0, granted: INITIAL, window: INITIAL, since: None }
    }
}

impl Inbound {
    /// Takes note that `bytes` were read. Gives the total to grant, when it is time to grant more.
    pub(crate) fn read(
        &mut self,
        bytes: usize,
        credits: &Credits,
        rtt: impl FnOnce() -> Duration,
    ) -> Option<u64> {
        self.read += bytes as u64;
        if self.granted - self.read.min(self.granted) > self.window / 2 {
            return None;
        }
        let now = Instant::now();
        // The first half of the first window says nothing: the stream has only begun.
        if let Some(since) = self.since.replace(now) {
            self.resize(now - since, rtt(), credits);
        }
        let granted = self.granted.max(self.read + self.window);
        (granted > self.granted).then(|| {
            self.granted = granted;
            granted
        })
    }

    /// Half a window was read within `took`.
    fn resize(&mut self, took: Duration, rtt: Duration, credits: &Credits) {
        if took < 2 * rtt {
            // The sender had to wait for the grant, or soon would.
            let more = self.window.min(LARGEST - self.window);
            if more > 0 && credits.borrow(more) {
                self.window += more;
            }
        } else if took > SLOW_AT_LEAST && took > rtt * SLOW && self.window > INITIAL {
            let less = (self.window / 2).min(self.window - INITIAL);
            self.window -= less;
            credits.give_back(less);
        }
    }

    /// The stream is over.
    pub(crate) fn end(&mut self, stream: u64, credits: &Credits) {
        if self.since.is_some() {
            credits.grants.lock().remove(&stream);
        }
        credits.give_back(self.window - INITIAL);
        self.window = INITIAL;
    }
}

/// The writing end.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    sent: u64,
    listed: Option<Arc<Allowance>>,
}

impl Outbound {
    /// Bytes that may be sent now, of the `wanted` ones.
    pub(crate) fn room(&mut self, wanted: usize, stream: u64, credits: &Credits) -> usize {
        if self.sent + wanted as u64 <= LISTED {
            return wanted;
        }
        let listed = self.listed.get_or_insert_with(|| credits.register(stream));
        let room = listed.total().saturating_sub(self.sent);
        wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Ready when more may be sent. Only after [`Outbound::room`] had none.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(listed) = &self.listed else { return Poll::Ready(()) };
        listed.waiting.register(cx.waker());
        // Looked at after registering: a grant between is not missed.
        if listed.total() > self.sent { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes note that `bytes` were sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// The stream is over.
    pub(crate) fn end(&mut self, stream: u64, credits: &Credits) {
        if self.listed.take().is_some() {
            credits.senders.lock().remove(&stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credit::SPARE;

    const RTT: Duration = Duration::from_millis(10);

    /// Reads `bytes` in pieces, each after `pause`; gives what was granted last.
    async fn read(inbound: &mut Inbound, credits: &Credits, bytes: u64, pause: Duration) -> u64 {
        let piece = 16 << 10;
        let mut granted = 0;
        for _ in 0..bytes / piece {
            tokio::time::advance(pause).await;
            granted = inbound.read(piece as usize, credits, || RTT).unwrap_or(granted);
        }
        granted
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_of_a_quick_reader_grows_to_the_largest_and_is_given_back() {
        let (credits, mut inbound) = (Credits::default(), Inbound::default());
        let granted = read(&mut inbound, &credits, 32 << 20, Duration::ZERO).await;
        assert_eq!(inbound.window, LARGEST);
        assert!(granted > 32 << 20 && granted <= (32 << 20) + LARGEST);
        inbound.end(4, &credits);
        assert_eq!(credits.spare.load(std::sync::atomic::Ordering::Relaxed), SPARE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_of_a_reader_that_became_slow_shrinks_to_what_it_began_with() {
        let (credits, mut inbound) = (Credits::default(), Inbound::default());
        read(&mut inbound, &credits, 32 << 20, Duration::ZERO).await;
        read(&mut inbound, &credits, 32 << 20, Duration::from_millis(50)).await;
        assert_eq!(inbound.window, INITIAL);
    }

    #[tokio::test(start_paused = true)]
    async fn windows_grow_no_further_than_the_link_can_spare() {
        let credits = Credits::default();
        let mut streams: Vec<_> = (0..100).map(|_| Inbound::default()).collect();
        for inbound in &mut streams {
            read(inbound, &credits, 32 << 20, Duration::ZERO).await;
        }
        let beyond: u64 = streams.iter().map(|inbound| inbound.window - INITIAL).sum();
        assert!(beyond <= SPARE, "{beyond}");
        // The last one still works, with what every stream has.
        let last = streams.last_mut().unwrap();
        assert_eq!(last.granted, last.read + INITIAL);
    }

    #[test]
    fn a_sender_goes_as_far_as_it_was_granted_and_is_woken_by_more() {
        let (credits, mut outbound) = (Credits::default(), Outbound::default());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let all = INITIAL as usize;
        assert_eq!(outbound.room(2 * all, 4, &credits), all);
        outbound.sent(all);
        assert_eq!(outbound.room(1, 4, &credits), 0);
        assert!(outbound.poll_room(&mut cx).is_pending());
        credits.senders.lock()[&4].raise(INITIAL + 10);
        assert!(outbound.poll_room(&mut cx).is_ready());
        assert_eq!(outbound.room(100, 4, &credits), 10);
        // A lower total than before takes nothing back.
        credits.senders.lock()[&4].raise(1);
        assert_eq!(outbound.room(100, 4, &credits), 10);
        outbound.end(4, &credits);
        assert!(credits.senders.lock().is_empty());
    }

    #[test]
    fn a_short_stream_is_never_listed() {
        let (credits, mut outbound) = (Credits::default(), Outbound::default());
        for _ in 0..16 {
            assert_eq!(outbound.room(1024, 4, &credits), 1024);
            outbound.sent(1024);
        }
        assert!(credits.senders.lock().is_empty());
    }
}
