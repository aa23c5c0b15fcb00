//! Topics: which nodes want to hear of what, and how a message gets to each of them once.
//!
//! | Module | Holds |
//! |---|---|
//! | [`table`] | patterns and what is known of each; a topic is looked up by shapes |
//! | [`plan`] | who gets a message, by whom, chosen where it is published |
//! | [`taken`] | what is taken of other nodes: each message once, in order |
//!
//! The node where a message is published decides all of it, and says so in the message: it goes to
//! each interested node of its own region, and once to each other region, to a node that passes it
//! on to those named. Nobody passes on what was passed on. So no message goes in a circle or comes
//! twice, whatever the links are, and nodes need not agree on who is interested.

pub mod plan;
pub mod table;
pub mod taken;

use std::sync::Arc;

use proto::NodeId;
use proto::record::Interest;
use proto::topic::QueueGroup;

pub use plan::{Leg, Planner};
pub use table::Table;
pub use taken::{Dropped, Taken};

/// Ways between two nodes, by topic: topics of one lane keep one way, and with it their order.
pub const LANES: u8 = 16;

/// Who wants what, of the whole network: by pattern, the nodes.
pub type Topics = Table<Wanted>;

/// The nodes that want one pattern, by id and group.
pub type Wanted = Arc<[Wants]>;

/// One node that wants a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wants {
    /// Which node.
    pub node: NodeId,
    /// The queue group that its subscribers are in.
    pub group: Option<QueueGroup>,
    /// How many there are, about.
    pub count: u32,
}

impl Topics {
    /// Says how many subscribers `node` has for an interest; 0: none any more. False, and nothing
    /// changed, where there are too many kinds of patterns.
    pub fn set(&mut self, node: NodeId, interest: &Interest, count: u32) -> bool {
        self.update(&interest.namespace, &interest.pattern, |wanted| {
            let this = |one: &Wants| one.node == node && one.group == interest.group;
            let mut all: Vec<Wants> = wanted.iter().filter(|one| !this(one)).cloned().collect();
            if count > 0 {
                let one = Wants { node, group: interest.group.clone(), count };
                let at = all.partition_point(|other| *other < one);
                all.insert(at, one);
            }
            *wanted = all.into();
            !wanted.is_empty()
        })
    }
}
