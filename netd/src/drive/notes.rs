//! What people notice, as log lines: one event name a situation.

use router::Note;

/// Writes the line of `note`.
pub(super) fn tell(note: &Note) {
    match note {
        Note::Joined { node, name } => {
            tracing::info!(event = "node joined", node = %node.short(), name, "network");
        }
        Note::Left { node, name } => {
            tracing::info!(event = "node left", node = %node.short(), name, "network");
        }
        Note::Lost(node) => tracing::info!(event = "node lost", node = %node.short(), "network"),
        Note::Found(node) => tracing::info!(event = "node found", node = %node.short(), "network"),
        Note::Expired(node) => {
            tracing::warn!(event = "grant expired", node = %node.short(), "network");
        }
        Note::NotGranted { node, service } => {
            tracing::warn!(event = "service not granted", node = %node.short(), %service, "network");
        }
        Note::Rejected { link, record, why } => {
            tracing::warn!(event = "record rejected", %link, ?record, ?why, "network");
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
