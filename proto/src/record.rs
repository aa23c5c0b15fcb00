//! Records: what nodes tell each other, signed by the one node that may say it.
//!
//! ```text
//! fields (see wire):  1 origin's public key   2 kind   3 key   4 epoch   5 seq   6 gone   7 body
//!                     8 signature over a domain string, the network id and fields 1 to 7
//! ```
//!
//! A record is forwarded as the bytes that came in, so its signature holds at every node. The
//! origin's id is the hash of the key in the record: whoever signed it is the origin, and nobody
//! can write for another. Whether the origin is a member, and may offer what it says, is asked of
//! its grant, which its node record carries, each time the record is used.

mod adjacency;
pub mod interest;
mod kind;
mod node;
mod service;

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use adjacency::{Adjacency, PathKind};
pub use interest::{Interest, Interests};
pub use kind::Kind;
pub use node::{MAX_ADDRESSES, Node};
pub use service::{
    Endpoint, Instance, MAX_DEPTH, MAX_ENDPOINTS, MAX_INSTANCES, MAX_VERSIONS, Protocol, Service,
    ValueType, VersionOf,
};

use crate::error::DecodeError;
use crate::grant::Refused;
use crate::id::{NetworkId, NodeId, PublicKey, Signature};
use crate::name::ServiceName;
use crate::rule::RuleSet;
use crate::sign::{Sign, Verify};
use crate::time::{Epoch, Seq, UnixTime, Version};
use crate::wire::{self, Fields};

/// Bytes of a whole record.
pub const MAX_RECORD: usize = 64 * 1024;
/// Bytes of a key.
pub const MAX_KEY: usize = crate::name::MAX_NAME;

const DOMAIN: &[u8] = b"micro network 2026 record\0";

/// Which record: an origin has one of each kind and key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Who wrote it.
    pub origin: NodeId,
    /// What it is about.
    pub kind: Kind,
    /// Which one of that kind.
    pub key: Bytes,
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}/{}", self.origin, self.kind, self.key.escape_ascii())
    }
}

/// What a record says, once read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// About the origin itself.
    Node(Box<Node>),
    /// About its link with one neighbour.
    Adjacency(NodeId, Adjacency),
    /// About the instances of one service there.
    Service(ServiceName, Box<Service>),
    /// What is decided about the calls of one service.
    Rules(ServiceName, Arc<RuleSet>),
    /// What its programs want to hear of, those whose patterns are in this bucket.
    Interest(u8, Arc<Interests>),
    /// No longer so: a tombstone.
    Gone,
    /// Of a kind this release does not know.
    Unknown,
}

impl Body {
    fn kind_and_key(&self) -> Option<(Kind, Bytes)> {
        match self {
            Self::Node(_) => Some((Kind::NODE, Bytes::new())),
            Self::Adjacency(neighbour, _) => {
                Some((Kind::ADJACENCY, Bytes::copy_from_slice(neighbour.as_bytes())))
            }
            Self::Service(name, _) => {
                Some((Kind::SERVICE, Bytes::copy_from_slice(name.as_str().as_bytes())))
            }
            Self::Rules(name, _) => {
                Some((Kind::RULE, Bytes::copy_from_slice(name.as_str().as_bytes())))
            }
            Self::Interest(bucket, _) => Some((Kind::INTEREST, Bytes::copy_from_slice(&[*bucket]))),
            Self::Gone | Self::Unknown => None,
        }
    }

    fn encode(&self) -> Bytes {
        match self {
            Self::Node(node) => node.encode(),
            Self::Adjacency(_, adjacency) => adjacency.encode(),
            Self::Service(_, service) => service.encode(),
            Self::Rules(_, rules) => rules.encode(),
            Self::Interest(_, interests) => interests.encode(),
            Self::Gone | Self::Unknown => Bytes::new(),
        }
    }
}

/// A record as it travels: framed, bounded, not yet believed. See [`Verified`].
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    id: RecordId,
    version: Version,
    author: PublicKey,
    gone: bool,
    body: Bytes,
    signature: Signature,
    /// The whole record as it came or was made: forwarded unchanged.
    bytes: Bytes,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gone = if self.gone { " gone" } else { "" };
        write!(f, "{:?}@{}{gone}", self.id, self.version)
    }
}

impl Record {
    /// Which record it is.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        &self.id
    }

    /// Which version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether it says that the thing is no more.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.gone
    }

    /// As it travels.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// From the bytes of the wire.
    ///
    /// There is one way to write a record, and no other is read: what a signature does not cover
    /// could be altered on the way, and two nodes would hold different bytes of one version.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not a record; the body is not looked at yet.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_RECORD {
            return Err(DecodeError::TooLarge("record"));
        }
        let (mut author, mut kind, mut key) = (None, 0, Bytes::new());
        let (mut epoch, mut seq, mut gone) = (0, 0, false);
        let (mut body, mut signature) = (Bytes::new(), None);
        let mut fields = Fields::new(bytes.clone());
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => author = Some(PublicKey::from_bytes(value.array("origin")?)),
                2 => kind = value.int("kind")?,
                3 => key = value.bytes("key", MAX_KEY)?,
                4 => epoch = value.int("epoch")?,
                5 => seq = value.int("seq")?,
                6 => gone = value.int("gone")? != 0,
                7 => body = value.bytes("body", MAX_RECORD)?,
                8 => signature = Some(Signature::from_bytes(value.array("signature")?)),
                _ => return Err(DecodeError::Invalid("record field")),
            }
        }
        let author = author.ok_or(DecodeError::Missing("origin"))?;
        let kind = match u8::try_from(kind) {
            Ok(kind) if kind != 0 => Kind(kind),
            Ok(_) | Err(_) => return Err(DecodeError::Invalid("kind")),
        };
        let record = Self {
            id: RecordId { origin: NodeId::of(&author), kind, key },
            version: Version { epoch: Epoch(epoch), seq: Seq(seq) },
            author,
            gone,
            body,
            signature: signature.ok_or(DecodeError::Missing("signature"))?,
            bytes,
        };
        if record.encode() != record.bytes {
            return Err(DecodeError::Invalid("encoding of a record"));
        }
        Ok(record)
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.body.len() + self.id.key.len() + 140);
        wire::put_bytes(&mut out, 1, self.author.as_bytes());
        wire::put_int(&mut out, 2, u64::from(self.id.kind.0));
        wire::put_bytes(&mut out, 3, &self.id.key);
        wire::put_int(&mut out, 4, self.version.epoch.0);
        wire::put_int(&mut out, 5, self.version.seq.0);
        wire::put_int(&mut out, 6, u64::from(self.gone));
        wire::put_bytes(&mut out, 7, &self.body);
        wire::put_bytes(&mut out, 8, self.signature.as_bytes());
        out.freeze()
    }

    fn sign(
        network: NetworkId,
        author: &dyn Sign,
        (kind, key): (Kind, Bytes),
        version: Version,
        body: Option<Bytes>,
    ) -> Self {
        let key_of = author.public_key();
        let (gone, body) = (body.is_none(), body.unwrap_or_default());
        let id = RecordId { origin: NodeId::of(&key_of), kind, key };
        let message = signed(network, &key_of, &id, version, gone, &body);
        let signature = author.sign(&message);
        let bytes = Bytes::new();
        let record = Self { id, version, author: key_of, gone, body, signature, bytes };
        Self { bytes: record.encode(), ..record }
    }
}

/// The service that a key names.
fn service_name(key: &[u8]) -> Result<ServiceName, DecodeError> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| text.parse::<ServiceName>().ok())
        .filter(|name| name.as_str().as_bytes() == key)
        .ok_or(DecodeError::Invalid("service name"))
}

/// What is signed: everything the record says, with lengths, so that no two records share it.
fn signed(
    network: NetworkId,
    author: &PublicKey,
    id: &RecordId,
    version: Version,
    gone: bool,
    body: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(DOMAIN.len() + 100 + id.key.len() + body.len());
    out.extend_from_slice(DOMAIN);
    out.extend_from_slice(network.as_bytes());
    out.extend_from_slice(author.as_bytes());
    out.push(id.kind.0);
    out.extend_from_slice(&(id.key.len() as u64).to_be_bytes());
    out.extend_from_slice(&id.key);
    out.extend_from_slice(&version.epoch.0.to_be_bytes());
    out.extend_from_slice(&version.seq.0.to_be_bytes());
    out.push(u8::from(gone));
    out.extend_from_slice(body);
    out
}

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Its body is not what its kind promises.
    #[error("the body cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// Its signature is not its origin's, or is for another network.
    #[error("the signature is not the origin's")]
    Forged,
    /// A node record whose grant does not make its origin a member.
    #[error("the origin is not a member: {0}")]
    NotAMember(#[from] Refused),
}

/// A record that its origin certainly wrote, read. The router takes nothing else.
///
/// What is checked here holds for ever; what time or other records may change (the term of the
/// grant, what it covers) is asked again by the router whenever the record is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    record: Record,
    body: Body,
}

impl Verified {
    /// Checks the signature of `record`, reads its body, and for a node record checks the grant in
    /// it. The expensive step of accepting a record: belongs off the router's thread.
    ///
    /// # Errors
    /// [`Rejected`] says why it is not believed.
    pub fn check(
        record: Record,
        network: NetworkId,
        now: UnixTime,
        with: &dyn Verify,
    ) -> Result<Self, Rejected> {
        let Record { id, version, author, gone, body, signature, .. } = &record;
        let message = signed(network, author, id, *version, *gone, body);
        if !with.verify(author, &message, signature) {
            return Err(Rejected::Forged);
        }
        let body = match id.kind {
            _ if *gone => Body::Gone,
            Kind::NODE if id.key.is_empty() => {
                let node = Node::decode(body.clone())?;
                node.credential.check(network, author, now, with)?;
                Body::Node(Box::new(node))
            }
            Kind::ADJACENCY => {
                let neighbour = <[u8; 32]>::try_from(&id.key[..])
                    .map_err(|_| DecodeError::Invalid("neighbour"))?;
                let neighbour = NodeId::from_bytes(neighbour);
                Body::Adjacency(neighbour, Adjacency::decode(body.clone())?)
            }
            Kind::SERVICE => {
                Body::Service(service_name(&id.key)?, Box::new(Service::decode(body.clone())?))
            }
            Kind::RULE => {
                Body::Rules(service_name(&id.key)?, Arc::new(RuleSet::decode(body.clone())?))
            }
            Kind::INTEREST => match id.key[..] {
                [bucket] if bucket < interest::BUCKETS => {
                    Body::Interest(bucket, Arc::new(Interests::decode(body.clone())?))
                }
                _ => return Err(DecodeError::Invalid("bucket").into()),
            },
            Kind::NODE => return Err(DecodeError::Invalid("key of a node record").into()),
            Kind(_) => Body::Unknown,
        };
        Ok(Self { record, body })
    }

    /// A record of this node's own, signed now.
    ///
    /// # Panics
    /// Never for the bodies a node writes; [`Body::Gone`] and [`Body::Unknown`] have no kind of
    /// their own, use [`Verified::tombstone`].
    #[must_use]
    pub fn own(network: NetworkId, author: &dyn Sign, version: Version, body: Body) -> Self {
        let name = body.kind_and_key().expect("only bodies with a kind are written");
        let record = Record::sign(network, author, name, version, Some(body.encode()));
        Self { record, body }
    }

    /// The tombstone of one of this node's own records.
    #[must_use]
    pub fn tombstone(
        network: NetworkId,
        author: &dyn Sign,
        id: &RecordId,
        version: Version,
    ) -> Self {
        let name = (id.kind, id.key.clone());
        Self { record: Record::sign(network, author, name, version, None), body: Body::Gone }
    }

    /// The record as it travels.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Which record it is.
    #[must_use]
    pub fn id(&self) -> &RecordId {
        &self.record.id
    }

    /// Which version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.record.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Cost;
    use crate::testing::{Toy, ToyVerify};

    const ME: Toy = Toy(3);
    const NOW: UnixTime = UnixTime(1_000);

    fn network() -> NetworkId {
        NetworkId::of(&Toy(1).public_key())
    }

    fn service() -> Verified {
        let version = VersionOf {
            version: "latest".into(),
            metadata: [("owner", "ada")].into_iter().collect(),
            endpoints: vec![Endpoint {
                name: "Say.Hello".into(),
                request: Some(ValueType {
                    name: "Req".into(),
                    kind: "HelloRequest".into(),
                    values: vec![ValueType::default()],
                }),
                ..Endpoint::default()
            }],
            instances: vec![Instance {
                id: "greeter-1".into(),
                address: "127.0.0.1:9000".into(),
                protocol: Protocol::Grpc,
                metadata: [("protocol", "grpc")].into_iter().collect(),
            }],
        };
        let body = Service { versions: vec![version] };
        let body = Body::Service("go.micro.srv.greeter".parse().unwrap(), Box::new(body));
        Verified::own(network(), &ME, Version { epoch: Epoch(5), seq: Seq(2) }, body)
    }

    fn arrive(bytes: Bytes) -> Result<Verified, Rejected> {
        Verified::check(Record::decode(bytes)?, network(), NOW, &ToyVerify)
    }

    #[test]
    fn what_one_node_writes_another_reads_whole() {
        assert_eq!(arrive(service().record().bytes().clone()), Ok(service()));
    }

    #[test]
    fn a_tombstone_travels_under_the_same_id() {
        let version = Version { epoch: Epoch(5), seq: Seq(3) };
        let gone = Verified::tombstone(network(), &ME, service().id(), version);
        let arrived = arrive(gone.record().bytes().clone()).unwrap();
        assert_eq!((arrived.id(), arrived.body()), (service().id(), &Body::Gone));
        assert!(arrived.version() > service().version());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let whole = service().record().bytes().clone();
        for at in 0..whole.len() * 8 {
            let mut bytes = whole.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(arrive(bytes.into()).is_err(), "bit {at}");
        }
    }

    #[test]
    fn bytes_that_no_signature_covers_are_refused() {
        let mut padded = BytesMut::from(&service().record().bytes()[..]);
        wire::put_bytes(&mut padded, 9, b"more");
        assert!(Record::decode(padded.freeze()).is_err());
        let mut twice = BytesMut::from(&service().record().bytes()[..]);
        wire::put_int(&mut twice, 5, 2);
        assert!(Record::decode(twice.freeze()).is_err());
    }

    #[test]
    fn a_record_of_another_network_is_forged_here() {
        let elsewhere = NetworkId::of(&Toy(9).public_key());
        let record = service().record().clone();
        let verdict = Verified::check(record, elsewhere, NOW, &ToyVerify);
        assert_eq!(verdict, Err(Rejected::Forged));
    }

    #[test]
    fn kinds_of_newer_releases_are_believed_and_left_unread() {
        let version = Version { epoch: Epoch(1), seq: Seq(1) };
        let name = (Kind(77), Bytes::from_static(b"key"));
        let body = Some(Bytes::from_static(b"?"));
        let record = Record::sign(network(), &ME, name, version, body);
        assert_eq!(*arrive(record.bytes().clone()).unwrap().body(), Body::Unknown);
    }

    #[test]
    fn an_adjacency_names_its_neighbour_in_its_key() {
        let neighbour = NodeId::from_bytes([8; 32]);
        let adjacency = Adjacency { cost: Cost::from_micros(1_500), path: PathKind::Direct };
        let version = Version { epoch: Epoch(1), seq: Seq(1) };
        let own = Verified::own(network(), &ME, version, Body::Adjacency(neighbour, adjacency));
        assert_eq!(arrive(own.record().bytes().clone()), Ok(own));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = arrive(bytes.into());
        }
    }
}
