//! Grants: what makes a node a member, and what it may do.
//!
//! The root of a network signs issuers; an issuer signs the grants of nodes. A [`Credential`] is a
//! grant with the chain above it, and proves membership to anybody who knows the network id,
//! without asking anyone. What is signed are the exact bytes that travel, behind a domain string.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::id::{NetworkId, NodeId, PublicKey, Signature};
use crate::name::ServiceName;
use crate::sign::{Sign, Verify};
use crate::time::UnixTime;
use crate::wire::{self, Fields};

/// Bytes of a whole credential.
pub const MAX_CREDENTIAL: usize = 16 * 1024;
/// Patterns in one list of a grant.
pub const MAX_PATTERNS: usize = 256;

const ISSUER_DOMAIN: &[u8] = b"micro network 2026 issuer\0";
const GRANT_DOMAIN: &[u8] = b"micro network 2026 grant\0";

/// What a member may do beyond calling and being called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Carries traffic of others, and holds the whole database.
    Relay,
    /// Stands between two networks.
    Gateway,
    /// Signs the grants of others.
    Issuer,
    /// May administer other nodes.
    Operator,
}

/// A set of roles. Unknown bits from newer nodes are kept and mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u64);

impl Roles {
    /// No role: calls in its namespaces, offers what it was granted, relays nothing.
    pub const NONE: Self = Self(0);

    /// This and `role`.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    /// Whether `role` is in the set.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// From the bits of the wire.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits of the wire.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The names of the roles, for people: `relay,gateway`; `edge` when there are none.
    #[must_use]
    pub fn names(self) -> String {
        let all = [
            (Role::Relay, "relay"),
            (Role::Gateway, "gate"),
            (Role::Issuer, "issuer"),
            (Role::Operator, "operator"),
        ];
        let names: Vec<_> =
            all.into_iter().filter(|(role, _)| self.has(*role)).map(|(_, name)| name).collect();
        if names.is_empty() { "edge".to_owned() } else { names.join(",") }
    }
}

/// Which names a grant covers: `*` all of them, `prefix*` those that start so, else the one name.
/// Deliberately nothing more: no expressions in identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text, at most 253 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an empty text or a `*` anywhere but at the end.
    pub fn new(text: impl Into<String>) -> Result<Self, DecodeError> {
        let text = text.into();
        let stem = text.strip_suffix('*').unwrap_or(&text);
        if text.is_empty() || text.len() > crate::name::MAX_NAME || stem.contains('*') {
            return Err(DecodeError::Invalid("pattern"));
        }
        Ok(Self(text))
    }

    /// The pattern that covers every name.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// Whether `name` is covered.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => self.0 == name,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

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

/// An issuer, as the root of the network signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    root: PublicKey,
    key: PublicKey,
    not_after: UnixTime,
    bytes: Bytes,
    signature: Signature,
}

impl Issuer {
    /// Lets the root appoint the holder of `key` as an issuer until `not_after`.
    #[must_use]
    pub fn appoint(root: &dyn Sign, key: PublicKey, not_after: UnixTime) -> Self {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, key.as_bytes());
        wire::put_int(&mut out, 2, not_after.0);
        let bytes = out.freeze();
        let signature = root.sign(&signed(ISSUER_DOMAIN, &bytes));
        Self { root: root.public_key(), key, not_after, bytes, signature }
    }

    /// The network it issues for: the hash of the root that appointed it.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId::of(&self.root)
    }

    /// The key that signs grants.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The end of its appointment.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// As bytes, to be kept with the issuer's key.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, self.root.as_bytes());
        wire::put_bytes(&mut out, 2, &self.bytes);
        wire::put_bytes(&mut out, 3, self.signature.as_bytes());
        out.freeze()
    }

    /// From [`Issuer::encode`]. The signature is not checked here: [`Credential::check`] does.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not an appointment.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let (mut root, mut body, mut signature) = (None, Bytes::new(), None);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => root = Some(PublicKey::from_bytes(value.array("root")?)),
                2 => body = value.bytes("issuer", 1024)?,
                3 => signature = Some(Signature::from_bytes(value.array("signature")?)),
                tag => wire::unknown(tag)?,
            }
        }
        let (mut key, mut not_after) = (None, 0);
        let mut fields = Fields::new(body.clone());
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => key = Some(PublicKey::from_bytes(value.array("issuer key")?)),
                2 => not_after = value.int("not after")?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            root: root.ok_or(DecodeError::Missing("root"))?,
            key: key.ok_or(DecodeError::Missing("issuer key"))?,
            not_after: UnixTime(not_after),
            bytes: body,
            signature: signature.ok_or(DecodeError::Missing("signature"))?,
        })
    }

    /// Signs `grant` with this issuer's private key.
    #[must_use]
    pub fn issue(&self, key: &dyn Sign, grant: &Grant) -> Credential {
        let bytes = grant.encode();
        let signature = key.sign(&signed(GRANT_DOMAIN, &bytes));
        Credential { issuer: self.clone(), grant: grant.clone(), bytes, signature }
    }
}

/// A grant with the proof that it holds. Not yet checked: see [`Credential::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    issuer: Issuer,
    grant: Grant,
    bytes: Bytes,
    signature: Signature,
}

/// Why a credential does not make its holder a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are not a credential.
    #[error("the grant cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Signed under another root.
    #[error("the grant is for another network")]
    ForeignNetwork,
    /// For another key than the one proven.
    #[error("the grant is for another node")]
    ForeignNode,
    /// A signature of the chain does not match.
    #[error("the grant is not signed by this network")]
    Forged,
    /// Its time has not come.
    #[error("the grant is not valid yet; is the clock right?")]
    TooEarly,
    /// Its time is over.
    #[error("the grant has expired")]
    Expired,
}

impl Credential {
    /// What it grants, if [`Credential::check`] passes.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The node it is for.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId::of(&self.grant.key)
    }

    /// The node whose issuer key signed it.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Checks the whole chain: root is the network, issuer by root, grant by issuer, key is
    /// `holder`, and that `now` is within both terms.
    ///
    /// # Errors
    /// [`Refused`] names the first link that does not hold.
    pub fn check(
        &self,
        network: NetworkId,
        holder: &PublicKey,
        now: UnixTime,
        with: &dyn Verify,
    ) -> Result<(), Refused> {
        if self.issuer.network() != network || self.grant.network != network {
            return Err(Refused::ForeignNetwork);
        }
        if self.grant.key != *holder {
            return Err(Refused::ForeignNode);
        }
        let issuer = signed(ISSUER_DOMAIN, &self.issuer.bytes);
        let grant = signed(GRANT_DOMAIN, &self.bytes);
        if !with.verify(&self.issuer.root, &issuer, &self.issuer.signature)
            || !with.verify(&self.issuer.key, &grant, &self.signature)
        {
            return Err(Refused::Forged);
        }
        if now < self.grant.not_before {
            return Err(Refused::TooEarly);
        }
        if now >= self.expires() {
            return Err(Refused::Expired);
        }
        Ok(())
    }

    /// The second from which it no longer holds: its own end or its issuer's, what is earlier.
    #[must_use]
    pub fn expires(&self) -> UnixTime {
        self.grant.not_after.min(self.issuer.not_after)
    }

    /// As it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, &self.issuer.encode());
        wire::put_bytes(&mut out, 2, &self.bytes);
        wire::put_bytes(&mut out, 3, self.signature.as_bytes());
        out.freeze()
    }

    /// From [`Credential::encode`].
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a credential.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_CREDENTIAL {
            return Err(DecodeError::TooLarge("credential"));
        }
        let (mut issuer, mut body, mut signature) = (None, Bytes::new(), None);
        let mut fields = Fields::new(bytes);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => issuer = Some(Issuer::decode(value.bytes("issuer", 4096)?)?),
                2 => body = value.bytes("grant", MAX_CREDENTIAL)?,
                3 => signature = Some(Signature::from_bytes(value.array("signature")?)),
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self {
            issuer: issuer.ok_or(DecodeError::Missing("issuer"))?,
            grant: Grant::decode(body.clone())?,
            bytes: body,
            signature: signature.ok_or(DecodeError::Missing("signature"))?,
        })
    }
}

fn signed(domain: &[u8], bytes: &[u8]) -> Vec<u8> {
    [domain, bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(Pattern::new("a*b").is_err() && Pattern::new("").is_err());
    }
}
