//! The joiner's side of a ticket: one question to its issuer, one answer.

use std::net::SocketAddr;

use bytes::BytesMut;
use proto::frame::Hello;
use proto::grant::Refused;
use proto::join::{Answer, JoinRequest, MAX_MESSAGE, Refusal, proof};
use proto::open::{Open, OpenKind};
use proto::sign::Sign;
use proto::{Credential, Epoch, Ticket};

use crate::close::Close;
use crate::config::Limits;
use crate::dial::{DialError, race};
use crate::endpoint::Error;
use crate::greet;
use crate::identity::{Ed25519, Keypair};
use crate::quic::Quic;
use crate::seeds::{self, SeedError};
use crate::stream::{StreamError, read_all, write_all};
use crate::transport::{Connection, Transport};

/// Why a ticket did not make this node a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is past its end by the clock of this node: nobody was asked.
    #[error("the ticket has expired")]
    Expired,
    /// There is no network here.
    #[error(transparent)]
    Bind(#[from] Error),
    /// None of its addresses could be found.
    #[error("the ticket's addresses: {0}")]
    Seeds(#[from] SeedError),
    /// The issuer was not reached at any of its addresses.
    #[error("the issuer of the ticket cannot be reached: {0}")]
    Unreachable(#[from] DialError),
    /// Whoever answered is not of the network of the ticket. Nothing was said to it.
    #[error("who answers is not of the ticket's network: {0}")]
    Stranger(Close),
    /// The issuer refused the ticket.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The grant that came is not valid.
    #[error("the grant that came is not valid: {0}")]
    BadGrant(Refused),
    /// The link ended early.
    #[error("the issuer broke off: {0}")]
    Broken(StreamError),
    /// The issuer closed the link.
    #[error("the issuer closed the link: {0}")]
    Closed(Close),
    /// What came is not an answer.
    #[error("the issuer's answer cannot be read")]
    Unreadable,
    /// The issuer took too long.
    #[error("the issuer took too long to answer")]
    TimedOut,
}

/// Redeems `ticket` for the holder of `key`, who would like to go by `name`.
///
/// # Errors
/// [`JoinError`]; where the answer was lost, asking again with the same key gives the same grant.
pub async fn redeem(ticket: &Ticket, key: &Keypair, name: &str) -> Result<Credential, JoinError> {
    let limits = Limits::default();
    if (limits.wall)() >= ticket.expires {
        return Err(JoinError::Expired);
    }
    let (mut addresses, mut failed) = (Vec::new(), None);
    for seed in &ticket.seeds {
        match seeds::resolve(seed).await {
            Ok(found) => addresses.extend(found),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed.filter(|_| addresses.is_empty()) {
        return Err(error.into());
    }
    let transport = Transport::from(Quic::dialler(key, &limits)?);
    redeem_over(&transport, &addresses, ticket, key, name, &limits).await
}

/// [`redeem`] over a transport there is, at addresses that are known.
///
/// # Errors
/// As [`redeem`].
pub async fn redeem_over(
    transport: &Transport,
    addresses: &[SocketAddr],
    ticket: &Ticket,
    key: &Keypair,
    name: &str,
    limits: &Limits,
) -> Result<Credential, JoinError> {
    let wanted = |node| if node == ticket.issuer { Ok(()) } else { Err(DialError::WrongNode) };
    let connecting = race(transport, addresses, limits.stagger, wanted);
    let connection = match tokio::time::timeout(limits.dial, connecting).await {
        Ok(connection) => connection?,
        Err(_) => return Err(DialError::TimedOut.into()),
    };
    let asked = ask(&connection, ticket, key, name, limits);
    let answer = match tokio::time::timeout(limits.dial + limits.greeting, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(JoinError::TimedOut),
    };
    connection.close(Close::Done);
    answer
}

async fn ask(
    connection: &Connection,
    ticket: &Ticket,
    key: &Keypair,
    name: &str,
    limits: &Limits,
) -> Result<Credential, JoinError> {
    let ours =
        Hello { protocol: proto::PROTOCOL, credential: None, epoch: Epoch(0), neighbour: false };
    // Kept to the end: the control stream lasts as long as the link.
    let greeted = greet::as_dialler(connection, ours).await.map_err(ended)?;
    let now = (limits.wall)();
    greet::judge(&greeted.hello, ticket.network, &connection.peer(), now)
        .map_err(JoinError::Stranger)?;
    let (mut send, mut recv) = connection.open().await.map_err(ended)?;
    let request = JoinRequest {
        ticket: ticket.id,
        proof: proof(&ticket.secret, &connection.binding()),
        name: name.to_owned(),
    };
    let mut out = BytesMut::new();
    Open::new(OpenKind::Join).encode(&mut out);
    out.extend_from_slice(&request.encode());
    write_all(&mut send, out.freeze()).await.map_err(broken)?;
    let answer = read_all(&mut recv, MAX_MESSAGE).await.map_err(broken)?;
    match Answer::decode(answer.freeze()).map_err(|_| JoinError::Unreadable)? {
        Answer::Refused(refusal) => Err(refusal.into()),
        Answer::Granted(credential) => {
            credential
                .check(ticket.network, &key.public_key(), now, &Ed25519)
                .map_err(JoinError::BadGrant)?;
            Ok(*credential)
        }
    }
}

fn ended(gone: crate::close::Gone) -> JoinError {
    broken(StreamError::Lost(gone))
}

fn broken(error: StreamError) -> JoinError {
    match error {
        StreamError::Lost(gone) => match gone.by_peer() {
            Some(close) => JoinError::Closed(close),
            None => JoinError::Broken(error),
        },
        StreamError::Reset(_) | StreamError::Ended => JoinError::Broken(error),
    }
}
