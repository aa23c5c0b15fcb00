//! Grants: what makes a node a member, and what it may do.
//!
//! The root of a network signs issuers; an issuer signs the grants of nodes. A [`Credential`] is a
//! grant with the chain above it, and proves membership to anybody who knows the network id,
//! without asking anyone. What is signed are the exact bytes that travel, behind a domain string.

mod credential;
mod issuer;
mod pattern;
mod role;

use bytes::{Bytes, BytesMut};

pub use credential::{Credential, MAX_CREDENTIAL, Refused};
pub use issuer::Issuer;
pub use pattern::Pattern;
pub use role::{Role, Roles};

use crate::error::DecodeError;
use crate::id::{NetworkId, PublicKey};
use crate::name::ServiceName;
use crate::time::UnixTime;
use crate::wire::{self, Fields};

/// Patterns in one list of a grant.
pub const MAX_PATTERNS: usize = 256;

/// Membership of one node, as its issuer signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The network.
    pub network: NetworkId,
    /// The key of the member.
    pub key: PublicKey,
    /// The name of the network, for people.
    pub network_name: String,
    /// What it may do.
    pub roles: Roles,
    /// Namespaces it may call in and offer in.
    pub namespaces: Vec<Pattern>,
    /// Names it may offer within those namespaces; empty: none.
    pub services: Vec<Pattern>,
    /// Counts the grants of one issuer; revocation names it.
    pub serial: u64,
    /// The revocation epoch at which it was signed.
    pub epoch: u64,
    /// Not valid before; issuers set it five minutes back for clocks that differ.
    pub not_before: UnixTime,
    /// Not valid from this second on.
    pub not_after: UnixTime,
}

impl Grant {
    /// Whether the member may offer `service`.
    #[must_use]
    pub fn may_offer(&self, service: &ServiceName) -> bool {
        self.namespaces.iter().any(|pattern| pattern.covers(service.namespace()))
            && self.services.iter().any(|pattern| pattern.covers(service.name()))
    }

    /// Whether the member may call in `namespace`.
    #[must_use]
    pub fn may_call(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|pattern| pattern.covers(namespace))
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, self.network.as_bytes());
        wire::put_bytes(&mut out, 2, self.key.as_bytes());
        wire::put_bytes(&mut out, 3, self.network_name.as_bytes());
        wire::put_int(&mut out, 4, self.roles.bits());
        for pattern in &self.namespaces {
            wire::put_item(&mut out, 5, pattern.as_str().as_bytes());
        }
        for pattern in &self.services {
            wire::put_item(&mut out, 6, pattern.as_str().as_bytes());
        }
        wire::put_int(&mut out, 7, self.serial);
        wire::put_int(&mut out, 8, self.epoch);
        wire::put_int(&mut out, 9, self.not_before.0);
        wire::put_int(&mut out, 10, self.not_after.0);
        out.freeze()
    }

    fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (mut network, mut key, mut network_name) = (None, None, String::new());
        let (mut roles, mut namespaces, mut services) = (0, Vec::new(), Vec::new());
        let (mut serial, mut epoch, mut not_before, mut not_after) = (0, 0, 0, 0);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => network = Some(NetworkId::from_bytes(value.array("network")?)),
                2 => key = Some(PublicKey::from_bytes(value.array("key")?)),
                3 => network_name = value.text("network name", 128)?,
                4 => roles = value.int("roles")?,
                5 => push(&mut namespaces, value)?,
                6 => push(&mut services, value)?,
                7 => serial = value.int("serial")?,
                8 => epoch = value.int("epoch")?,
                9 => not_before = value.int("not before")?,
                10 => not_after = value.int("not after")?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            network: network.ok_or(DecodeError::Missing("network"))?,
            key: key.ok_or(DecodeError::Missing("key"))?,
            network_name,
            roles: Roles::from_bits(roles),
            namespaces,
            services,
            serial,
            epoch,
            not_before: UnixTime(not_before),
            not_after: UnixTime(not_after),
        })
    }
}

fn push(list: &mut Vec<Pattern>, value: wire::Value) -> Result<(), DecodeError> {
    if list.len() == MAX_PATTERNS {
        return Err(DecodeError::TooLarge("patterns"));
    }
    list.push(Pattern::new(value.text("pattern", crate::name::MAX_NAME)?)?);
    Ok(())
}

fn signed(domain: &[u8], bytes: &[u8]) -> Vec<u8> {
    [domain, bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::Sign;
    use crate::testing::{Toy, ToyVerify};

    const ROOT: Toy = Toy(1);
    const ISSUER: Toy = Toy(2);
    const MEMBER: Toy = Toy(3);
    const NOW: UnixTime = UnixTime(1_000);

    fn grant() -> Grant {
        Grant {
            network: NetworkId::of(&ROOT.public_key()),
            key: MEMBER.public_key(),
            network_name: "acme".into(),
            roles: Roles::NONE.with(Role::Relay),
            namespaces: vec![Pattern::new("default").unwrap()],
            services: vec![Pattern::new("go.micro.srv.*").unwrap()],
            serial: 7,
            epoch: 1,
            not_before: UnixTime(900),
            not_after: UnixTime(2_000),
        }
    }

    fn credential() -> Credential {
        let issuer = Issuer::appoint(&ROOT, ISSUER.public_key(), UnixTime(3_000));
        issuer.issue(&ISSUER, &grant())
    }

    fn check(credential: &Credential, now: UnixTime) -> Result<(), Refused> {
        let network = NetworkId::of(&ROOT.public_key());
        credential.check(network, &MEMBER.public_key(), now, &ToyVerify)
    }

    #[test]
    fn a_credential_travels_and_still_holds() {
        let arrived = Credential::decode(credential().encode()).unwrap();
        assert_eq!(arrived, credential());
        assert_eq!(check(&arrived, NOW), Ok(()));
    }

    #[test]
    fn a_grant_holds_from_its_first_second_to_before_its_last() {
        assert_eq!(check(&credential(), UnixTime(899)), Err(Refused::TooEarly));
        assert_eq!(check(&credential(), UnixTime(900)), Ok(()));
        assert_eq!(check(&credential(), UnixTime(1_999)), Ok(()));
        assert_eq!(check(&credential(), UnixTime(2_000)), Err(Refused::Expired));
    }

    #[test]
    fn a_grant_ends_with_its_issuer() {
        let issuer = Issuer::appoint(&ROOT, ISSUER.public_key(), UnixTime(1_500));
        let credential = issuer.issue(&ISSUER, &grant());
        assert_eq!(credential.expires(), UnixTime(1_500));
        assert_eq!(check(&credential, UnixTime(1_500)), Err(Refused::Expired));
    }

    #[test]
    fn a_grant_is_worth_nothing_to_another_node_or_network() {
        let network = NetworkId::of(&ROOT.public_key());
        let stolen = credential().check(network, &Toy(9).public_key(), NOW, &ToyVerify);
        assert_eq!(stolen, Err(Refused::ForeignNode));
        let elsewhere = NetworkId::of(&Toy(9).public_key());
        let foreign = credential().check(elsewhere, &MEMBER.public_key(), NOW, &ToyVerify);
        assert_eq!(foreign, Err(Refused::ForeignNetwork));
    }

    #[test]
    fn nobody_but_an_appointed_issuer_can_issue() {
        let impostor = Toy(8);
        let appointed = Issuer::appoint(&ROOT, ISSUER.public_key(), UnixTime(3_000));
        let forged = appointed.issue(&impostor, &grant());
        assert_eq!(check(&forged, NOW), Err(Refused::Forged));
        let own_root = Issuer::appoint(&impostor, impostor.public_key(), UnixTime(3_000));
        let forged = own_root.issue(&impostor, &grant());
        assert_eq!(check(&forged, NOW), Err(Refused::ForeignNetwork));
    }

    #[test]
    fn every_flipped_bit_of_a_credential_is_noticed() {
        let whole = credential().encode();
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            if let Ok(altered) = Credential::decode(bytes.into()) {
                assert!(altered == credential() || check(&altered, NOW).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_grant_covers_what_its_patterns_say_and_no_more() {
        let grant = grant();
        assert!(grant.may_offer(&"go.micro.srv.greeter".parse().unwrap()));
        assert!(!grant.may_offer(&"go.micro.registry".parse().unwrap()));
        assert!(!grant.may_offer(&"pay/go.micro.srv.greeter".parse().unwrap()));
    }
}
