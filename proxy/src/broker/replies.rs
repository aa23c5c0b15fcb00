//! Where answers go before the interest in them is known.
//!
//! A program that asks subscribes to an address of its own and publishes at once; the question may
//! come to a node before the record of that interest does. So whoever takes a question remembers
//! where it came from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::{NodeId, Topic};
use tokio::time::Instant;

/// Addresses that are remembered; the oldest gives way.
const MAX_REPLIES: usize = 16_384;
/// For how long: by then the record has come.
const KEPT: Duration = Duration::from_secs(10);

/// An address and its namespace.
type Address = (Arc<str>, Topic);

/// The addresses of answers, and the nodes they were named by.
#[derive(Debug, Default)]
pub(super) struct Replies {
    origins: HashMap<Address, (NodeId, Instant), foldhash::fast::RandomState>,
    order: VecDeque<Address>,
}

impl Replies {
    pub(super) fn remember(&mut self, namespace: &Arc<str>, reply: &Topic, origin: NodeId) {
        let address = (Arc::clone(namespace), reply.clone());
        if self.origins.insert(address.clone(), (origin, Instant::now())).is_none() {
            self.order.push_back(address);
        }
        if self.order.len() > MAX_REPLIES
            && let Some(oldest) = self.order.pop_front()
        {
            self.origins.remove(&oldest);
        }
    }

    /// It is known otherwise who waits there.
    pub(super) fn forget(&mut self, namespace: &Arc<str>, topic: &Topic) {
        // Its place in the order is passed over when it is the oldest.
        self.origins.remove(&(Arc::clone(namespace), topic.clone()));
    }

    /// The node where somebody waits for messages of `topic`.
    pub(super) fn origin(&self, namespace: &Arc<str>, topic: &Topic) -> Option<NodeId> {
        if self.origins.is_empty() {
            return None;
        }
        let (origin, since) = self.origins.get(&(Arc::clone(namespace), topic.clone()))?;
        (since.elapsed() < KEPT).then_some(*origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_is_remembered_for_a_while_and_the_oldest_gives_way() {
        let (mut replies, default) = (Replies::default(), Arc::from(""));
        let topic = |n: usize| Topic::new(format!("_INBOX.{n}")).unwrap();
        let node = NodeId::from_bytes([1; 32]);
        for n in 0..=MAX_REPLIES {
            replies.remember(&default, &topic(n), node);
        }
        assert_eq!(replies.origin(&default, &topic(0)), None);
        assert_eq!(replies.origin(&default, &topic(1)), Some(node));
        replies.forget(&default, &topic(2));
        assert_eq!(replies.origin(&default, &topic(2)), None);
        tokio::time::advance(KEPT).await;
        assert_eq!(replies.origin(&default, &topic(1)), None);
    }
}
