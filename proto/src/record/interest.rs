//! What the programs of a node want to hear of.
//!
//! One record holds many patterns: those whose hash ends in its key. So a node with a handful of
//! subscriptions writes a handful of small records, one with tens of thousands writes at most
//! [`BUCKETS`], and a subscription that comes or goes costs one record of what shares its bucket.
//!
//! ```text
//! key                bucket (1 byte), see [`bucket`]
//! fields (see wire)  1 an interest, again and again, ascending and each once:
//!                        1 namespace (none: the default one)   2 pattern   3 queue group
//!                        4 subscribers, rounded up to a power of two
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::name::MAX_NAME;
use crate::topic::{MAX_GROUP, MAX_TOPIC, QueueGroup, TopicPattern};
use crate::wire::{self, Fields};

/// Records of interest of one origin.
pub const BUCKETS: u8 = 64;
/// Interests of one record.
pub const MAX_INTERESTS: usize = 512;

/// One thing that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interest {
    /// The namespace; empty for the default one.
    pub namespace: Arc<str>,
    /// Which topics.
    pub pattern: TopicPattern,
    /// The queue group that shares them.
    pub group: Option<QueueGroup>,
}

/// The interests of one bucket, ascending, each with how many subscribers there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interests(pub Vec<(Interest, u32)>);

/// The bucket of a pattern: the first byte of BLAKE3 over namespace, NUL and text, modulo
/// [`BUCKETS`]. Part of the protocol only in that a node keeps to it itself.
#[must_use]
pub fn bucket(interest: &Interest) -> u8 {
    let mut hash = blake3::Hasher::new();
    hash.update(interest.namespace.as_bytes());
    hash.update(&[0]);
    hash.update(interest.pattern.bytes());
    hash.finalize().as_bytes()[0] % BUCKETS
}

/// As a record says it: not each subscriber that comes and goes is news to the network.
#[must_use]
pub fn rounded(count: u32) -> u32 {
    count.checked_next_power_of_two().unwrap_or(u32::MAX)
}

impl Interests {
    /// Bytes the interest takes in a record, at most.
    #[must_use]
    pub fn size_of(interest: &Interest) -> usize {
        let group = interest.group.as_ref().map_or(0, |group| group.bytes().len());
        32 + interest.namespace.len() + interest.pattern.bytes().len() + group
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        for (interest, count) in &self.0 {
            wire::put_message(&mut out, 1, |out| {
                wire::put_bytes(out, 1, interest.namespace.as_bytes());
                wire::put_bytes(out, 2, interest.pattern.bytes());
                if let Some(group) = &interest.group {
                    wire::put_bytes(out, 3, group.bytes());
                }
                wire::put_int(out, 4, u64::from(*count));
            });
        }
        out.freeze()
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut all: Vec<(Interest, u32)> = Vec::new();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            if tag != 1 {
                wire::unknown(tag)?;
                continue;
            }
            if all.len() == MAX_INTERESTS {
                return Err(DecodeError::TooLarge("interests"));
            }
            let one = interest(value.bytes("interest", crate::record::MAX_RECORD)?)?;
            if all.last().is_some_and(|(last, _)| *last >= one.0) {
                return Err(DecodeError::Invalid("order of interests"));
            }
            all.push(one);
        }
        Ok(Self(all))
    }
}

fn interest(message: Bytes) -> Result<(Interest, u32), DecodeError> {
    let (mut namespace, mut pattern, mut group, mut count) = (String::new(), None, None, 0);
    let mut fields = Fields::new(message);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => namespace = value.text("namespace", MAX_NAME)?,
            2 => {
                let text = value.bytes("pattern", MAX_TOPIC)?;
                let read = TopicPattern::new(text).map_err(|_| DecodeError::Invalid("pattern"))?;
                pattern = Some(read);
            }
            3 => {
                let text = value.bytes("queue group", MAX_GROUP)?;
                let read = QueueGroup::new(text);
                group = Some(read.map_err(|_| DecodeError::Invalid("queue group"))?);
            }
            4 => count = u32::try_from(value.int("subscribers")?).unwrap_or(u32::MAX),
            tag => wire::unknown(tag)?,
        }
    }
    let pattern = pattern.ok_or(DecodeError::Missing("pattern"))?;
    Ok((Interest { namespace: namespace.into(), pattern, group }, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interest(pattern: &str, group: Option<&str>) -> Interest {
        Interest {
            namespace: "".into(),
            pattern: TopicPattern::new(pattern.to_owned()).unwrap(),
            group: group.map(|name| QueueGroup::new(name.to_owned()).unwrap()),
        }
    }

    #[test]
    fn interests_come_back_as_they_were_and_in_one_order_only() {
        let all = [("a.*", None), ("a.*", Some("q")), ("b.>", None)];
        let all: Vec<_> = all.map(|(pattern, group)| (interest(pattern, group), 4)).into();
        let whole = Interests(all.clone());
        assert_eq!(Interests::decode(whole.encode()), Ok(whole));
        let turned = Interests(all.into_iter().rev().collect());
        let refused = Interests::decode(turned.encode());
        assert_eq!(refused, Err(DecodeError::Invalid("order of interests")));
    }

    #[test]
    fn a_thousand_subscribers_are_not_a_thousand_pieces_of_news() {
        let news: std::collections::BTreeSet<_> = (1..=1000).map(rounded).collect();
        assert_eq!(news.len(), 11);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(read) = Interests::decode(bytes.into()) {
                assert_eq!(Interests::decode(read.encode()), Ok(read));
            }
        }
    }
}
