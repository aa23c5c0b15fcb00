//! Keys that cost nothing, and the grants of the network of the simulation.

use proto::grant::{Issuer, Pattern};
use proto::record::Node;
use proto::sign::{Sign, Verify};
use proto::{
    Credential, Grant, LabelSet, NetworkId, NodeId, PublicKey, Role, Roles, Signature, UnixTime,
};

/// The wall clock when the simulation begins.
pub(crate) const STARTED: UnixTime = UnixTime(1_700_000_000);

/// A key: signs with BLAKE3 under a secret that follows from its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(pub u32);

impl Key {
    pub(crate) fn id(self) -> NodeId {
        NodeId::of(&self.public_key())
    }
}

impl Sign for Key {
    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(*blake3::hash(&self.0.to_be_bytes()).as_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        tag(&self.public_key(), message)
    }
}

/// Checks what a [`Key`] signs.
pub(crate) struct Checker;

impl Verify for Checker {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        tag(key, message) == *signature
    }
}

fn tag(key: &PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(key.as_bytes()).update(message).finalize_xof().fill(&mut bytes);
    Signature::from_bytes(bytes)
}

const ROOT: Key = Key(u32::MAX);
const ISSUER: Key = Key(u32::MAX - 1);

pub(crate) fn network() -> NetworkId {
    NetworkId::of(&ROOT.public_key())
}

/// What a member may do: everything but offer what begins with `bank`.
fn credential(key: Key, relay: bool) -> Credential {
    let issuer = Issuer::appoint(&ROOT, ISSUER.public_key(), STARTED.plus(1 << 30));
    let grant = Grant {
        network: network(),
        key: key.public_key(),
        network_name: "sim".into(),
        roles: if relay { Roles::NONE.with(Role::Relay) } else { Roles::NONE },
        namespaces: vec![Pattern::any()],
        services: vec![Pattern::new("srv.*").expect("a pattern")],
        serial: u64::from(key.0),
        epoch: 1,
        not_before: UnixTime(0),
        not_after: STARTED.plus(1 << 29),
    };
    issuer.issue(&ISSUER, &grant)
}

pub(crate) fn node(key: Key, region: &str, relay: bool) -> Node {
    Node {
        name: format!("n{}", key.0),
        region: region.into(),
        labels: LabelSet::default(),
        addresses: Vec::new(),
        release: "sim".into(),
        protocol: proto::PROTOCOL,
        credential: Box::new(credential(key, relay)),
    }
}
