//! The queue of one subscriber: bounded, with a policy for when it is full.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::publish::Message;
use tokio::sync::Notify;

/// Messages in one queue.
const MAX_ITEMS: usize = 10_000;
/// Bytes in one queue, as [`Message::weight`] counts them. A queue that is empty takes any message.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What gives way when a subscriber's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// What waits longest: for who wants to know how things are now.
    DropOldest,
    /// What has come: for who wants all up to a moment.
    DropNewest,
    /// The publisher on the same node waits this long, then it is dropped; the next ones then do
    /// not wait until there has been room again, so a reader that stopped costs this once.
    Block(Duration),
    /// The subscriber: it is told that it was too slow.
    Disconnect,
}

/// A message for one subscription of a mailbox.
#[derive(Clone, Debug)]
pub struct Item {
    /// Which subscription, as it was named when it was made.
    pub tag: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// The queue of one subscriber, which may have many subscriptions. Cheap to clone: a handle.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Overflow,
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
    /// A publisher has waited in vain since there was room last.
    stalled: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
}

/// The subscriber was too slow, or its subscriptions have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscriber was too slow")]
pub struct Closed;

impl Mailbox {
    /// An empty queue.
    #[must_use]
    pub fn new(policy: Overflow) -> Self {
        Self(Arc::new(Inner {
            policy,
            state: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            stalled: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether what is dropped is what waited, and never what has come.
    pub(super) fn drops_oldest(&self) -> bool {
        self.0.policy == Overflow::DropOldest
    }

    /// How many messages were dropped since it was made.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// How many messages wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.state.lock().items.len()
    }

    /// Takes nothing more; who waits for messages is told.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.filled.notify_one();
        self.0.emptied.notify_waiters();
    }

    /// Puts a message in, waiting at most `patience` where the policy is to wait. Gives how many
    /// messages were dropped for it, itself included.
    pub(super) async fn put(&self, item: Item, patience: Duration) -> usize {
        let Err(item) = self.try_put(item) else { return 0 };
        let dropped = match self.0.policy {
            Overflow::DropNewest => 1,
            Overflow::DropOldest => self.put_over(item),
            Overflow::Disconnect => {
                self.close();
                1
            }
            Overflow::Block(wait) => {
                let wait = wait.min(patience);
                usize::from(!self.put_waiting(item, wait).await)
            }
        };
        self.0.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        dropped
    }

    fn try_put(&self, item: Item) -> Result<(), Item> {
        let mut state = self.0.state.lock();
        if state.closed {
            return Ok(());
        }
        let weight = item.message.weight();
        let full = state.items.len() >= MAX_ITEMS || state.bytes + weight > MAX_BYTES;
        if full && !state.items.is_empty() {
            return Err(item);
        }
        state.bytes += weight;
        state.items.push_back(item);
        drop(state);
        self.0.filled.notify_one();
        Ok(())
    }

    fn put_over(&self, mut item: Item) -> usize {
        let mut dropped = 0;
        while let Err(back) = self.try_put(item) {
            item = back;
            let mut state = self.0.state.lock();
            if let Some(oldest) = state.items.pop_front() {
                state.bytes -= oldest.message.weight();
                dropped += 1;
            }
        }
        dropped
    }

    async fn put_waiting(&self, mut item: Item, wait: Duration) -> bool {
        if self.0.stalled.load(Ordering::Relaxed) {
            return false;
        }
        let until = tokio::time::Instant::now() + wait;
        loop {
            let emptied = self.0.emptied.notified();
            match self.try_put(item) {
                Ok(()) => return true,
                Err(back) => item = back,
            }
            if tokio::time::timeout_at(until, emptied).await.is_err() {
                self.0.stalled.store(true, Ordering::Relaxed);
                return false;
            }
        }
    }

    /// Takes all that waits now, which may be nothing.
    #[must_use]
    pub fn take_waiting(&self) -> Vec<Item> {
        let items = self.0.state.lock().take(usize::MAX);
        if !items.is_empty() {
            self.has_room();
        }
        items
    }

    fn has_room(&self) {
        self.0.stalled.store(false, Ordering::Relaxed);
        self.0.emptied.notify_waiters();
    }

    /// Takes what waits, at least one message and at most `most`. Safe to cancel.
    ///
    /// # Errors
    /// [`Closed`] once it is closed, what waited before included.
    pub async fn take(&self, most: usize) -> Result<Vec<Item>, Closed> {
        loop {
            let filled = self.0.filled.notified();
            {
                let mut state = self.0.state.lock();
                if state.closed {
                    return Err(Closed);
                }
                if !state.items.is_empty() {
                    let items = state.take(most);
                    drop(state);
                    self.has_room();
                    return Ok(items);
                }
            }
            filled.await;
        }
    }
}

impl State {
    fn take(&mut self, most: usize) -> Vec<Item> {
        let count = most.min(self.items.len());
        let items: Vec<Item> = self.items.drain(..count).collect();
        self.bytes -= items.iter().map(|item| item.message.weight()).sum::<usize>();
        items
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::Topic;
    use proto::publish::Headers;

    use super::*;

    fn item(tag: u64, bytes: usize) -> Item {
        let message = Message {
            namespace: "".into(),
            topic: Topic::new("a").unwrap(),
            reply: None,
            headers: Headers::default(),
            payload: Bytes::from(vec![0; bytes]),
        };
        Item { tag, message: Arc::new(message) }
    }

    async fn fill(mailbox: &Mailbox) -> usize {
        let mut dropped = 0;
        for tag in 0..=MAX_ITEMS as u64 {
            dropped += mailbox.put(item(tag, 1), Duration::MAX).await;
        }
        dropped
    }

    #[tokio::test]
    async fn the_oldest_or_the_newest_gives_way_and_is_counted() {
        for (policy, first) in [(Overflow::DropOldest, 1), (Overflow::DropNewest, 0)] {
            let mailbox = Mailbox::new(policy);
            assert_eq!((fill(&mailbox).await, mailbox.dropped()), (1, 1));
            let taken = mailbox.take(usize::MAX).await.unwrap();
            assert_eq!((taken.len(), taken[0].tag), (MAX_ITEMS, first));
        }
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told() {
        let mailbox = Mailbox::new(Overflow::Disconnect);
        assert_eq!(fill(&mailbox).await, 1);
        assert_eq!(mailbox.take(1).await.unwrap_err(), Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_waits_once_for_a_reader_that_has_stopped() {
        let mailbox = Mailbox::new(Overflow::Block(Duration::from_secs(1)));
        let began = tokio::time::Instant::now();
        assert_eq!(fill(&mailbox).await, 1);
        assert_eq!(mailbox.put(item(0, 1), Duration::MAX).await, 1);
        assert_eq!(began.elapsed().as_secs(), 1);
        mailbox.take(1).await.unwrap();
        assert_eq!(mailbox.put(item(0, 1), Duration::MAX).await, 0, "there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_goes_on_when_the_reader_does() {
        let mailbox = Mailbox::new(Overflow::Block(Duration::from_secs(1)));
        for tag in 0..MAX_ITEMS as u64 {
            assert_eq!(mailbox.put(item(tag, 1), Duration::MAX).await, 0);
        }
        let (put, taken) = tokio::join!(mailbox.put(item(9, 1), Duration::MAX), mailbox.take(5));
        assert_eq!((put, taken.unwrap().len()), (0, 5));
    }

    #[tokio::test]
    async fn a_queue_that_is_empty_takes_any_message() {
        let mailbox = Mailbox::new(Overflow::DropNewest);
        assert_eq!(mailbox.put(item(0, MAX_BYTES + 1), Duration::MAX).await, 0);
        assert_eq!(mailbox.put(item(1, 1), Duration::MAX).await, 1);
    }
}
