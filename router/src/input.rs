//! Everything that can happen to a router.

use std::sync::Arc;
use std::time::Duration;

use proto::frame::{Digest, Frame, Summary, Want};
use proto::record::{Endpoint, Interest, Node};
use proto::rule::RuleSet;
use proto::{Cost, LabelSet, LinkId, NodeId, ServiceName, Verified};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// To a neighbour link.
    Link(LinkId, LinkEvent),
    /// A neighbour said something.
    Frame(LinkId, Message),
    /// This node wants something; answered by [`Output::Answer`](crate::Output::Answer), except
    /// where [`Request`] says otherwise.
    Request(RequestId, Request),
}

/// What can happen to a neighbour link. Links opened for calls alone are not told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there, and the peer has proven its membership.
    Up {
        /// The peer.
        node: NodeId,
        /// What a round trip costs, as first measured.
        cost: Cost,
        /// This node opened it. Of two links between the same two nodes this decides which stays.
        dialled: bool,
    },
    /// A new measure of its cost.
    Cost(Cost),
    /// Nothing was heard for a few probes: not to be used, perhaps dead.
    Suspected,
    /// Something was heard again.
    Recovered(Cost),
    /// It is gone; its id is not used again.
    Down,
    /// Enough waits to be sent on it: what there is more to tell is kept back.
    Full,
    /// Little waits to be sent on it any more.
    Drained,
}

/// What neighbours say, with the signatures of its records checked at the door.
#[derive(Clone, Debug)]
pub enum Message {
    /// Records, in the order to be applied. Shared, for a simulation of many nodes in one process.
    Records(Vec<Arc<Verified>>),
    /// A hash of everything the neighbour holds.
    Digest(Digest),
    /// What the neighbour holds of some origins.
    Summary(Summary),
    /// What the neighbour asks for.
    Want(Want),
}

impl Message {
    /// The message of a frame whose records were verified as `records`; `None` for frames that
    /// are the tunnel's own.
    #[must_use]
    pub fn from_frame(frame: Frame, records: Vec<Verified>) -> Option<Self> {
        match frame {
            Frame::Records(_) => Some(Self::records(records)),
            Frame::Digest(digest) => Some(Self::Digest(digest)),
            Frame::Summary(summary) => Some(Self::Summary(summary)),
            Frame::Want(want) => Some(Self::Want(want)),
            Frame::Hello(_) | Frame::Bye => None,
        }
    }

    /// A message of records.
    #[must_use]
    pub fn records(records: Vec<Verified>) -> Self {
        Self::Records(records.into_iter().map(Arc::new).collect())
    }
}

/// Names a request, so that its answer can be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What this node, or a program on it, wants.
#[derive(Clone, Debug)]
pub enum Request {
    /// Offer an instance, or keep it offered.
    Register(Registration),
    /// No longer offer an instance. Answered with success also when it is not there.
    Deregister {
        /// The service.
        service: ServiceName,
        /// Its version; `None` for any.
        version: Option<String>,
        /// The instance's id.
        instance: String,
    },
    /// Offer these instances of one service, and no longer those, as one record: all of it, or with a
    /// refusal nothing. For who knows of many at a time.
    Change {
        /// The service.
        service: ServiceName,
        /// What is offered, or kept offered; all of this service.
        put: Vec<Registration>,
        /// The ids of what is not, of any version. One that is not there is as good.
        away: Vec<String>,
    },
    /// What an operator says of a service on this node, over what its programs say: these labels in
    /// place of those said before. They are kept also while no instance of it is here.
    Label {
        /// The service.
        service: ServiceName,
        /// Its labels; none: it is as its programs say.
        labels: LabelSet,
    },
    /// This node changed: addresses, labels, or a renewed credential.
    Describe(Node),
    /// Decide about the calls of a service: this set in place of the one there is, whose revision
    /// is one lower. Refused when that is another by now: somebody else was quicker.
    Rule {
        /// The service.
        service: ServiceName,
        /// The rules.
        set: RuleSet,
    },
    /// Keep again what an earlier life of this node kept, with the revision it had then: of all
    /// sets of a service the highest holds, as ever.
    Restore {
        /// The service.
        service: ServiceName,
        /// The rules.
        set: RuleSet,
        /// Whether that life told them to others: they are told again at once.
        told: bool,
    },
    /// How many subscribers on this node have each of these interests now, 0 for none any more.
    /// Those for which a record has no room are left out, and the answer is a refusal.
    Interest(Vec<(Interest, u32)>),
    /// How a dial that [`Output::Dial`](crate::Output::Dial) asked for ended. Not answered.
    Dialled {
        /// The node that was dialled.
        node: NodeId,
        /// `Ok` when the link is there (its [`LinkEvent::Up`] comes as well).
        outcome: Result<(), ()>,
    },
    /// Withdraw everything and go: ends with [`Output::Left`](crate::Output::Left).
    Leave,
}

/// An instance of a service on this node, as the program registers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service.
    pub service: ServiceName,
    /// The version, as the program names it.
    pub version: String,
    /// What the program says of this version; of several instances the last word holds.
    pub metadata: LabelSet,
    /// What can be called on it; of several instances the last word holds.
    pub endpoints: Vec<Endpoint>,
    /// The instance.
    pub instance: proto::record::Instance,
    /// It goes if it is not registered again within this; `None`: it stays until deregistered or
    /// until the node ends.
    pub ttl: Option<Duration>,
}
