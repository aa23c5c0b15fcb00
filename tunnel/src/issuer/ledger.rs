//! What a desk remembers.
//!
//! ```text
//! +-------------------+---------------------------------------+------------------+
//! | "micro-ledger-1\n" | kind (varint) length (varint) fields … | BLAKE3 (32 bytes) |
//! +-------------------+---------------------------------------+------------------+
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use proto::grant::{MAX_PATTERNS, Pattern};
use proto::ticket::TicketId;
use proto::wire::{self, Fields};
use proto::{DecodeError, PublicKey, Roles, UnixTime, varint};

use super::Template;

/// Tickets at once.
const MAX_TICKETS: usize = 4096;
/// Members of one issuer.
const MAX_MEMBERS: usize = 100_000;
/// Bytes of a member's name.
pub(super) const MAX_NAME: usize = 128;
/// Seconds a ticket is remembered after its end, so that who asks again hears that it is over.
const REMEMBERED: u64 = 24 * 3600;
/// Seconds a member is remembered after its grant ended.
const MEMBER_REMEMBERED: u64 = 30 * 24 * 3600;

const HEADER: &[u8] = b"micro-ledger-1\n";
const SUM: usize = 32;
const COUNT: u64 = 1;
const TICKET: u64 = 2;
const MEMBER: u64 = 3;

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be read or written.
    #[error("the ledger {path}: {error}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is damaged, or of a newer release.
    #[error("the ledger {path} cannot be read: {error}", path = .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How.
        error: DecodeError,
    },
}

/// A ticket.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) template: Template,
    pub(super) expires: UnixTime,
    pub(super) uses: u32,
    pub(super) used_by: Vec<PublicKey>,
}

/// A member, and its newest grant.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) template: Template,
    pub(super) serial: u64,
    pub(super) not_before: UnixTime,
    pub(super) not_after: UnixTime,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// The number of the last grant.
    pub(super) serial: u64,
    pub(super) tickets: BTreeMap<TicketId, Entry>,
    pub(super) members: BTreeMap<PublicKey, Member>,
}

impl Ledger {
    /// From the file at `path`; empty when there is none.
    pub(super) fn load(path: &Path) -> Result<Self, LedgerError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(LedgerError::File { path: path.to_owned(), error }),
        };
        Self::decode(bytes).map_err(|error| LedgerError::Damaged { path: path.to_owned(), error })
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), LedgerError> {
        crate::durable::replace(path, &self.encode())
            .map_err(|error| LedgerError::File { path: path.to_owned(), error })
    }

    /// Drops what is long over.
    pub(super) fn forget(&mut self, now: UnixTime) {
        self.tickets.retain(|_, ticket| now < ticket.expires.plus(REMEMBERED));
        self.members.retain(|_, member| now < member.not_after.plus(MEMBER_REMEMBERED));
    }

    pub(super) fn has_room_for_ticket(&self) -> bool {
        self.tickets.len() < MAX_TICKETS
    }

    pub(super) fn has_room_for_member(&self, key: &PublicKey) -> bool {
        self.members.len() < MAX_MEMBERS || self.members.contains_key(key)
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::from(HEADER);
        put(&mut out, COUNT, |out| wire::put_int(out, 1, self.serial));
        for (id, ticket) in &self.tickets {
            put(&mut out, TICKET, |out| {
                wire::put_bytes(out, 1, &id.0);
                put_template(out, &ticket.template);
                wire::put_int(out, 6, ticket.expires.0);
                wire::put_int(out, 7, u64::from(ticket.uses));
                let keys: Vec<u8> = ticket.used_by.iter().flat_map(|key| *key.as_bytes()).collect();
                wire::put_bytes(out, 8, &keys);
            });
        }
        for (key, member) in &self.members {
            put(&mut out, MEMBER, |out| {
                wire::put_bytes(out, 1, key.as_bytes());
                put_template(out, &member.template);
                wire::put_bytes(out, 6, member.name.as_bytes());
                wire::put_int(out, 7, member.serial);
                wire::put_int(out, 8, member.not_before.0);
                wire::put_int(out, 9, member.not_after.0);
            });
        }
        let sum = blake3::hash(&out);
        out.extend_from_slice(sum.as_bytes());
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        let at = bytes.len().checked_sub(SUM).ok_or(DecodeError::Truncated("ledger"))?;
        let sum = bytes.split_off(at);
        if blake3::hash(&bytes).as_bytes()[..] != sum[..] || !bytes.starts_with(HEADER) {
            return Err(DecodeError::Invalid("ledger"));
        }
        bytes.advance(HEADER.len());
        let mut ledger = Self::default();
        while !bytes.is_empty() {
            let mut rest = &bytes[..];
            let kind = varint::take(&mut rest).ok_or(DecodeError::Truncated("ledger"))?;
            let length = varint::take(&mut rest).ok_or(DecodeError::Truncated("ledger"))?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if rest.len() < length {
                return Err(DecodeError::Truncated("ledger"));
            }
            bytes.advance(bytes.len() - rest.len());
            ledger.take(kind, bytes.split_to(length))?;
        }
        Ok(ledger)
    }

    fn take(&mut self, kind: u64, body: Bytes) -> Result<(), DecodeError> {
        match kind {
            COUNT => {
                let mut fields = Fields::new(body);
                while let Some((tag, value)) = fields.next()? {
                    match tag {
                        1 => self.serial = value.int("serial")?,
                        tag => wire::unknown(tag)?,
                    }
                }
            }
            TICKET => self.take_ticket(body)?,
            MEMBER => self.take_member(body)?,
            // Not skipped: what a newer release promised must not be forgotten by this one.
            kind => return Err(DecodeError::UnknownCritical(kind)),
        }
        Ok(())
    }

    fn take_ticket(&mut self, body: Bytes) -> Result<(), DecodeError> {
        let (mut id, mut template, mut used_by) = (None, TemplateReader::default(), Vec::new());
        let (mut expires, mut uses) = (0, 0);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => id = Some(TicketId(value.array("ticket id")?)),
                2..=5 => template.take(tag, value)?,
                6 => expires = value.int("expires")?,
                7 => uses = u32::try_from(value.int("uses")?).unwrap_or(u32::MAX),
                8 => {
                    let keys = value.bytes("used by", super::MAX_USES as usize * 32)?;
                    let (keys, _) = keys.as_chunks::<32>();
                    used_by = keys.iter().map(|key| PublicKey::from_bytes(*key)).collect();
                }
                tag => wire::unknown(tag)?,
            }
        }
        let entry = Entry { template: template.done(), expires: UnixTime(expires), uses, used_by };
        self.tickets.insert(id.ok_or(DecodeError::Missing("ticket id"))?, entry);
        Ok(())
    }

    fn take_member(&mut self, body: Bytes) -> Result<(), DecodeError> {
        let (mut key, mut template, mut name) = (None, TemplateReader::default(), String::new());
        let (mut serial, mut not_before, mut not_after) = (0, 0, 0);
        let mut fields = Fields::new(body);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => key = Some(PublicKey::from_bytes(value.array("key")?)),
                2..=5 => template.take(tag, value)?,
                6 => name = value.text("name", MAX_NAME)?,
                7 => serial = value.int("serial")?,
                8 => not_before = value.int("not before")?,
                9 => not_after = value.int("not after")?,
                tag => wire::unknown(tag)?,
            }
        }
        let (not_before, not_after) = (UnixTime(not_before), UnixTime(not_after));
        let member = Member { name, template: template.done(), serial, not_before, not_after };
        self.members.insert(key.ok_or(DecodeError::Missing("key"))?, member);
        Ok(())
    }
}

fn put(out: &mut BytesMut, kind: u64, write: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    write(&mut body);
    varint::put(out, kind);
    varint::put(out, body.len() as u64);
    out.extend_from_slice(&body);
}

/// Fields 2 to 5 of a ticket and of a member.
fn put_template(out: &mut BytesMut, template: &Template) {
    wire::put_int(out, 2, template.roles.bits());
    for pattern in &template.namespaces {
        wire::put_item(out, 3, pattern.as_str().as_bytes());
    }
    for pattern in &template.services {
        wire::put_item(out, 4, pattern.as_str().as_bytes());
    }
    wire::put_int(out, 5, template.life);
}

#[derive(Default)]
struct TemplateReader {
    roles: u64,
    namespaces: Vec<Pattern>,
    services: Vec<Pattern>,
    life: u64,
}

impl TemplateReader {
    fn take(&mut self, tag: u64, value: wire::Value) -> Result<(), DecodeError> {
        let list = match tag {
            2 => {
                self.roles = value.int("roles")?;
                return Ok(());
            }
            3 => &mut self.namespaces,
            4 => &mut self.services,
            _ => {
                self.life = value.int("life")?;
                return Ok(());
            }
        };
        if list.len() == MAX_PATTERNS {
            return Err(DecodeError::TooLarge("patterns"));
        }
        list.push(Pattern::new(value.text("pattern", proto::name::MAX_NAME)?)?);
        Ok(())
    }

    fn done(self) -> Template {
        Template {
            roles: Roles::from_bits(self.roles),
            namespaces: self.namespaces,
            services: self.services,
            life: self.life,
        }
    }
}
