//! What records are about.

use std::fmt;

/// What a record is about. Kinds of newer releases are kept and passed on, unread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// [`Node`](super::Node); its key is empty.
    pub const NODE: Self = Self(1);
    /// [`Adjacency`](super::Adjacency); its key is the neighbour's id.
    pub const ADJACENCY: Self = Self(2);
    /// [`Service`](super::Service); its key is the service's name.
    pub const SERVICE: Self = Self(3);
    /// [`RuleSet`](crate::rule::RuleSet); its key is the name of the service that the rules are for.
    pub const RULE: Self = Self(4);
    /// [`Interests`](super::Interests); its key is one byte, the bucket.
    pub const INTEREST: Self = Self(5);
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NODE => f.write_str("node"),
            Self::ADJACENCY => f.write_str("adjacency"),
            Self::SERVICE => f.write_str("service"),
            Self::RULE => f.write_str("rule"),
            Self::INTEREST => f.write_str("interest"),
            Self(other) => write!(f, "kind {other}"),
        }
    }
}
