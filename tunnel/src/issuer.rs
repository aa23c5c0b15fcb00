//! The desk: where tickets are made and grants are given.
//!
//! What a ticket promises is written down before it is kept: a ledger that could not be made
//! durable gives no grant and leaves the ticket as it was. The ledger holds no secret. That of a
//! ticket is derived from the issuer's key and the ticket's number, so whoever steals the file
//! can join nothing.

mod ledger;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use proto::grant::{Grant, Issuer, Pattern};
use proto::join::{Answer, BINDING, JoinRequest, Refusal, proof};
use proto::ticket::{MAX_SEEDS, Secret, Ticket, TicketId};
use proto::{Credential, NodeId, PublicKey, Roles, UnixTime};

pub use ledger::LedgerError;
use ledger::{Entry, Ledger, Member};

use crate::identity::{Keypair, random};

/// Seconds a grant holds: an issuer may be away for days and no member notices.
pub const GRANT_LIFE: u64 = 72 * 3600;
/// Seconds a grant is dated back, for clocks that differ.
pub const BACKDATED: u64 = 300;
/// The part of its life, one in so many, for which a grant is new and is not replaced.
const FRESH: u64 = 20;
/// Uses of one ticket.
pub const MAX_USES: u32 = 10_000;
/// What the secrets of tickets are derived for.
const SECRET: &str = "micro network 2026 ticket secret";

/// What a grant allows, before it is anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Roles beyond calling and being called.
    pub roles: Roles,
    /// Namespaces to call in and offer in.
    pub namespaces: Vec<Pattern>,
    /// Names it may offer there; empty: none.
    pub services: Vec<Pattern>,
    /// Seconds each grant holds.
    pub life: u64,
}

impl Template {
    /// Calls and offers anything in every namespace, relays nothing.
    #[must_use]
    pub fn member() -> Self {
        Self {
            roles: Roles::NONE,
            namespaces: vec![Pattern::any()],
            services: vec![Pattern::any()],
            life: GRANT_LIFE,
        }
    }
}

/// A ticket, as its issuer remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketInfo {
    /// Its number.
    pub id: TicketId,
    /// What it grants.
    pub template: Template,
    /// From when on it is worthless.
    pub expires: UnixTime,
    /// How often it could be used.
    pub uses: u32,
    /// Who used it, in the order in which they did.
    pub used_by: Vec<NodeId>,
}

/// A member this desk has given a grant to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// The node.
    pub node: NodeId,
    /// The name it asked to go by.
    pub name: String,
    /// What it was granted.
    pub template: Template,
    /// The number of its newest grant.
    pub serial: u64,
    /// The end of its newest grant.
    pub expires: UnixTime,
}

/// Why no ticket was made.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// It could not be written down.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// More uses than [`MAX_USES`], or none.
    #[error("a ticket can be used 1 to {MAX_USES} times")]
    Uses,
    /// Every ticket that the ledger has room for is still good.
    #[error("there are too many tickets that are not used yet")]
    TooMany,
}

/// The issuer of a network, at one node.
#[derive(Debug)]
pub struct Desk {
    issuer: Issuer,
    key: Arc<Keypair>,
    network_name: String,
    node: NodeId,
    path: PathBuf,
    ledger: Mutex<Ledger>,
}

impl Desk {
    /// A desk that signs with `key`, which the root appointed by `issuer`, and remembers in the
    /// file at `path`. Tickets are to be redeemed at the node `node`.
    ///
    /// # Errors
    /// [`LedgerError`] when there is a ledger that cannot be read: what it promised would be
    /// forgotten.
    pub fn open(
        issuer: Issuer,
        key: Arc<Keypair>,
        network_name: impl Into<String>,
        node: NodeId,
        path: &Path,
    ) -> Result<Self, LedgerError> {
        let ledger = Mutex::new(Ledger::load(path)?);
        let network_name = network_name.into();
        Ok(Self { issuer, key, network_name, node, path: path.to_owned(), ledger })
    }

    /// Makes a ticket for `uses` nodes that holds for `ttl` seconds. Waits for the disk.
    ///
    /// # Errors
    /// [`InviteError`] says why there is none.
    pub fn invite(
        &self,
        template: Template,
        ttl: u64,
        uses: u32,
        seeds: Vec<String>,
        now: UnixTime,
    ) -> Result<Ticket, InviteError> {
        if uses == 0 || uses > MAX_USES {
            return Err(InviteError::Uses);
        }
        let id = TicketId(random());
        let expires = now.plus(ttl);
        let mut ledger = self.ledger.lock();
        let mut next = ledger.clone();
        next.forget(now);
        if !next.has_room_for_ticket() {
            return Err(InviteError::TooMany);
        }
        next.tickets.insert(id, Entry { template, expires, uses, used_by: Vec::new() });
        next.save(&self.path)?;
        *ledger = next;
        drop(ledger);
        Ok(Ticket {
            network_name: self.network_name.clone(),
            network: self.issuer.network(),
            issuer: self.node,
            seeds: seeds.into_iter().take(MAX_SEEDS).collect(),
            id,
            secret: self.secret(id),
            expires,
        })
    }

    /// Withdraws a ticket: who used it stays a member. Whether there was one. Waits for the disk.
    ///
    /// # Errors
    /// [`LedgerError`] when it could not be written down; the ticket is then still good.
    pub fn withdraw(&self, id: TicketId) -> Result<bool, LedgerError> {
        let mut ledger = self.ledger.lock();
        let mut next = ledger.clone();
        let there = next.tickets.remove(&id).is_some();
        if there {
            next.save(&self.path)?;
            *ledger = next;
        }
        Ok(there)
    }

    /// Gives a grant to whoever holds `key` and has proven a ticket in the session of `binding`.
    /// The same key gets the same grant again, as often as it asks. Waits for the disk.
    #[must_use]
    pub fn redeem(
        &self,
        request: &JoinRequest,
        key: PublicKey,
        binding: &[u8; BINDING],
        now: UnixTime,
    ) -> Answer {
        match self.try_redeem(request, key, binding, now) {
            Ok(credential) => Answer::Granted(Box::new(credential)),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn try_redeem(
        &self,
        request: &JoinRequest,
        key: PublicKey,
        binding: &[u8; BINDING],
        now: UnixTime,
    ) -> Result<Credential, Refusal> {
        let expected = proof(&self.secret(request.ticket), binding);
        // Compared as hashes are, in constant time.
        if blake3::Hash::from(expected) != blake3::Hash::from(request.proof) {
            return Err(Refusal::Unknown);
        }
        let mut ledger = self.ledger.lock();
        let ticket = ledger.tickets.get(&request.ticket).ok_or(Refusal::Unknown)?;
        if ticket.used_by.contains(&key)
            && let Some(member) = ledger.members.get(&key)
            && now < member.not_after
        {
            return Ok(self.sign(key, member));
        }
        if now >= ticket.expires {
            return Err(Refusal::Expired);
        }
        let again = ticket.used_by.contains(&key);
        if !again && ticket.used_by.len() >= ticket.uses as usize {
            return Err(Refusal::Spent);
        }
        let template = ticket.template.clone();
        let mut next = ledger.clone();
        let credential = self.grant(&mut next, key, &request.name, template, now)?;
        if !again && let Some(ticket) = next.tickets.get_mut(&request.ticket) {
            ticket.used_by.push(key);
        }
        self.keep(&mut ledger, next)?;
        Ok(credential)
    }

    /// Gives a grant to a node that needs no ticket: the first of its network, which is also the
    /// one that asks. Waits for the disk.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when it could not be written down.
    pub fn enrol(
        &self,
        key: PublicKey,
        name: &str,
        template: Template,
        now: UnixTime,
    ) -> Result<Credential, Refusal> {
        let mut ledger = self.ledger.lock();
        let mut next = ledger.clone();
        let credential = self.grant(&mut next, key, name, template, now)?;
        self.keep(&mut ledger, next)?;
        Ok(credential)
    }

    /// Gives a member that holds `held`, checked already, a newer grant of the same sort; the
    /// same one again while it is new. Waits for the disk.
    #[must_use]
    pub fn renew(&self, held: &Credential, now: UnixTime) -> Answer {
        match self.try_renew(held, now) {
            Ok(credential) => Answer::Granted(Box::new(credential)),
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn try_renew(&self, held: &Credential, now: UnixTime) -> Result<Credential, Refusal> {
        let key = held.grant().key;
        let mut ledger = self.ledger.lock();
        let member = ledger.members.get(&key).ok_or(Refusal::NotRenewed)?;
        // One that was hardly used is given again: nobody makes this node write all the time.
        let age = now.seconds_after(member.not_before).saturating_sub(BACKDATED);
        if age < member.template.life / FRESH {
            return Ok(self.sign(key, member));
        }
        let (name, template) = (member.name.clone(), member.template.clone());
        let mut next = ledger.clone();
        let credential = self.grant(&mut next, key, &name, template, now)?;
        self.keep(&mut ledger, next)?;
        Ok(credential)
    }

    /// Forgets a member: its grant is not renewed any more. Whether it was one. Waits for the
    /// disk.
    ///
    /// # Errors
    /// [`LedgerError`] when it could not be written down.
    pub fn dismiss(&self, node: NodeId) -> Result<bool, LedgerError> {
        let mut ledger = self.ledger.lock();
        let mut next = ledger.clone();
        next.members.retain(|key, _| NodeId::of(key) != node);
        let there = next.members.len() < ledger.members.len();
        if there {
            next.save(&self.path)?;
            *ledger = next;
        }
        Ok(there)
    }

    /// The tickets that are remembered, by number.
    #[must_use]
    pub fn list(&self) -> Vec<TicketInfo> {
        let ledger = self.ledger.lock();
        let info = |(id, entry): (&TicketId, &Entry)| TicketInfo {
            id: *id,
            template: entry.template.clone(),
            expires: entry.expires,
            uses: entry.uses,
            used_by: entry.used_by.iter().map(NodeId::of).collect(),
        };
        ledger.tickets.iter().map(info).collect()
    }

    /// The members that were given a grant here, by key.
    #[must_use]
    pub fn members(&self) -> Vec<MemberInfo> {
        let ledger = self.ledger.lock();
        let info = |(key, member): (&PublicKey, &Member)| MemberInfo {
            node: NodeId::of(key),
            name: member.name.clone(),
            template: member.template.clone(),
            serial: member.serial,
            expires: member.not_after.min(self.issuer.not_after()),
        };
        ledger.members.iter().map(info).collect()
    }

    /// The network it issues for.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    fn secret(&self, id: TicketId) -> Secret {
        Secret(self.key.derive(SECRET, &id.0))
    }

    fn grant(
        &self,
        ledger: &mut Ledger,
        key: PublicKey,
        name: &str,
        template: Template,
        now: UnixTime,
    ) -> Result<Credential, Refusal> {
        ledger.forget(now);
        if !ledger.has_room_for_member(&key) {
            return Err(Refusal::Unavailable);
        }
        ledger.serial += 1;
        let end = name.floor_char_boundary(ledger::MAX_NAME);
        let member = Member {
            name: name[..end].to_owned(),
            serial: ledger.serial,
            not_before: UnixTime(now.0.saturating_sub(BACKDATED)),
            not_after: now.plus(template.life),
            template,
        };
        let credential = self.sign(key, &member);
        ledger.members.insert(key, member);
        Ok(credential)
    }

    fn sign(&self, key: PublicKey, member: &Member) -> Credential {
        let grant = Grant {
            network: self.issuer.network(),
            key,
            network_name: self.network_name.clone(),
            roles: member.template.roles,
            namespaces: member.template.namespaces.clone(),
            services: member.template.services.clone(),
            serial: member.serial,
            epoch: 0,
            not_before: member.not_before,
            not_after: member.not_after,
        };
        self.issuer.issue(&*self.key, &grant)
    }

    /// Makes `next` durable, and only then true.
    fn keep(&self, ledger: &mut Ledger, next: Ledger) -> Result<(), Refusal> {
        next.save(&self.path).map_err(|error| {
            tracing::warn!(%error, "no grant is given: it could not be written down");
            Refusal::Unavailable
        })?;
        *ledger = next;
        Ok(())
    }
}
