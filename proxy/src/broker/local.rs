//! The subscriptions of programs on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::publish::{Delivery, Message};
use proto::record::{Interest, Interests};
use proto::topic::{QueueGroup, TopicPattern};
use router::topics::Table;

use super::{Broker, Mailbox, is_for};

/// Subscriptions of all programs of a node. Above it new ones are refused.
const MAX_SUBSCRIPTIONS: usize = 131_072;
/// Different interests among them: each is told to every node. Above it new ones are refused.
pub(crate) const MAX_INTERESTS: u32 = 16_384;
/// Bytes of them, as records hold them: half of what all buckets hold, for they fill unevenly.
const MAX_BYTES: usize = 64 * 30 * 1024;

/// As many subscriptions as a node may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node has as many subscriptions as it may")]
pub struct TooMany;

/// One subscription; it ends when this is dropped.
pub struct Subscription {
    broker: Broker,
    interest: Interest,
    number: u64,
}

impl Broker {
    /// Has messages of the interest put into `mailbox`, under this tag.
    ///
    /// # Errors
    /// [`TooMany`] where a node's bounds are reached.
    pub fn subscribe(
        &self,
        mailbox: &Mailbox,
        tag: u64,
        interest: Interest,
    ) -> Result<Subscription, TooMany> {
        let number = self.0.local.lock().add(mailbox, tag, &interest)?;
        self.0.changed.notify_one();
        Ok(Subscription { broker: self.clone(), interest, number })
    }
}

impl Subscription {
    /// Which topics it is for.
    #[must_use]
    pub fn pattern(&self) -> &TopicPattern {
        &self.interest.pattern
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.0.local.lock().remove(self.number, &self.interest);
        self.broker.0.changed.notify_one();
    }
}

#[derive(Clone)]
struct Subscriber {
    number: u64,
    mailbox: Mailbox,
    tag: u64,
    group: Option<QueueGroup>,
}

/// All of them, by pattern.
#[derive(Default)]
pub(super) struct Local {
    table: Table<Vec<Subscriber>>,
    counts: BTreeMap<Interest, u32>,
    bytes: usize,
    /// Interests whose counts have changed since they were told.
    changed: BTreeSet<Interest>,
    numbered: u64,
    subscriptions: usize,
    /// For the turns of queue groups.
    turn: usize,
}

impl Local {
    fn add(&mut self, mailbox: &Mailbox, tag: u64, interest: &Interest) -> Result<u64, TooMany> {
        let size = Interests::size_of(interest);
        let new = !self.counts.contains_key(interest);
        let full =
            new && (self.counts.len() >= MAX_INTERESTS as usize || self.bytes + size > MAX_BYTES);
        if full || self.subscriptions >= MAX_SUBSCRIPTIONS {
            return Err(TooMany);
        }
        self.numbered += 1;
        let (number, group) = (self.numbered, interest.group.clone());
        let subscriber = Subscriber { number, mailbox: mailbox.clone(), tag, group };
        let added = self.table.update(&interest.namespace, &interest.pattern, |all| {
            all.push(subscriber);
            true
        });
        if !added {
            return Err(TooMany);
        }
        self.subscriptions += 1;
        self.bytes += if new { size } else { 0 };
        *self.counts.entry(interest.clone()).or_default() += 1;
        self.changed.insert(interest.clone());
        Ok(number)
    }

    fn remove(&mut self, number: u64, interest: &Interest) {
        self.table.update(&interest.namespace, &interest.pattern, |all| {
            all.retain(|one| one.number != number);
            !all.is_empty()
        });
        self.subscriptions -= 1;
        if let Some(count) = self.counts.get_mut(interest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(interest);
                self.bytes -= Interests::size_of(interest);
            }
        }
        self.changed.insert(interest.clone());
    }

    pub(super) fn take_changes(&mut self) -> Vec<(Interest, u32)> {
        let changed = std::mem::take(&mut self.changed);
        let count = |interest: &Interest| self.counts.get(interest).copied().unwrap_or(0);
        changed.into_iter().map(|interest| (interest.clone(), count(&interest))).collect()
    }

    /// Whose mailboxes a message belongs in, and the groups that got it: of each group one member,
    /// in turn. `to` limits it to what another node has decided.
    pub(super) fn wanted(
        &mut self,
        message: &Message,
        to: Option<&Delivery>,
        except: Option<&Mailbox>,
    ) -> (Vec<(Mailbox, u64)>, Vec<QueueGroup>) {
        let mut here = Vec::new();
        let mut groups: BTreeMap<&QueueGroup, Vec<&Subscriber>> = BTreeMap::new();
        self.table.matches(&message.namespace, &message.topic, |all| {
            for one in all {
                let excepted = except.is_some_and(|except| except.is(&one.mailbox));
                if excepted || to.is_some_and(|to| !is_for(to, one.group.as_ref())) {
                    continue;
                }
                match &one.group {
                    None => here.push((one.mailbox.clone(), one.tag)),
                    Some(group) => groups.entry(group).or_default().push(one),
                }
            }
        });
        if !groups.is_empty() {
            self.turn = self.turn.wrapping_add(1);
        }
        let mut served = Vec::with_capacity(groups.len());
        for (group, members) in groups {
            let one = members[self.turn % members.len()];
            here.push((one.mailbox.clone(), one.tag));
            served.push(group.clone());
        }
        (here, served)
    }
}

/// An interest of the default namespace in topics that match `pattern`.
#[must_use]
pub(crate) fn interest(pattern: TopicPattern, group: Option<QueueGroup>) -> Interest {
    Interest { namespace: Arc::from(""), pattern, group }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::Topic;
    use proto::publish::Headers;

    use super::*;
    use crate::broker::Overflow;

    fn message(topic: &str) -> Message {
        Message {
            namespace: "".into(),
            topic: Topic::new(topic.to_owned()).unwrap(),
            reply: None,
            headers: Headers::default(),
            payload: Bytes::new(),
        }
    }

    fn asks(pattern: &str, group: Option<&str>) -> Interest {
        let group = group.map(|name| QueueGroup::new(name.to_owned()).unwrap());
        interest(TopicPattern::new(pattern.to_owned()).unwrap(), group)
    }

    #[test]
    fn each_plain_subscriber_gets_it_and_one_of_each_group_in_turn() {
        let (mut local, mailbox) = (Local::default(), Mailbox::new(Overflow::DropOldest));
        for (tag, pattern, group) in
            [(1, "a.*", None), (2, "a.b", Some("q")), (3, "a.>", Some("q")), (4, "b", None)]
        {
            local.add(&mailbox, tag, &asks(pattern, group)).unwrap();
        }
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let (here, groups) = local.wanted(&message("a.b"), None, None);
            assert_eq!((here.len(), here[0].1, groups.len()), (2, 1, 1));
            seen.insert(here[1].1);
        }
        assert_eq!(seen, BTreeSet::from([2, 3]));
        let nobody = Delivery::default();
        assert!(local.wanted(&message("a.b"), Some(&nobody), None).0.is_empty());
        assert!(local.wanted(&message("a.b"), None, Some(&mailbox)).0.is_empty());
    }

    #[test]
    fn what_comes_and_goes_between_two_tellings_is_told_once() {
        let (mut local, mailbox) = (Local::default(), Mailbox::new(Overflow::DropOldest));
        let numbers: Vec<u64> =
            (0..3).map(|tag| local.add(&mailbox, tag, &asks("a", None)).unwrap()).collect();
        assert_eq!(local.take_changes(), [(asks("a", None), 3)]);
        for number in numbers {
            local.remove(number, &asks("a", None));
        }
        assert_eq!(local.take_changes(), [(asks("a", None), 0)]);
        assert!(local.take_changes().is_empty() && local.bytes == 0);
    }

    #[test]
    fn a_node_has_so_many_interests_and_more_subscriptions() {
        let (mut local, mailbox) = (Local::default(), Mailbox::new(Overflow::DropOldest));
        for n in 0..MAX_INTERESTS {
            local.add(&mailbox, 0, &asks(&format!("a.{n}"), None)).unwrap();
        }
        assert_eq!(local.add(&mailbox, 0, &asks("b", None)), Err(TooMany));
        local.add(&mailbox, 0, &asks("a.1", None)).unwrap();
    }
}
