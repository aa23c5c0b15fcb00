//! What stands before a payload: who published it, for whom it is here, and who else is to get it.
//!
//! ```text
//! flags (1 byte)   1 the sender passes it on for an origin   2 for every plain subscriber
//!                  4 answers are waited for
//! origin (32)      where the sender is not the origin
//! epoch (varint) | way (varint)
//! groups           count (varint), names as text: of each, one subscriber here
//! onward           count (varint), then each: node | way (varint) | flags (1 byte) | groups
//! namespace | topic | reply, where answers are waited for | headers        as text
//!
//! text   length (varint) | bytes
//! node   its number on this stream (varint); a number that is new is followed by its id (32)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Headers;
use super::headers::MAX_HEADERS;
use crate::error::DecodeError;
use crate::id::NodeId;
use crate::name::MAX_NAME;
use crate::time::Epoch;
use crate::topic::{MAX_GROUP, MAX_TOPIC, QueueGroup, Topic};
use crate::varint;

/// Bytes of a head.
pub const MAX_HEAD: usize = 384 * 1024;
/// Nodes a message is passed on to by the node that gets it.
pub const MAX_ONWARD: usize = 4096;
/// Queue groups of one node that one message is for.
pub const MAX_GROUPS: usize = 256;
/// Nodes that have a number on one stream; those after them are named each time.
const MAX_KNOWN: usize = 4096;

const PASSED_ON: u8 = 1;
const PLAIN: u8 = 2;
const REPLY: u8 = 4;

/// For whom a message is at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Every subscriber that is in no queue group.
    pub plain: bool,
    /// One subscriber of each of these groups.
    pub groups: Vec<QueueGroup>,
}

/// A node that is to get the message from the one it is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Onward {
    /// Which.
    pub node: NodeId,
    /// See [`Head::way`].
    pub way: u64,
    /// For whom it is there.
    pub to: Delivery,
}

/// Everything of a message but its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where it was published; `None`: at the node that sends it.
    pub origin: Option<NodeId>,
    /// Which life of the origin.
    pub epoch: Epoch,
    /// Which of its ways to this node the origin chose: the later choice is the higher. What comes
    /// by an older way after a newer one was used came too late, and is dropped: it may be out of
    /// order.
    pub way: u64,
    /// For whom it is.
    pub to: Delivery,
    /// Who gets it from there; nobody where `origin` is somebody: it is passed on once.
    pub onward: Vec<Onward>,
    /// The namespace of the topic; empty for the default one.
    pub namespace: Arc<str>,
    /// What it was published to.
    pub topic: Topic,
    /// Where an answer is waited for.
    pub reply: Option<Topic>,
    /// Its headers.
    pub headers: Headers,
}

/// The nodes that have a number on one stream, at either end.
#[derive(Debug, Default)]
pub struct Known {
    numbers: BTreeMap<NodeId, usize>,
    nodes: Vec<NodeId>,
}

impl Known {
    fn put(&mut self, out: &mut BytesMut, node: &NodeId) {
        if let Some(number) = self.numbers.get(node) {
            return varint::put(out, *number as u64);
        }
        varint::put(out, self.nodes.len() as u64);
        out.extend_from_slice(node.as_bytes());
        self.learn(*node);
    }

    fn learn(&mut self, node: NodeId) {
        if self.nodes.len() < MAX_KNOWN {
            self.numbers.insert(node, self.nodes.len());
            self.nodes.push(node);
        }
    }

    fn take(&mut self, body: &mut Bytes) -> Result<NodeId, DecodeError> {
        let number = usize::try_from(integer(body)?).unwrap_or(usize::MAX);
        if let Some(node) = self.nodes.get(number) {
            return Ok(*node);
        }
        if number > self.nodes.len() {
            return Err(DecodeError::Invalid("number of a node"));
        }
        let node = id(body)?;
        self.learn(node);
        Ok(node)
    }
}

impl Head {
    pub(super) fn encode(&self, out: &mut BytesMut, known: &mut Known) {
        let passed_on = if self.origin.is_some() { PASSED_ON } else { 0 };
        let reply = if self.reply.is_some() { REPLY } else { 0 };
        out.put_u8(passed_on | reply | plain(&self.to));
        if let Some(origin) = &self.origin {
            out.extend_from_slice(origin.as_bytes());
        }
        varint::put(out, self.epoch.0);
        varint::put(out, self.way);
        put_groups(out, &self.to);
        varint::put(out, self.onward.len() as u64);
        for onward in &self.onward {
            known.put(out, &onward.node);
            varint::put(out, onward.way);
            out.put_u8(plain(&onward.to));
            put_groups(out, &onward.to);
        }
        put_text(out, self.namespace.as_bytes());
        put_text(out, self.topic.bytes());
        if let Some(reply) = &self.reply {
            put_text(out, reply.bytes());
        }
        put_text(out, self.headers.bytes());
    }

    pub(super) fn decode(mut body: Bytes, known: &mut Known) -> Result<Self, DecodeError> {
        if body.len() > MAX_HEAD {
            return Err(DecodeError::TooLarge("head"));
        }
        let flags = byte(&mut body)?;
        let origin = if flags & PASSED_ON != 0 { Some(id(&mut body)?) } else { None };
        let (epoch, way) = (Epoch(integer(&mut body)?), integer(&mut body)?);
        let to = Delivery { plain: flags & PLAIN != 0, groups: groups(&mut body)? };
        let count = integer(&mut body)?;
        if count > MAX_ONWARD as u64 || (count > 0 && origin.is_some()) {
            return Err(DecodeError::Invalid("nodes to pass it on to"));
        }
        let mut onward = Vec::new();
        for _ in 0..count {
            let (node, way) = (known.take(&mut body)?, integer(&mut body)?);
            let flags = byte(&mut body)?;
            let to = Delivery { plain: flags & PLAIN != 0, groups: groups(&mut body)? };
            onward.push(Onward { node, way, to });
        }
        let namespace = text(&mut body, MAX_NAME)?;
        let namespace = std::str::from_utf8(&namespace);
        let namespace = namespace.map_err(|_| DecodeError::Invalid("namespace"))?.into();
        let topic = topic(&mut body)?;
        let reply = if flags & REPLY != 0 { Some(self::topic(&mut body)?) } else { None };
        let headers = Headers::decode(text(&mut body, MAX_HEADERS)?)?;
        if !body.is_empty() {
            return Err(DecodeError::Invalid("end of a head"));
        }
        Ok(Self { origin, epoch, way, to, onward, namespace, topic, reply, headers })
    }
}

fn plain(to: &Delivery) -> u8 {
    if to.plain { PLAIN } else { 0 }
}

fn put_groups(out: &mut BytesMut, to: &Delivery) {
    varint::put(out, to.groups.len() as u64);
    for group in &to.groups {
        put_text(out, group.bytes());
    }
}

fn groups(body: &mut Bytes) -> Result<Vec<QueueGroup>, DecodeError> {
    let count = integer(body)?;
    if count > MAX_GROUPS as u64 {
        return Err(DecodeError::TooLarge("queue groups"));
    }
    let mut groups = Vec::new();
    for _ in 0..count {
        let name = QueueGroup::new(text(body, MAX_GROUP)?);
        groups.push(name.map_err(|_| DecodeError::Invalid("queue group"))?);
    }
    Ok(groups)
}

fn topic(body: &mut Bytes) -> Result<Topic, DecodeError> {
    Topic::new(text(body, MAX_TOPIC)?).map_err(|_| DecodeError::Invalid("topic"))
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn text(body: &mut Bytes, most: usize) -> Result<Bytes, DecodeError> {
    let length = usize::try_from(integer(body)?).unwrap_or(usize::MAX);
    if length > most {
        return Err(DecodeError::TooLarge("text"));
    }
    if length > body.len() {
        return Err(DecodeError::Truncated("head"));
    }
    Ok(body.split_to(length))
}

fn integer(body: &mut Bytes) -> Result<u64, DecodeError> {
    super::take(body)
}

fn byte(body: &mut Bytes) -> Result<u8, DecodeError> {
    if body.is_empty() {
        return Err(DecodeError::Truncated("head"));
    }
    Ok(body.get_u8())
}

fn id(body: &mut Bytes) -> Result<NodeId, DecodeError> {
    if body.len() < 32 {
        return Err(DecodeError::Truncated("node"));
    }
    let mut id = [0; 32];
    body.copy_to_slice(&mut id);
    Ok(NodeId::from_bytes(id))
}
