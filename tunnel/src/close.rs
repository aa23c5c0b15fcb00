//! Why links end, in numbers that travel and words that people read.

use proto::grant::Refused;

/// The reason a node gives when it closes a link: an application error code of QUIC
/// (RFC 9000 §20.2). The other end prints its meaning, so each has its own number for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Close {
    /// The node is stopping, on purpose.
    #[error("the node is leaving")]
    Leaving,
    /// Nothing used the link. Streams that crossed with this were certainly not seen.
    #[error("the link was idle")]
    Idle,
    /// A newer life of the same node has arrived.
    #[error("a newer link replaces it")]
    Stale,
    /// The same two nodes have another link that both prefer.
    #[error("the two nodes have a better link")]
    Duplicate,
    /// The router does not want this neighbour any more.
    #[error("no longer a neighbour")]
    Unwanted,
    /// It was to end when its calls had, and they took too long.
    #[error("its calls took too long to end")]
    Overdue,
    /// The grant is for another network.
    #[error("it belongs to another network")]
    ForeignNetwork,
    /// The grant is for another key than the one proven.
    #[error("its grant is for another node")]
    ForeignNode,
    /// A signature of the grant does not match.
    #[error("its grant is not signed by this network")]
    Forged,
    /// The grant has not begun.
    #[error("its grant is not valid yet; is the clock right?")]
    TooEarly,
    /// The grant is over.
    #[error("its grant has expired")]
    Expired,
    /// It has shown no grant, and asked for something that needs one.
    #[error("it is not a member")]
    NotAMember,
    /// What came is not this protocol.
    #[error("it does not follow the protocol")]
    Protocol,
    /// No protocol version is spoken by both.
    #[error("no protocol version is spoken by both ends")]
    Version,
    /// Nothing useful came within the time for it.
    #[error("it took too long to say who it is")]
    Slow,
    /// A bound was reached.
    #[error("there are too many links")]
    TooMany,
    /// The node that was meant is another one.
    #[error("another node answers at this address")]
    WrongNode,
    /// It has sent what no node may: forgeries, or what cannot be read.
    #[error("it sends records that no node may send")]
    Misbehaved,
    /// It has sent more than anybody can use, for minutes.
    #[error("it sends far more than anybody can use")]
    Flooded,
    /// The question was answered; nothing more is expected.
    #[error("done")]
    Done,
    /// A reason of a newer release.
    #[error("reason {0}")]
    Other(u64),
}

impl Close {
    /// The number of the wire.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        match self {
            Self::Leaving => 0x100,
            Self::Idle => 0x101,
            Self::Stale => 0x102,
            Self::Duplicate => 0x103,
            Self::Unwanted => 0x104,
            Self::Overdue => 0x105,
            Self::ForeignNetwork => 0x110,
            Self::ForeignNode => 0x111,
            Self::Forged => 0x112,
            Self::TooEarly => 0x113,
            Self::Expired => 0x114,
            Self::NotAMember => 0x115,
            Self::Protocol => 0x120,
            Self::Version => 0x121,
            Self::Slow => 0x122,
            Self::TooMany => 0x123,
            Self::WrongNode => 0x124,
            Self::Misbehaved => 0x125,
            Self::Flooded => 0x126,
            Self::Done => 0x130,
            Self::Other(code) => code,
        }
    }

    /// From the number of the wire.
    #[must_use]
    pub const fn from_wire(code: u64) -> Self {
        match code {
            0x100 => Self::Leaving,
            0x101 => Self::Idle,
            0x102 => Self::Stale,
            0x103 => Self::Duplicate,
            0x104 => Self::Unwanted,
            0x105 => Self::Overdue,
            0x110 => Self::ForeignNetwork,
            0x111 => Self::ForeignNode,
            0x112 => Self::Forged,
            0x113 => Self::TooEarly,
            0x114 => Self::Expired,
            0x115 => Self::NotAMember,
            0x120 => Self::Protocol,
            0x121 => Self::Version,
            0x122 => Self::Slow,
            0x123 => Self::TooMany,
            0x124 => Self::WrongNode,
            0x125 => Self::Misbehaved,
            0x126 => Self::Flooded,
            0x130 => Self::Done,
            code => Self::Other(code),
        }
    }

    /// Whether the end that closed had no stream: those the other end had just opened were
    /// certainly not seen.
    #[must_use]
    pub const fn is_without_calls(self) -> bool {
        matches!(self, Self::Idle | Self::Duplicate | Self::Unwanted | Self::Leaving)
    }

    /// Whether trying again soon is pointless: something must change at one of the ends first.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::ForeignNetwork
                | Self::ForeignNode
                | Self::Forged
                | Self::TooEarly
                | Self::Expired
                | Self::NotAMember
                | Self::Version
                | Self::WrongNode
        )
    }
}

impl From<Refused> for Close {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unreadable(_) => Self::Protocol,
            Refused::ForeignNetwork => Self::ForeignNetwork,
            Refused::ForeignNode => Self::ForeignNode,
            Refused::Forged => Self::Forged,
            Refused::TooEarly => Self::TooEarly,
            Refused::Expired => Self::Expired,
        }
    }
}

/// How a link ended, seen from one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Gone {
    /// The other node closed it.
    #[error("the other node closed the link: {0}")]
    ByPeer(Close),
    /// This node closed it.
    #[error("this node closed the link: {0}")]
    Here(Close),
    /// Nothing was heard for too long.
    #[error("nothing was heard from the other node")]
    Silent,
    /// The other node does not know the link: it has restarted (RFC 9000 §10.3).
    #[error("the other node has restarted")]
    Restarted,
    /// The transport failed: the other end is not this protocol, or no longer there.
    #[error("the connection failed")]
    Failed,
}

impl Gone {
    /// The reason the other end gave, if it gave one.
    #[must_use]
    pub const fn by_peer(self) -> Option<Close> {
        match self {
            Self::ByPeer(close) => Some(close),
            Self::Here(_) | Self::Silent | Self::Restarted | Self::Failed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_read_back_from_its_number() {
        for code in 0..0x200 {
            assert_eq!(Close::from_wire(code).to_wire(), code);
        }
        assert_eq!(Close::from_wire(Close::Expired.to_wire()), Close::Expired);
    }
}
