//! The members and the grants of the network of the simulation.

use proto::grant::{Issuer, Pattern};
use proto::record::Node;
use proto::sign::Sign;
use proto::testing::Toy;
use proto::{Credential, Grant, LabelSet, NetworkId, Role, Roles, UnixTime};

/// The wall clock when the simulation begins.
pub(crate) const STARTED: UnixTime = UnixTime(1_700_000_000);

const ROOT: Toy = Toy(u32::MAX);
const ISSUER: Toy = Toy(u32::MAX - 1);

pub(crate) fn network() -> NetworkId {
    NetworkId::of(&ROOT.public_key())
}

/// What a member may do: everything but offer what begins with `bank`.
fn credential(key: Toy, relay: bool) -> Credential {
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

pub(crate) fn node(key: Toy, region: &str, relay: bool) -> Node {
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
