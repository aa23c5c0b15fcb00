//! Tickets: one string that lets a node ask an issuer for its first grant.
//!
//! ```text
//! mj1 base32( fields (see wire) | first 4 bytes of BLAKE3 over the fields )
//! ```
//!
//! A ticket names the network by the hash of its root and the issuer by the hash of its key, so the
//! joiner knows whom it talks to before it says anything. The secret is one-time; whoever holds
//! the text can join once, so it is never logged and its `Debug` shows nothing of it.

use std::fmt;
use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::id::{NetworkId, NodeId, base32};
use crate::time::UnixTime;
use crate::wire::{self, Fields};

/// What every ticket begins with.
pub const PREFIX: &str = "mj1";
/// The longest ticket, in characters.
pub const MAX_TICKET: usize = 4096;
/// Addresses in one ticket.
pub const MAX_SEEDS: usize = 16;

/// The one-time secret of a ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The number of a ticket at its issuer: 128 bits, not secret, shown as `inv-` and six characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 16]);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inv-{}", &base32().encode(&self.0)[..6])
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Everything a joiner needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The name of the network, for people.
    pub network_name: String,
    /// The network: hash of its root key.
    pub network: NetworkId,
    /// The node that issued it, and alone can redeem it.
    pub issuer: NodeId,
    /// Where that node may be reached: `host:port`, host a name or an address.
    pub seeds: Vec<String>,
    /// Its number at the issuer.
    pub id: TicketId,
    /// What proves possession.
    pub secret: Secret,
    /// The second from which it is worthless.
    pub expires: UnixTime,
}

/// Why a text is not a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// It does not begin with [`PREFIX`].
    #[error("a ticket begins with {PREFIX}")]
    NotATicket,
    /// A character is missing, added or altered.
    #[error("the ticket is damaged: a character is missing, added or altered")]
    Damaged,
    /// Longer than [`MAX_TICKET`].
    #[error("a ticket has at most {MAX_TICKET} characters")]
    TooLong,
    /// Made by a newer release in a form that this one must not guess at.
    #[error("the ticket was made by a newer release")]
    Newer,
}

impl Ticket {
    /// The text. Deliberately not `Display`: whoever writes a ticket out means to.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = BytesMut::new();
        wire::put_bytes(&mut out, 1, self.network_name.as_bytes());
        wire::put_bytes(&mut out, 2, self.network.as_bytes());
        wire::put_bytes(&mut out, 3, self.issuer.as_bytes());
        for seed in &self.seeds {
            wire::put_item(&mut out, 4, seed.as_bytes());
        }
        wire::put_bytes(&mut out, 5, &self.id.0);
        wire::put_bytes(&mut out, 6, &self.secret.0);
        wire::put_int(&mut out, 7, self.expires.0);
        let sum = blake3::hash(&out);
        out.extend_from_slice(&sum.as_bytes()[..4]);
        format!("{PREFIX}{}", base32().encode(&out))
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim();
        if text.len() > MAX_TICKET {
            return Err(BadTicket::TooLong);
        }
        let body = text.strip_prefix(PREFIX).ok_or(BadTicket::NotATicket)?;
        let mut bytes = base32().decode(body.as_bytes()).map_err(|_| BadTicket::Damaged)?;
        let at = bytes.len().checked_sub(4).ok_or(BadTicket::Damaged)?;
        let sum = bytes.split_off(at);
        if blake3::hash(&bytes).as_bytes()[..4] != sum[..] {
            return Err(BadTicket::Damaged);
        }
        // The sum matched, so what does not parse now was not damaged on its way: it is newer.
        parse(Bytes::from(bytes)).map_err(|_| BadTicket::Newer)
    }
}

fn parse(bytes: Bytes) -> Result<Ticket, crate::DecodeError> {
    use crate::DecodeError::{Missing, TooLarge};
    let (mut network_name, mut network, mut issuer) = (String::new(), None, None);
    let (mut seeds, mut id, mut secret, mut expires) = (Vec::new(), None, None, 0);
    let mut fields = Fields::new(bytes);
    while let Some((tag, value)) = fields.next()? {
        match tag {
            1 => network_name = value.text("network name", 128)?,
            2 => network = Some(NetworkId::from_bytes(value.array("network")?)),
            3 => issuer = Some(NodeId::from_bytes(value.array("issuer")?)),
            4 if seeds.len() == MAX_SEEDS => return Err(TooLarge("seeds")),
            4 => seeds.push(value.text("seed", 300)?),
            5 => id = Some(TicketId(value.array("ticket id")?)),
            6 => secret = Some(Secret(value.array("secret")?)),
            7 => expires = value.int("expires")?,
            tag => wire::unknown(tag)?,
        }
    }
    Ok(Ticket {
        network_name,
        network: network.ok_or(Missing("network"))?,
        issuer: issuer.ok_or(Missing("issuer"))?,
        seeds,
        id: id.ok_or(Missing("ticket id"))?,
        secret: secret.ok_or(Missing("secret"))?,
        expires: UnixTime(expires),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            network_name: "acme".into(),
            network: NetworkId::from_bytes([1; 32]),
            issuer: NodeId::from_bytes([2; 32]),
            seeds: vec!["192.0.2.1:8085".into(), "gate.acme.example:8085".into()],
            id: TicketId([3; 16]),
            secret: Secret([4; 32]),
            expires: UnixTime(1_900_000_000),
        }
    }

    #[test]
    fn a_ticket_is_read_back_from_its_text_with_space_around_it() {
        assert_eq!(format!("  {}\n", ticket().to_text()).parse(), Ok(ticket()));
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let text = ticket().to_text();
        for at in PREFIX.len()..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(altered.parse::<Ticket>(), Err(BadTicket::Damaged), "at {at}");
        }
    }

    #[test]
    fn the_secret_is_not_in_the_debug_text() {
        assert!(!format!("{:?}", ticket()).contains("4, 4"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in "mj1[a-z2-7]{0,200}") {
            let _ = text.parse::<Ticket>();
        }
    }
}
