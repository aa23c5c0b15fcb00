//! Everything a router can want done, or have people notice.

use std::sync::Arc;

use proto::frame::Frame;
use proto::{DecodeError, LinkId, NodeId, RecordId, ServiceName};

use crate::input::RequestId;
use crate::kept::KeptSets;
use crate::routes::Routes;

/// One thing to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a frame to a neighbour.
    Send(LinkId, Frame),
    /// Open a neighbour link to this node, and say how it went
    /// ([`Request::Dialled`](crate::Request::Dialled)).
    Dial(NodeId),
    /// Close a neighbour link: it is no longer wanted. Not a fault.
    Close(LinkId),
    /// New answers, to be published.
    Routes(Arc<Routes>),
    /// The rules that this node keeps for the network are these now: to be written down.
    Kept(Arc<KeptSets>),
    /// The answer to a request.
    Answer(RequestId, Result<(), Refusal>),
    /// Something that people notice.
    Note(Note),
    /// Everything is withdrawn and told to the neighbours: the node may go.
    Left,
}

/// Why a request was not carried out. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The grant of this node does not cover the service.
    #[error("the grant of this node does not cover this service")]
    NotGranted,
    /// The grant of this node has expired.
    #[error("the grant of this node has expired")]
    Expired,
    /// One more service than a node may offer.
    #[error("this node offers as many services as it may")]
    TooManyServices,
    /// One more instance or version than a service may have on a node.
    #[error("the service has as many instances on this node as it may")]
    TooManyInstances,
    /// The description of the service on this node would be larger than a record may be.
    #[error("the description of the service is too large")]
    TooLarge,
    /// A field is not what it must be.
    #[error("the description cannot be announced: {0}")]
    Malformed(#[from] DecodeError),
    /// The rules are no longer those that the new ones were made from; the revision they have now.
    #[error("the rules of the service have revision {0} by now: somebody else changed them")]
    StaleRules(u64),
    /// The author would have more rules than nodes keep of one, or there would be more than they
    /// keep of all.
    #[error("nodes keep at most 1 MiB of the rules of one author, and 4 MiB of all")]
    TooManyRules,
    /// A description of another node than this one.
    #[error("the credential is for another node")]
    ForeignNode,
    /// The node is leaving.
    #[error("this node is leaving")]
    Leaving,
}

/// What people notice: for the log, the metrics and the events of the admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A node was heard of for the first time, or again after it had left.
    Joined {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// A node has left on purpose.
    Left {
        /// The node.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// A node can no longer be reached.
    Lost(NodeId),
    /// A node can be reached: for the first time, or again.
    Found(NodeId),
    /// A node is not used any more: its grant has expired.
    Expired(NodeId),
    /// A node offers a service that its grant does not cover. It is not believed.
    NotGranted {
        /// The node.
        node: NodeId,
        /// The service.
        service: ServiceName,
    },
    /// Rules are not kept, and not carried on when those that tell them go: there is no room.
    NotKept {
        /// Who wrote them.
        author: NodeId,
        /// The service they are for.
        service: ServiceName,
    },
    /// A record was not taken in.
    Rejected {
        /// The neighbour link it came by.
        link: LinkId,
        /// Which record.
        record: RecordId,
        /// Why.
        why: Reject,
    },
    /// What the records of one frame were, those that were rejected aside.
    Taken {
        /// The neighbour link they came by.
        link: LinkId,
        /// Something new, and the bytes of it.
        news: (u64, u64),
        /// Held already.
        known: u64,
        /// Older than what is held.
        stale: u64,
    },
    /// The network remembers a later life of this node than this one: its clock was ahead once,
    /// or is behind now, or another machine uses the same key.
    Overtaken,
    /// The lease of an instance ran out.
    LeaseEnded {
        /// The service.
        service: ServiceName,
        /// The instance's id.
        instance: String,
    },
    /// A link fell too far behind; what it missed will be found by a digest.
    Behind(LinkId),
}

/// Why a record was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reject {
    /// Its origin is not known to be a member.
    NotAMember,
    /// Its origin's grant has expired.
    Expired,
    /// Its origin has too many already.
    OriginFull,
    /// The database is full.
    Full,
    /// Its origin changes its mind too often; the next digest brings the newest.
    TooOften,
}
