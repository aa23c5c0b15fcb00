//! Joining with a ticket: one that somebody gave us, or one that another node of the same user
//! gives to whoever may open its socket.

use std::time::Duration;

use proto::join::Refusal;
use proto::{Credential, Ticket};
use tunnel::join::JoinError;

use super::{Member, Origin, known, load_key, now, words};
use crate::api;
use crate::client::{self, Client};
use crate::config::Settings;
use crate::error::{Exit, Problem};
use crate::member::Peers;
use crate::state::State;

/// Seconds a ticket for a node of the same user is valid: it is redeemed at once.
const OWN_TICKET_TTL: u64 = 60;
/// How long that node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Redeems `ticket` and becomes a member. The key is kept first and the grant is asked for with
/// it: where the grant then cannot be written down, the same ticket gives the same key a grant
/// again.
pub(super) async fn join(
    settings: &Settings,
    state: State,
    name: String,
    ticket: Ticket,
) -> Result<Member, Problem> {
    let key = load_key(&state.path("node.key"))?;
    let credential = tunnel::join::redeem(&ticket, &key, &name).await;
    let credential: Credential = credential.map_err(|why| refused(&ticket, &why))?;
    state.write(known::CREDENTIAL, &credential.encode())?;
    let peers = Peers { seeds: ticket.seeds.clone(), ..Peers::default() };
    if let Err(error) = peers.save(&state) {
        tracing::warn!(%error, "the seeds of the ticket could not be kept");
    }
    super::load(settings, state, name, Origin::Joined)
}

/// Asks a running node of the same user for a ticket; `None` where there is none, or it is of
/// another network than the one asked for.
///
/// # Errors
/// M3011 where all of them are members that cannot invite: founding another network beside theirs
/// is not what a person means who says nothing.
pub(super) async fn ask_own_node(settings: &Settings) -> Result<Option<Ticket>, Problem> {
    let mut not_issuers = None;
    for socket in client::sockets(&settings.paths.runtime) {
        let node = Client::at(&socket).with_timeout(PATIENCE);
        let Ok(status) = node.get::<api::Status>("/v1/status").await else { continue };
        let name = &status.network.name;
        if settings.network.as_ref().is_some_and(|wanted| wanted != name) {
            continue;
        }
        let ask = api::InviteRequest {
            ttl_s: Some(OWN_TICKET_TTL),
            uses: Some(1),
            role: None,
            // Whoever may open the socket may expose anything through it already.
            services: vec!["*".to_owned()],
            namespaces: vec!["*".to_owned()],
        };
        match node.post::<api::Invited>("/v1/invite", &ask).await {
            Ok(invited) => return super::read_ticket(&invited.ticket).map(Some),
            // Not an issuer: another of this user's nodes may be.
            Err(problem) if problem.code == "M3011" => not_issuers = Some(problem),
            Err(problem) => return Err(problem),
        }
    }
    match not_issuers {
        Some(problem) => {
            Err(problem.attempt("micro network --name b --join TICKET", "with it here"))
        }
        None => Ok(None),
    }
}

/// The ticket's time was over before it was tried.
pub(super) fn expired_ticket(ticket: &Ticket) -> Problem {
    let ago = words(now().seconds_after(ticket.expires));
    Problem::new("M3007", Exit::NotAllowed, "this ticket has expired")
        .why(format!("it was for network {} and ended {ago} ago", ticket.network_name))
        .attempt("micro network invite", "on any issuer, makes a new one")
}

fn refused(ticket: &Ticket, why: &JoinError) -> Problem {
    let network = &ticket.network_name;
    let problem = |code, exit, what: String| {
        Problem::new(code, exit, what)
            .why(why.to_string())
            .attempt("micro network invite", "on the node that made the ticket, makes a new one")
    };
    match why {
        JoinError::Expired | JoinError::Refused(Refusal::Expired) => expired_ticket(ticket),
        JoinError::Refused(Refusal::Spent) => problem(
            "M3006",
            Exit::NotAllowed,
            format!("this ticket for network {network} has been used"),
        ),
        JoinError::Refused(Refusal::Unavailable) => Problem::new(
            "M2001",
            Exit::Unreachable,
            format!("the issuer of network {network} cannot let anybody in now"),
        )
        .why(why.to_string())
        .attempt("micro network --join TICKET", "again later: the ticket is not spent"),
        JoinError::Refused(_) => problem(
            "M3003",
            Exit::NotAllowed,
            format!("network {network} does not accept this ticket"),
        ),
        JoinError::Stranger(_) | JoinError::BadGrant(_) => problem(
            "M3008",
            Exit::NotAllowed,
            format!("who answers at {} is not of network {network}", ticket.seeds.join(", ")),
        ),
        JoinError::Bind(_)
        | JoinError::Seeds(_)
        | JoinError::Unreachable(_)
        | JoinError::Broken(_)
        | JoinError::Closed(_)
        | JoinError::Unreadable
        | JoinError::TimedOut => Problem::new(
            "M2001",
            Exit::Unreachable,
            format!("cannot reach network {network} at {}", ticket.seeds.join(", ")),
        )
        .why(why.to_string())
        .attempt("micro network status", "on the node that made the ticket: is it running?")
        .attempt("micro network --join TICKET", "again later: the ticket is not spent"),
    }
}
