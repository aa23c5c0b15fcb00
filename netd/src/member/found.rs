//! Founding a network: a root, its first issuer (this node), and the first grant.

use std::sync::Arc;
use std::time::Duration;

use proto::grant::{Grant, Issuer, Pattern};
use proto::sign::Sign as _;
use proto::{Credential, NetworkId, Role, Roles};
use tunnel::identity::Keypair;
use tunnel::issuer::Desk;

use super::{known, load_key, now};
use crate::config::Settings;
use crate::error::Problem;
use crate::state::State;

/// The file with this node's appointment as issuer.
pub(super) const APPOINTMENT: &str = "issuer";
/// How long the root appoints the first issuer for: rolling issuers comes with a later release, so
/// the term must outlast this one.
const APPOINTMENT_TERM: u64 = 10 * 365 * 86_400;
/// How far clocks of members may differ.
const CLOCK_SLACK: u64 = 300;

/// Makes a network whose issuer is this node. Interrupted, it is picked up where it was left: the
/// grant comes last, and before it nothing counts as a membership.
pub(super) fn found(settings: &Settings, state: &State, name: &str) -> Result<(), Problem> {
    let key = load_key(&state.path("node.key"))?;
    let root = load_key(&state.path("root.key"))?;
    let issuer = Issuer::appoint(&root, key.public_key(), now().plus(APPOINTMENT_TERM));
    state.write(APPOINTMENT, &issuer.encode())?;
    let grant = Grant {
        network: NetworkId::of(&root.public_key()),
        key: key.public_key(),
        network_name: name.to_owned(),
        roles: Roles::NONE.with(Role::Relay).with(Role::Issuer).with(Role::Operator),
        namespaces: vec![Pattern::any()],
        services: vec![Pattern::any()],
        serial: 0,
        epoch: 0,
        not_before: now(),
        not_after: now(),
    };
    let credential = sign_own(&issuer, &key, &grant, settings.grant_ttl);
    state.write(known::CREDENTIAL, &credential.encode())?;
    Ok(())
}

/// The issuer's own grant, renewed by itself: `old` for another term.
#[must_use]
pub fn sign_own(issuer: &Issuer, key: &Keypair, old: &Grant, ttl: Duration) -> Credential {
    let grant = Grant {
        serial: old.serial.saturating_add(1),
        not_before: proto::UnixTime(now().0.saturating_sub(CLOCK_SLACK)),
        not_after: now().plus(ttl.as_secs()),
        ..old.clone()
    };
    issuer.issue(key, &grant)
}

/// This node's appointment as issuer; `None` where it is none.
pub(super) fn appointment(state: &State) -> Result<Option<Issuer>, Problem> {
    let Some(bytes) = state.read(APPOINTMENT)? else { return Ok(None) };
    let issuer = Issuer::decode(bytes.into());
    issuer.map(Some).map_err(|why| super::damaged(&state.path(APPOINTMENT), &why))
}

/// The desk where this node makes tickets and grants; `None` where it is no issuer.
pub(super) fn desk(
    network: &str,
    state: &State,
    key: &Arc<Keypair>,
) -> Result<Option<Arc<Desk>>, Problem> {
    let Some(issuer) = appointment(state)? else { return Ok(None) };
    let path = state.path("tickets");
    let desk = Desk::open(issuer, Arc::clone(key), network, key.node(), &path);
    desk.map(|desk| Some(Arc::new(desk))).map_err(|why| super::damaged(&path, &why))
}

/// The key of stateless resets: kept, made where there is none. Where it cannot be kept, restarts
/// of this node are noticed by silence instead.
pub(super) fn reset_key(state: &State) -> [u8; 64] {
    let kept = state.read("reset.key").ok().flatten();
    if let Some(key) = kept.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok()) {
        return key;
    }
    let key = tunnel::identity::random();
    if let Err(error) = state.write("reset.key", &key) {
        tracing::warn!(%error, "the key of stateless resets could not be kept");
    }
    key
}

#[cfg(test)]
mod tests {
    use tunnel::identity::Ed25519;

    use super::*;

    #[test]
    fn an_issuer_renews_its_own_grant_with_the_same_rights() {
        let (root, key) = (Keypair::generate(), Keypair::generate());
        let network = NetworkId::of(&root.public_key());
        let issuer = Issuer::appoint(&root, key.public_key(), now().plus(APPOINTMENT_TERM));
        let old = Grant {
            network,
            key: key.public_key(),
            network_name: "acme".into(),
            roles: Roles::NONE.with(Role::Issuer),
            namespaces: vec![Pattern::any()],
            services: Vec::new(),
            serial: 7,
            epoch: 0,
            not_before: proto::UnixTime(0),
            not_after: proto::UnixTime(1),
        };
        let new = sign_own(&issuer, &key, &old, Duration::from_secs(60));
        assert_eq!(new.check(network, &key.public_key(), now(), &Ed25519), Ok(()));
        assert_eq!((new.grant().serial, new.grant().roles), (8, old.roles));
    }
}
