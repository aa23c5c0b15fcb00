//! Keys as go-micro writes them, and ranges of keys as etcd asks for them.

use std::ops::Bound;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Under which everything lies.
pub(super) const PREFIX: &[u8] = b"/micro/registry/";

/// The key of an instance: `/micro/registry/SERVICE/ID`.
pub(super) fn key(service: &str, id: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(PREFIX.len() + service.len() + id.len() + 1);
    key.put_slice(PREFIX);
    put_part(&mut key, service);
    key.put_u8(b'/');
    put_part(&mut key, id);
    key.freeze()
}

/// The keys of all instances of a service.
pub(super) fn of_service(service: &str) -> Span {
    let mut from = BytesMut::from(PREFIX);
    put_part(&mut from, service);
    let mut to = from.clone();
    from.put_u8(b'/');
    to.put_u8(b'/' + 1);
    Span::Between(from.freeze(), to.freeze())
}

/// The service and the id that a key names, as they are written in it; `None` for another key.
pub(super) fn parts(key: &[u8]) -> Option<(&str, &str)> {
    let rest = std::str::from_utf8(key.strip_prefix(PREFIX)?).ok()?;
    let (service, id) = rest.split_once('/')?;
    (!service.is_empty() && !id.is_empty() && !id.contains('/')).then_some((service, id))
}

/// Whether a key names this service and id.
pub(super) fn names(parts: (&str, &str), service: &str, id: &str) -> bool {
    let same = |part: &str, name: &str| part.bytes().eq(name.bytes().map(written));
    same(parts.0, service) && same(parts.1, id)
}

fn put_part(key: &mut BytesMut, text: &str) {
    key.extend(text.bytes().map(written));
}

/// go-micro writes a slash within a name as a dash.
fn written(byte: u8) -> u8 {
    if byte == b'/' { b'-' } else { byte }
}

/// Where a lookup begins and where it ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Which keys a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// One key.
    One(Bytes),
    /// This key and all above it.
    From(Bytes),
    /// The first and all above it that are below the second; none, if that is not above the first.
    Between(Bytes, Bytes),
}

impl Span {
    /// As etcd reads `key` and `range_end`: no end is one key, an end of one zero byte is no bound.
    pub(super) fn of(key: Bytes, end: Bytes) -> Self {
        match &end[..] {
            [] => Self::One(key),
            [0] => Self::From(key),
            _ => Self::Between(key, end),
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => *one == *key,
            Self::From(from) => key >= from,
            Self::Between(from, to) => key >= from && key < to,
        }
    }

    /// Bounds to look keys up with; `None` where nothing can be between them.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(one) => Some((Bound::Included(one), Bound::Included(one))),
            Self::From(from) => Some((Bound::Included(from), Bound::Unbounded)),
            Self::Between(from, to) if from < to => {
                Some((Bound::Included(from), Bound::Excluded(to)))
            }
            Self::Between(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_a_service_and_an_id() {
        assert_eq!(key("go.micro.srv.a", "a/1"), "/micro/registry/go.micro.srv.a/a-1");
        assert_eq!(parts(b"/micro/registry/a/b"), Some(("a", "b")));
        assert!(names(("a", "b-1"), "a", "b/1") && !names(("a", "b"), "a", "c"));
        for other in ["/micro/registry/", "/micro/registry/a", "/micro/registry/a/", "/a/b", ""] {
            assert_eq!(parts(other.as_bytes()), None, "{other}");
        }
        for other in ["/micro/registry//a", "/micro/registry/a/b/c"] {
            assert_eq!(parts(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        /// Looking keys up and asking each of them is the same, however absurd the range.
        #[test]
        fn bounds_hold_what_is_contained(
            keys in proptest::collection::btree_set(proptest::collection::vec(0u8..4, 0..4), 0..20),
            from in proptest::collection::vec(0u8..4, 0..4),
            to in proptest::collection::vec(0u8..4, 0..4),
        ) {
            let keys: BTreeSet<Bytes> = keys.into_iter().map(Bytes::from).collect();
            let span = Span::of(from.into(), to.into());
            let asked: Vec<_> = keys.iter().filter(|key| span.contains(key)).collect();
            let found: Vec<_> =
                span.bounds().into_iter().flat_map(|bounds| keys.range::<[u8], _>(bounds)).collect();
            prop_assert_eq!(asked, found);
        }
    }
}
