//! What people notice, as log lines: one event name a situation.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::{NodeId, Time};
use router::Note;
use router::output::Reject;
use tunnel::Control;
use tunnel::conduct::{Reason, Rejected};
use tunnel::counters::Taken;

/// Between two lines about services that one node was not granted.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Nodes of which it is remembered that they were told of; beyond it nothing is told.
const NODES: usize = 1024;

/// Tells notes, those that a neighbour can cause as often as it likes only now and then.
#[derive(Debug, Default)]
pub(super) struct Notes {
    not_granted: BTreeMap<NodeId, Time>,
    not_kept: BTreeMap<NodeId, Time>,
}

impl Notes {
    /// Writes the line of `note`, or has it judged by the tunnel, which knows the link.
    pub(super) fn tell(&mut self, note: Note, control: &Control, now: Time) {
        match note {
            Note::Taken { link, news: (news, bytes), known, stale } => {
                let counts = [(Taken::News, news), (Taken::Known, known), (Taken::Stale, stale)];
                control.taken(link, counts, bytes);
            }
            Note::Rejected { link, record, why } => {
                control.rejected(link, &Rejected::one(reason(why), record));
            }
            Note::NotGranted { node, service } => {
                control.not_granted();
                self.not_granted.retain(|_, told| now.since(*told) < SAY_EVERY);
                if self.not_granted.len() < NODES && !self.not_granted.contains_key(&node) {
                    self.not_granted.insert(node, now);
                    let node = node.short();
                    tracing::warn!(event = "service not granted", node, %service, "network");
                }
            }
            Note::NotKept { author, service } => {
                self.not_kept.retain(|_, told| now.since(*told) < SAY_EVERY);
                if self.not_kept.len() < NODES && !self.not_kept.contains_key(&author) {
                    self.not_kept.insert(author, now);
                    let author = author.short();
                    tracing::warn!(event = "rules not carried", author, %service, "too many are kept");
                }
            }
            Note::Joined { node, name } => {
                tracing::info!(event = "node joined", node = %node.short(), name, "network");
            }
            Note::Left { node, name } => {
                tracing::info!(event = "node left", node = %node.short(), name, "network");
            }
            Note::Lost(node) => {
                tracing::info!(event = "node lost", node = %node.short(), "network")
            }
            Note::Found(node) => {
                tracing::info!(event = "node found", node = %node.short(), "network")
            }
            Note::Expired(node) => {
                tracing::warn!(event = "grant expired", node = %node.short(), "network");
            }
            Note::Overtaken => tracing::warn!(
                event = "overtaken",
                "a later life of this node is remembered: is its key used elsewhere, or the clock off?"
            ),
            Note::LeaseEnded { service, instance } => {
                tracing::info!(event = "lease ended", %service, instance, "network");
            }
            Note::Behind(link) => tracing::info!(event = "link behind", %link, "network"),
        }
    }
}

fn reason(why: Reject) -> Reason {
    match why {
        Reject::NotAMember => Reason::NotAMember,
        Reject::Expired => Reason::OutOfTerm,
        Reject::OriginFull => Reason::OriginFull,
        Reject::Full => Reason::Full,
        Reject::TooOften => Reason::TooOften,
    }
}
