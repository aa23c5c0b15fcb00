//! Topics of the network and subjects of NATS: one name for what both sides share, with what stands
//! before it on each; and the addresses of answers, which have names of their own on each side.

use std::collections::VecDeque;

use proto::topic::{Topic, TopicPattern};

use crate::config::bridge::Bridge;

/// Addresses of answers that are remembered, of each direction; the oldest gives way.
const MAX_REPLIES: usize = 16_384;

/// What stands before shared names.
#[derive(Clone, Debug)]
pub struct Names {
    nats: String,
    network: String,
}

impl Names {
    /// As configured.
    #[must_use]
    pub fn of(bridge: &Bridge) -> Self {
        let dotted = |prefix: &Option<String>| {
            prefix.as_ref().map_or_else(String::new, |prefix| format!("{prefix}."))
        };
        Self { nats: dotted(&bridge.prefix), network: dotted(&bridge.topic_prefix) }
    }

    /// The subject on NATS of a topic; `None` where it has none.
    #[must_use]
    pub fn subject(&self, topic: &Topic) -> Option<Topic> {
        moved(topic.as_str(), &self.network, &self.nats)
    }

    /// The topic of a subject.
    #[must_use]
    pub fn topic(&self, subject: &str) -> Option<Topic> {
        moved(subject, &self.nats, &self.network)
    }

    /// What to subscribe to on NATS; `None` where it would be too long.
    #[must_use]
    pub fn on_nats(&self, shared: &TopicPattern) -> Option<TopicPattern> {
        TopicPattern::new(format!("{}{shared}", self.nats)).ok()
    }

    /// What to subscribe to in the network.
    #[must_use]
    pub fn in_network(&self, shared: &TopicPattern) -> Option<TopicPattern> {
        TopicPattern::new(format!("{}{shared}", self.network)).ok()
    }
}

/// A name without one prefix and with another. What is left begins with neither `_` nor `$`: those
/// are answers and the affairs of one side, which a pattern `>` would take along.
fn moved(name: &str, from: &str, to: &str) -> Option<Topic> {
    let shared = name.strip_prefix(from)?;
    if shared.starts_with(['_', '$']) {
        return None;
    }
    Topic::new(format!("{to}{shared}")).ok()
}

/// Addresses that answers are waited for at on one side, each under a number on the other.
#[derive(Debug)]
pub struct Replies {
    inbox: String,
    first: u64,
    addresses: VecDeque<String>,
}

impl Replies {
    /// Below `inbox`, an address that nobody else has.
    #[must_use]
    pub fn below(inbox: &str) -> Self {
        Self { inbox: format!("{inbox}."), first: 0, addresses: VecDeque::new() }
    }

    /// What these addresses match.
    #[must_use]
    pub fn pattern(&self) -> Option<TopicPattern> {
        TopicPattern::new(format!("{}*", self.inbox)).ok()
    }

    /// Whether this is, or was, one of these addresses.
    #[must_use]
    pub fn is_below(&self, other: &str) -> bool {
        other.starts_with(&self.inbox)
    }

    /// The address on the other side for this one.
    pub fn put(&mut self, address: &str) -> String {
        let number = self.first + self.addresses.len() as u64;
        self.addresses.push_back(address.to_owned());
        if self.addresses.len() > MAX_REPLIES {
            self.addresses.pop_front();
            self.first += 1;
        }
        format!("{}{number}", self.inbox)
    }

    /// The address that was put in as `other`, while it is remembered.
    #[must_use]
    pub fn get(&self, other: &str) -> Option<&str> {
        let number: u64 = other.strip_prefix(&self.inbox)?.parse().ok()?;
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.addresses.get(at).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(nats: &str, network: &str) -> Names {
        Names { nats: nats.to_owned(), network: network.to_owned() }
    }

    fn topic(text: &str) -> Topic {
        Topic::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_name_is_there_and_back_the_same() {
        for (nats, network, there) in [
            ("", "", "orders.created"),
            ("acme.", "", "acme.orders.created"),
            ("acme.eu.", "from.", "acme.eu.orders.created"),
        ] {
            let names = names(nats, network);
            let here = topic(&format!("{network}orders.created"));
            let subject = names.subject(&here).unwrap();
            assert_eq!(subject.as_str(), there);
            assert_eq!(names.topic(there), Some(here));
            let shared = TopicPattern::new("orders.*").unwrap();
            assert!(names.on_nats(&shared).unwrap().matches(&subject));
        }
    }

    #[test]
    fn what_is_the_business_of_one_side_has_no_name_on_the_other() {
        let names = names("acme.", "");
        assert_eq!(names.topic("other.orders"), None, "not below the prefix");
        for private in ["_INBOX.a", "$SYS.b", "_bridge"] {
            assert_eq!(names.subject(&topic(private)), None);
            assert_eq!(names.topic(&format!("acme.{private}")), None);
        }
        let long = topic(&"x".repeat(510));
        assert_eq!(names.subject(&long), None, "too long with its prefix");
    }

    #[test]
    fn answers_find_their_way_and_the_oldest_is_forgotten() {
        let mut replies = Replies::below("_INBOX.b");
        let first = replies.put("_INBOX.asker.0");
        assert_eq!((first.as_str(), replies.get(&first)), ("_INBOX.b.0", Some("_INBOX.asker.0")));
        for number in 1..=MAX_REPLIES {
            replies.put(&format!("_INBOX.asker.{number}"));
        }
        assert_eq!(replies.get(&first), None);
        assert_eq!(replies.get("_INBOX.b.1"), Some("_INBOX.asker.1"));
        for none in ["_INBOX.b.99999", "_INBOX.b.x", "_INBOX.c.1", "_INBOX.b."] {
            assert_eq!(replies.get(none), None, "{none}");
        }
        assert_eq!(replies.addresses.len(), MAX_REPLIES);
    }
}
