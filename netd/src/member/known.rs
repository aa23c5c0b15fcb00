//! What earlier lives of this node left behind: memberships, and peers to find back to.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use proto::{Credential, NetworkId, NodeId, UnixTime};
use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::error::Problem;
use crate::state::{State, StateError};

/// The file with the grant.
pub(super) const CREDENTIAL: &str = "credential";
/// The file with the peers.
const PEERS: &str = "peers";
/// Networks looked at in one state directory.
const MAX_NETWORKS: usize = 1024;
/// Peers remembered: enough to find back when most of them have moved.
const MAX_PEERS: usize = 64;
/// Days after which a peer that was not reached is forgotten: its grant has long ended.
const FORGET: u64 = 7;

/// A membership found on disk.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) dir: PathBuf,
    pub(super) credential: Credential,
    epoch: u64,
}

/// The membership of node `name` that is wanted; of several, the one used last.
pub(super) fn find(root: &Path, name: &str, wanted: &Wanted<'_>) -> Result<Option<Known>, Problem> {
    let networks = match fs::read_dir(root) {
        Ok(networks) => networks,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::File { path: root.to_owned(), error }.into()),
    };
    let mut found: Vec<Known> = networks
        .take(MAX_NETWORKS)
        .filter_map(|network| read(&network.ok()?.path().join(name)))
        .filter(|known| {
            let grant = known.credential.grant();
            wanted.ticket.is_none_or(|ticket| ticket.network == grant.network)
                && wanted.network.is_none_or(|network| network == grant.network_name)
        })
        .collect();
    // By path where two were used last at the same millisecond, so that the choice is stable.
    found.sort_by(|a, b| (a.epoch, &a.dir).cmp(&(b.epoch, &b.dir)));
    Ok(found.pop())
}

fn read(dir: &Path) -> Option<Known> {
    let credential = fs::read(dir.join(CREDENTIAL)).ok()?;
    let credential = Credential::decode(credential.into()).ok()?;
    let epoch = fs::read_to_string(dir.join("epoch")).ok();
    let epoch = epoch.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Some(Known { dir: dir.to_owned(), credential, epoch })
}

/// The directory for a new membership. Two networks may have one name: the second of them gets a
/// directory with its id behind the name.
pub(super) fn free_dir(root: &Path, network: &str, name: &str, id: NetworkId) -> PathBuf {
    // The name came in a ticket: as a directory it is one plain component, whatever it says.
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let mut plain: String = network.chars().take(64).map(safe).collect();
    if plain.is_empty() || plain.starts_with('.') {
        plain.insert_str(0, "network");
    }
    let dir = root.join(&plain).join(name);
    let other = read(&dir).is_some_and(|known| known.credential.grant().network != id);
    if other { root.join(format!("{plain}-{}", id.short())).join(name) } else { dir }
}

/// Writes the grant down; where that is not possible it is kept in memory alone, and said.
pub(super) fn keep_credential(state: &State, credential: &Credential) {
    if let Err(error) = state.write(CREDENTIAL, &credential.encode()) {
        tracing::warn!(%error, "the grant could not be written down; it is lost with this process");
    }
}

/// Whom a node knew: where to look for its network when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peers {
    /// The seeds of its ticket: `host:port`.
    pub seeds: Vec<String>,
    /// Members it knew, and their addresses, by the text of their id.
    pub nodes: BTreeMap<String, Vec<SocketAddr>>,
    /// The day each of them was reached last, in days since 1970.
    pub seen: BTreeMap<String, u64>,
}

impl Peers {
    /// As kept in `state`; nobody, where nothing readable is kept.
    #[must_use]
    pub fn load(state: &State) -> Self {
        let bytes = state.read(PEERS).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Writes them down.
    ///
    /// # Errors
    /// As [`State::write`].
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(self).expect("texts and addresses are JSON");
        state.write(PEERS, &text)
    }

    /// The same seeds, the members that are `reached` now, and those that once were for as long
    /// as there is room: who was restarted apart from the rest must still know where to look. At
    /// most [`MAX_PEERS`], the first of `reached` first, then those seen last.
    #[must_use]
    pub fn with(
        &self,
        reached: impl Iterator<Item = (NodeId, Vec<SocketAddr>)>,
        now: UnixTime,
    ) -> Self {
        let today = now.0 / 86_400;
        let mut peers = Self { seeds: self.seeds.clone(), ..Self::default() };
        for (node, at) in reached.take(MAX_PEERS) {
            peers.seen.insert(node.to_string(), today);
            peers.nodes.insert(node.to_string(), at);
        }
        let day = |node: &String| self.seen.get(node).copied().unwrap_or(today);
        let recent = |node: &String| today.saturating_sub(day(node)) < FORGET;
        let mut before: Vec<_> = self
            .nodes
            .iter()
            .filter(|(node, _)| recent(node) && !peers.nodes.contains_key(*node))
            .collect();
        before.sort_by_key(|(node, _)| std::cmp::Reverse(day(node)));
        let room = MAX_PEERS - peers.nodes.len();
        for (node, at) in before.into_iter().take(room) {
            peers.seen.insert(node.clone(), day(node));
            peers.nodes.insert(node.clone(), at.clone());
        }
        peers
    }

    /// Who they are.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().filter_map(|node| node.parse().ok())
    }

    /// The addresses last known of `node`.
    #[must_use]
    pub fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        self.nodes.get(&node.to_string()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn peers_are_read_back_and_garbage_is_nobody() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(&root.path().join("node")).unwrap();
        let peers = Peers { seeds: vec!["gate:8085".into()], ..Peers::default() };
        let node = NodeId::from_bytes([7; 32]);
        let at: SocketAddr = "192.0.2.1:8085".parse().unwrap();
        let peers = peers.with([(node, vec![at])].into_iter(), UnixTime(0));
        peers.save(&state).unwrap();
        assert_eq!(Peers::load(&state), peers);
        assert_eq!(peers.addresses(node), [at]);
        state.write(PEERS, b"{\"seeds\": 7").unwrap();
        assert_eq!(Peers::load(&state), Peers::default());
    }

    #[test]
    fn who_is_not_reached_is_remembered_for_a_week_and_gives_way_to_who_is() {
        let day = |n: u64| UnixTime(n * 86_400);
        let node = |n: u8| (NodeId::from_bytes([n; 32]), vec!["192.0.2.1:8085".parse().unwrap()]);
        let nodes = |range: std::ops::Range<u8>| range.map(node);
        let peers = Peers::default().with(nodes(0..60), day(100));
        let peers = peers.with(nodes(60..70), day(101));
        assert_eq!(peers.nodes.len(), MAX_PEERS);
        assert!(!peers.addresses(node(69).0).is_empty(), "who is reached is among them");
        let later = peers.with(nodes(60..61), day(100 + FORGET));
        let left: BTreeSet<_> = later.members().collect();
        assert_eq!(left, nodes(60..70).map(|(id, _)| id).collect());
        // Kept by a release that wrote no days: from today on.
        let old = Peers { seen: BTreeMap::new(), ..peers.clone() };
        assert_eq!(old.with(nodes(0..0), day(500)).nodes, old.nodes);
    }

    #[test]
    fn a_network_name_of_a_stranger_stays_below_the_state_directory() {
        let root = Path::new("/state");
        let id = NetworkId::from_bytes([1; 32]);
        for (name, dir) in [
            ("acme", "/state/acme/n"),
            ("../../etc", "/state/network.._.._etc/n"),
            ("..", "/state/network../n"),
            ("a/b\u{7f}", "/state/a_b_/n"),
            ("", "/state/network/n"),
        ] {
            assert_eq!(free_dir(root, name, "n", id), Path::new(dir), "{name:?}");
        }
    }
}
