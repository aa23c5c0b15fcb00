//! What a node says about the instances of one service that it offers.
//!
//! The shape is go-micro's (a service has versions, a version has endpoints and nodes), so that
//! what a program registers at one node is read back whole at another.

use bytes::{Bytes, BytesMut};

use crate::error::DecodeError;
use crate::label::{self, LabelSet};
use crate::wire::{self, Fields, Value};

/// Versions of one service at one node.
pub const MAX_VERSIONS: usize = 32;
/// Instances of one version at one node.
pub const MAX_INSTANCES: usize = 1024;
/// Endpoints of one version.
pub const MAX_ENDPOINTS: usize = 512;
/// How deep the description of a request may nest.
pub const MAX_DEPTH: usize = 8;

/// The instances of one service at the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// By version; each version once.
    pub versions: Vec<VersionOf>,
}

/// One version of a service at the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionOf {
    /// As the program names it: `latest`, `v2`, `1.4.0`.
    pub version: String,
    /// What the program says of this version.
    pub metadata: LabelSet,
    /// What can be called on it.
    pub endpoints: Vec<Endpoint>,
    /// Who serves it.
    pub instances: Vec<Instance>,
}

/// One address that serves a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique among the instances of the service.
    pub id: String,
    /// `host:port` as the origin dials it; for others it is only shown.
    pub address: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// What the program says of this instance.
    pub metadata: LabelSet,
}

/// What an instance speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// gRPC over clear-text HTTP/2 with prior knowledge.
    Grpc,
    /// HTTP/1.1.
    Http1,
    /// Clear-text HTTP/2 with prior knowledge.
    Http2,
    /// go-micro's own: HTTP/1.1 messages that name service and endpoint in headers.
    Mucp,
    /// Bytes both ways over TCP, whatever they mean.
    Tcp,
    /// TLS over TCP, which only the program itself can open.
    Tls,
    /// Packets both ways over UDP, whatever they mean.
    Udp,
    /// A protocol this release does not deliver; the number of the wire.
    Other(u64),
}

impl Protocol {
    /// The word for it in labels, tables and metadata.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http1 => "http",
            Self::Http2 => "http2",
            Self::Mucp => "mucp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
            Self::Other(_) => "other",
        }
    }

    const fn code(self) -> u64 {
        match self {
            Self::Grpc => 1,
            Self::Http1 => 2,
            Self::Http2 => 3,
            Self::Mucp => 4,
            Self::Tcp => 5,
            Self::Udp => 6,
            Self::Tls => 7,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Grpc,
            2 => Self::Http1,
            3 => Self::Http2,
            4 => Self::Mucp,
            5 => Self::Tcp,
            6 => Self::Udp,
            7 => Self::Tls,
            code => Self::Other(code),
        }
    }
}

/// One thing that can be called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `Struct.Method`, or for HTTP what the program makes of it.
    pub name: String,
    /// The shape of the request, if known.
    pub request: Option<ValueType>,
    /// The shape of the response, if known.
    pub response: Option<ValueType>,
    /// `stream=true` for streams, and what else the program says.
    pub metadata: LabelSet,
}

/// The shape of a value: a name, a type, and what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueType {
    /// The name of the field or message.
    pub name: String,
    /// The type, as the program's language calls it.
    pub kind: String,
    /// Its fields.
    pub values: Vec<ValueType>,
}

impl Service {
    /// Whether every node would read it: nothing in it is beyond a bound.
    ///
    /// # Errors
    /// [`DecodeError`] says what is.
    pub fn check(&self) -> Result<(), DecodeError> {
        Self::decode(self.encode()).map(drop)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        for version in &self.versions {
            wire::put_message(&mut out, 1, |out| version.encode(out));
        }
        out.freeze()
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut versions = Vec::new();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => push(&mut versions, MAX_VERSIONS, VersionOf::decode(message(value)?)?)?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(Self { versions })
    }
}

impl VersionOf {
    fn encode(&self, out: &mut BytesMut) {
        wire::put_bytes(out, 1, self.version.as_bytes());
        put_labels(out, 2, &self.metadata);
        for endpoint in &self.endpoints {
            wire::put_message(out, 3, |out| endpoint.encode(out));
        }
        for instance in &self.instances {
            wire::put_message(out, 4, |out| instance.encode(out));
        }
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut version = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => version.version = value.text("version", 128)?,
                2 => version.metadata = label::read(message(value)?)?,
                3 => {
                    let endpoint = Endpoint::decode(message(value)?)?;
                    push(&mut version.endpoints, MAX_ENDPOINTS, endpoint)?;
                }
                4 => {
                    let instance = Instance::decode(message(value)?)?;
                    push(&mut version.instances, MAX_INSTANCES, instance)?;
                }
                tag => wire::unknown(tag)?,
            }
        }
        Ok(version)
    }
}

impl Instance {
    fn encode(&self, out: &mut BytesMut) {
        wire::put_bytes(out, 1, self.id.as_bytes());
        wire::put_bytes(out, 2, self.address.as_bytes());
        wire::put_int(out, 3, self.protocol.code());
        put_labels(out, 4, &self.metadata);
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let (mut id, mut address) = (String::new(), String::new());
        let (mut protocol, mut metadata) = (0, LabelSet::default());
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => id = value.text("instance id", 512)?,
                2 => address = value.text("instance address", 300)?,
                3 => protocol = value.int("protocol")?,
                4 => metadata = label::read(message(value)?)?,
                tag => wire::unknown(tag)?,
            }
        }
        if id.is_empty() {
            return Err(DecodeError::Missing("instance id"));
        }
        Ok(Self { id, address, protocol: Protocol::from_code(protocol), metadata })
    }
}

impl Endpoint {
    fn encode(&self, out: &mut BytesMut) {
        wire::put_bytes(out, 1, self.name.as_bytes());
        for (tag, value) in [(2, &self.request), (3, &self.response)] {
            if let Some(value) = value {
                wire::put_message(out, tag, |out| value.encode(out));
            }
        }
        put_labels(out, 4, &self.metadata);
    }

    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        let mut endpoint = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => endpoint.name = value.text("endpoint", 512)?,
                2 => endpoint.request = Some(ValueType::decode(message(value)?, MAX_DEPTH)?),
                3 => endpoint.response = Some(ValueType::decode(message(value)?, MAX_DEPTH)?),
                4 => endpoint.metadata = label::read(message(value)?)?,
                tag => wire::unknown(tag)?,
            }
        }
        Ok(endpoint)
    }
}

impl ValueType {
    fn encode(&self, out: &mut BytesMut) {
        wire::put_bytes(out, 1, self.name.as_bytes());
        wire::put_bytes(out, 2, self.kind.as_bytes());
        for value in &self.values {
            wire::put_message(out, 3, |out| value.encode(out));
        }
    }

    fn decode(body: Bytes, depth: usize) -> Result<Self, DecodeError> {
        let depth = depth.checked_sub(1).ok_or(DecodeError::TooLarge("nesting"))?;
        let mut value_type = Self::default();
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => value_type.name = value.text("value name", 256)?,
                2 => value_type.kind = value.text("value type", 256)?,
                3 => {
                    let inner = Self::decode(message(value)?, depth)?;
                    push(&mut value_type.values, MAX_ENDPOINTS, inner)?;
                }
                tag => wire::unknown(tag)?,
            }
        }
        Ok(value_type)
    }
}

fn message(value: Value) -> Result<Bytes, DecodeError> {
    value.bytes("message", super::MAX_RECORD)
}

fn put_labels(out: &mut BytesMut, tag: u64, labels: &LabelSet) {
    if !labels.is_empty() {
        wire::put_message(out, tag, |out| labels.put(out, 1));
    }
}

fn push<T>(list: &mut Vec<T>, max: usize, item: T) -> Result<(), DecodeError> {
    if list.len() == max {
        return Err(DecodeError::TooLarge("list"));
    }
    list.push(item);
    Ok(())
}
