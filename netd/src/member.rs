//! How this process comes to be a member of a network: it was one before, it redeems a ticket, it
//! is let in by another node of the same user, or it founds a network.

mod found;
mod known;
mod name;
mod redeem;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use proto::ticket::BadTicket;
use proto::{Credential, Epoch, NetworkId, NodeId, Ticket, UnixTime};
use tunnel::identity::{Ed25519, Keypair};
use tunnel::issuer::Desk;

use crate::config::Settings;
use crate::error::{Exit, Problem};
use crate::state::State;

pub use found::sign_own;
pub use known::Peers;

/// A member, with everything that makes it one.
#[derive(Debug)]
pub struct Member {
    /// Where its files are; held by this process.
    pub state: Arc<State>,
    /// Its name: the one asked for, or the default with a number behind it.
    pub name: String,
    /// Its key.
    pub key: Arc<Keypair>,
    /// Its network.
    pub network: NetworkId,
    /// The name of its network.
    pub network_name: String,
    /// Its grant; a newer one is stored here.
    pub credential: Arc<ArcSwap<Credential>>,
    /// Makes tickets and grants, where it may.
    pub desk: Option<Arc<Desk>>,
    /// For stateless reset: kept, so that others notice at once that it has restarted.
    pub reset_key: [u8; 64],
    /// The life that begins now.
    pub epoch: Epoch,
    /// Whom it knew, and the seeds of its ticket.
    pub peers: Peers,
    /// How it became a member.
    pub origin: Origin,
}

/// How a node became a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It made the network, now.
    Founded,
    /// It joined, now.
    Joined,
    /// It was one before.
    Returned,
}

impl Member {
    /// Its id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.key.node()
    }
}

/// Becomes a member, in the way that applies: see the module.
///
/// # Errors
/// A [`Problem`] that says which way was taken and what stood in it.
pub async fn establish(settings: &Settings) -> Result<Member, Problem> {
    let ticket = settings.ticket.as_ref().map(|text| read_ticket(text.expose())).transpose()?;
    let name = name::choose(settings, ticket.as_ref())?;
    let wanted = Wanted { ticket: ticket.as_ref(), network: settings.network.as_deref() };
    if let Some(known) = known::find(&settings.paths.state, &name, &wanted)? {
        let ours = known.credential.grant().network;
        let state = State::open(&known.dir)?;
        // An expired grant is renewed by the issuer itself, or bought anew with a ticket.
        let valid = known.credential.expires() > now();
        if valid || state.read(found::APPOINTMENT)?.is_some() {
            return load(settings, state, name, Origin::Returned);
        }
        return match ticket {
            Some(ticket) if ticket.network == ours => {
                redeem::join(settings, state, name, ticket).await
            }
            Some(_) | None => Err(expired(&known.credential)),
        };
    }
    if let Some(ticket) = ticket {
        let dir =
            known::free_dir(&settings.paths.state, &ticket.network_name, &name, ticket.network);
        return redeem::join(settings, State::open(&dir)?, name, ticket).await;
    }
    if let Some(ticket) = redeem::ask_own_node(settings).await? {
        let dir =
            known::free_dir(&settings.paths.state, &ticket.network_name, &name, ticket.network);
        return redeem::join(settings, State::open(&dir)?, name, ticket).await;
    }
    let network = settings.network.clone().unwrap_or_else(|| settings.default_network());
    let state = State::open(&settings.paths.state.join(&network).join(&name))?;
    found::found(settings, &state, &network)?;
    load(settings, state, name, Origin::Founded)
}

/// Which membership is wanted, where there are several.
#[derive(Debug)]
struct Wanted<'a> {
    ticket: Option<&'a Ticket>,
    network: Option<&'a str>,
}

/// A member from what its state directory holds.
fn load(
    settings: &Settings,
    state: State,
    name: String,
    origin: Origin,
) -> Result<Member, Problem> {
    let key = Arc::new(load_key(&state.path("node.key"))?);
    let reset_key = found::reset_key(&state);
    let bytes = state.read(known::CREDENTIAL)?.unwrap_or_default();
    let mut credential = Credential::decode(bytes.into())
        .map_err(|why| damaged(&state.path(known::CREDENTIAL), &why))?;
    if let Some(appointment) = found::appointment(&state)? {
        // An issuer that was down past its own term signs itself a new one.
        if credential.expires().seconds_after(now()) < settings.grant_ttl.as_secs() / 3 {
            credential = sign_own(&appointment, &key, credential.grant(), settings.grant_ttl);
            known::keep_credential(&state, &credential);
        }
    }
    let network = credential.grant().network;
    let desk = found::desk(&credential.grant().network_name, &state, &key)?;
    let holder = proto::sign::Sign::public_key(&*key);
    if let Err(why) = credential.check(network, &holder, now(), &Ed25519) {
        return Err(damaged(&state.path(known::CREDENTIAL), &why));
    }
    Ok(Member {
        name,
        network,
        network_name: credential.grant().network_name.clone(),
        reset_key,
        desk,
        epoch: state.next_epoch(now_ms()),
        peers: Peers::load(&state),
        origin,
        credential: Arc::new(ArcSwap::from_pointee(credential)),
        key,
        state: Arc::new(state),
    })
}

fn load_key(path: &Path) -> Result<Keypair, Problem> {
    use tunnel::identity::KeyError;
    Keypair::load_or_create(path).map_err(|error| match &error {
        KeyError::Loose { path, .. } => {
            Problem::new("M3010", Exit::Failed, "the key file is not private")
                .why(error.to_string())
                .attempt(format!("chmod 600 {}", path.display()), "if nobody else has read it")
                .attempt(format!("rm {}", path.display()), "if somebody may have: then join again")
        }
        KeyError::NotAKey { .. } => {
            Problem::new("M3010", Exit::Failed, "the key file is damaged").why(error.to_string())
        }
        KeyError::File { .. } => {
            Problem::new("M6003", Exit::Failed, "the state directory cannot be used")
                .why(error.to_string())
                .attempt("micro config path", "shows where it is; it must be writable")
        }
    })
}

fn read_ticket(text: &str) -> Result<Ticket, Problem> {
    let ticket: Ticket = text.parse().map_err(|why: BadTicket| {
        let (code, what) = match why {
            BadTicket::NotATicket | BadTicket::TooLong => ("M3001", "this is not a ticket"),
            BadTicket::Damaged => ("M3002", "the ticket is damaged"),
            BadTicket::Newer => ("M2003", "the ticket was made by a newer release"),
        };
        Problem::new(code, Exit::NotAllowed, what)
            .why(why.to_string())
            .attempt("micro network invite", "on any member, prints a new one: copy the whole line")
    })?;
    if ticket.expires <= now() {
        return Err(redeem::expired_ticket(&ticket));
    }
    Ok(ticket)
}

fn expired(credential: &Credential) -> Problem {
    let ago = now().seconds_after(credential.expires());
    Problem::new("M3012", Exit::NotAllowed, "this node's membership has expired")
        .why(format!(
            "its grant for network {} ended {} ago, and was not renewed in time",
            credential.grant().network_name,
            words(ago)
        ))
        .attempt(
            "micro network --join TICKET",
            "with a new ticket: micro network invite on a member",
        )
}

fn damaged(path: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new("M6003", Exit::Failed, format!("{} cannot be used", path.display()))
        .why(why.to_string())
        .attempt("micro network --join TICKET", "with a new ticket, after moving it away")
}

/// Seconds in the largest unit that fits: `3h`, `12m`, `4s`.
fn words(seconds: u64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{}d", s / 86_400),
        s if s >= 3_600 => format!("{}h", s / 3_600),
        s if s >= 60 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// The time of day, seconds.
#[must_use]
pub fn now() -> UnixTime {
    tunnel::config::wall()
}

/// The time of day, milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
