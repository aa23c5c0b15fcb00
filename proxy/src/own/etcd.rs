//! The part of etcd 3 that go-micro uses as a registry, and what `etcdctl` needs: one more face of the
//! table that the registry shows.
//!
//! ```text
//! Put          → value → registration → registrar → routes ─┐
//! Range, Watch → state: follows the routes → table ←────────┘
//! ```
//!
//! A key is an instance that can be reached, whichever way it came and on whichever node it is; its
//! value is what go-micro would have written. Keys of programs on this node may be written and
//! deleted, by the same rule as registrations; those of other nodes are read alone, and nothing else is
//! kept here: this is a registry, not a store.
//!
//! A revision counts what this node saw happen. It belongs to the node: another one counts
//! differently, so clients that change nodes read anew, as go-micro does when a watch ends.

mod keys;
mod leases;
mod range;
mod refusals;
mod state;
mod table;
mod value;
mod watch;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use parking_lot::{Mutex, MutexGuard};
use prost::Message as _;
use proto::micro::etcd as pb;
use router::Registration;
use tokio::time::Instant;

use self::leases::Refused;
use self::state::State;
use super::Config;
use super::codec::Codec;
use super::dispatch::{decode, why};
use super::failure::Failure;
use super::messages::Messages;
use super::registration;
use super::reply::Reply;
use super::scope::Scope;

pub(crate) const NAME: &str = "etcdserverpb";

/// What is said to clients that ask which etcd this is: whose calls are understood, and who answers.
const VERSION: &str = concat!("3.4.0+micro.", env!("CARGO_PKG_VERSION"));
/// There is no election, and one term.
const TERM: u64 = 1;
/// Bytes of one answer, at most: clients of etcd take any number, a node does not make it.
pub(super) const MAX_ANSWER: usize = 16 << 20;
/// Revisions that may be given out before it has to be noted again how far they went.
pub const RESERVE: i64 = 100_000;

/// What a key of go-micro, `/micro/registry/SERVICE/ID`, and its value describe: an instance, without a
/// time to live. Also for who reads another etcd.
///
/// # Errors
/// What is wrong with them, for people.
pub fn read(key: &[u8], value: &[u8]) -> Result<Registration, String> {
    let parts = keys::parts(key).ok_or("the key is not of that form")?;
    let registration = read_value(value)?;
    if !keys::names(parts, registration.service.as_str(), &registration.instance.id) {
        return Err("the value is of another service or node than the key".to_owned());
    }
    Ok(registration)
}

/// What a value of go-micro alone describes: a service with one node, as JSON.
///
/// # Errors
/// What is wrong with it, for people.
pub fn read_value(value: &[u8]) -> Result<Registration, String> {
    let service = value::read(value).map_err(|why| format!("the value is not: {why}"))?;
    if service.nodes.len() != 1 {
        return Err("the value has not exactly one node".to_owned());
    }
    let all = registration::read(&Scope::default_one(), service).map_err(|why| why.to_string())?;
    let mut registration = all.into_iter().next().ok_or("the value has no node")?;
    if let Some(protocol) = value::silent_protocol(&registration.instance.metadata) {
        registration.instance.protocol = protocol;
    }
    Ok(registration)
}

/// Keeps how far revisions have gone, so that they never go back on a node.
pub trait Revisions: Send + Sync {
    /// Above every revision that an earlier life of the node gave out, and with [`RESERVE`] of them
    /// noted. Asked once.
    fn first(&self) -> i64;
    /// Notes that revisions up to this one may be given out. Does not wait.
    fn reserve(&self, up_to: i64);
}

/// Begins at 1 each time: for nodes that end with their test.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromOne;

impl Revisions for FromOne {
    fn first(&self) -> i64 {
        1
    }

    fn reserve(&self, _: i64) {}
}

/// What the face is made of beside the rest.
pub struct Parts {
    /// Keeps how far revisions have gone.
    pub revisions: Arc<dyn Revisions>,
    /// Where clients reach this node: `host:port` each. Without a scheme, for some clients send what
    /// they are told as `:authority`, where no scheme may be (RFC 9113 §8.3.1).
    pub urls: Vec<String>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { revisions: Arc::new(FromOne), urls: Vec::new() }
    }
}

/// The service, all its structs.
pub(super) struct Etcd(Arc<Face>);

struct Face {
    config: Arc<Config>,
    parts: Parts,
    state: Mutex<State>,
    reserved: Mutex<i64>,
    /// The newest revision, for watches: not all that happens here is a change of routes.
    moved: tokio::sync::watch::Sender<i64>,
}

impl Etcd {
    pub(super) fn new(config: Arc<Config>, parts: Parts) -> Self {
        let first = parts.revisions.first();
        Self(Arc::new(Face {
            state: Mutex::new(State::new(config.me, first)),
            reserved: Mutex::new(first + RESERVE),
            moved: tokio::sync::watch::Sender::new(first),
            config,
            parts,
        }))
    }

    /// Answers a method with one request.
    pub(super) fn call(&self, method: &str, message: Bytes) -> Reply {
        let face = Arc::clone(&self.0);
        match method {
            "Range" => Reply::now(decode(NAME, message).and_then(|ask| {
                let state = face.now();
                let answer = range::range(&state.table, ask)?;
                Ok(pb::RangeResponse { header: Some(face.header(&state)), ..answer })
            })),
            "Put" => Reply::later(async move { write::put(&face, decode(NAME, message)?).await }),
            "DeleteRange" => {
                Reply::later(async move { write::delete(&face, decode(NAME, message)?).await })
            }
            "LeaseGrant" => Reply::now(decode(NAME, message).and_then(|ask| face.grant(&ask))),
            "LeaseRevoke" => {
                Reply::later(async move { write::revoke(&face, decode(NAME, message)?).await })
            }
            "LeaseTimeToLive" => Reply::now(decode(NAME, message).map(|ask| face.left(&ask))),
            "LeaseLeases" => {
                let state = face.now();
                let leases = state.leases.ids().map(|id| pb::LeaseStatus { id }).collect();
                let header = Some(face.header(&state));
                Reply::now(Ok(pb::LeaseLeasesResponse { header, leases }))
            }
            // Who may use a listener is decided by the owner of the program, before its first byte: a
            // name and a password say no more, and are not looked at.
            "Authenticate" => {
                let token = data_encoding::HEXLOWER.encode(&tunnel::identity::random::<16>());
                let header = Some(face.header(&face.now()));
                Reply::now(Ok(pb::AuthenticateResponse { header, token }))
            }
            "MemberList" => Reply::now(Ok(face.members())),
            "Alarm" => {
                let header = Some(face.header(&face.now()));
                Reply::now(Ok(pb::AlarmResponse { header }))
            }
            "Status" => Reply::now(Ok(face.status())),
            other => {
                let why = format!("unknown method {other}");
                let why = Failure::plain(tonic::Code::Unimplemented, why);
                Reply::now::<pb::StatusResponse>(Err(why))
            }
        }
    }

    /// Answers a method with a stream of requests.
    pub(super) fn stream(
        &self,
        method: &str,
        messages: Messages,
        codec: Codec,
    ) -> BoxStream<'static, Result<Bytes, Failure>> {
        match method {
            "LeaseKeepAlive" => keep_alive(&self.0, messages, codec),
            _ => watch::serve(&self.0, messages, codec),
        }
    }
}

/// Renews a lease a message, for as long as messages come.
fn keep_alive(
    face: &Arc<Face>,
    messages: Messages,
    codec: Codec,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    let first = Some((Arc::clone(face), messages, codec));
    Box::pin(stream::unfold(first, |open| async move {
        let (face, mut messages, codec) = open?;
        let message = match messages.next().await {
            Ok(Some(gathered)) => gathered.message,
            Ok(None) => return None,
            Err(broken) => return Some((Err(why(NAME, broken)), None)),
        };
        let bad = |why: String| refusals::refused(tonic::Code::InvalidArgument, why);
        let ask = codec.read(message).map_err(bad).and_then(|message| decode(NAME, message));
        let ask: pb::LeaseKeepAliveRequest = match ask {
            Ok(ask) => ask,
            Err(failure) => return Some((Err(failure), None)),
        };
        let ttl = write::renew(&face, ask.id).await;
        let header = Some(face.header(&face.now()));
        let answer = pb::LeaseKeepAliveResponse { header, id: ask.id, ttl };
        Some((Ok(answer.encode_to_vec().into()), Some((face, messages, codec))))
    }))
}

impl Face {
    /// What is kept, up to date. Not to be held for longer than it takes to read it.
    fn now(&self) -> MutexGuard<'_, State> {
        let routes = self.config.routes.signed();
        let mut state = self.state.lock();
        let run_out = state.leases.expire(Instant::now());
        state.forget(run_out);
        state.follow(&routes);
        self.note(&state);
        state
    }

    /// Tells watches how far it went, and notes it before it goes too far.
    fn note(&self, state: &State) {
        let revision = state.table.revision();
        self.moved.send_if_modified(|known| {
            let moved = *known != revision;
            *known = revision;
            moved
        });
        let mut reserved = self.reserved.lock();
        if revision > *reserved - RESERVE / 2 {
            *reserved = revision + RESERVE;
            self.parts.revisions.reserve(*reserved);
        }
    }

    /// After something was written: the header to answer with.
    fn moved(&self, state: &mut State) -> pb::ResponseHeader {
        self.note(state);
        self.header(state)
    }

    fn header(&self, state: &State) -> pb::ResponseHeader {
        let id = self.id();
        let revision = state.table.revision();
        pb::ResponseHeader { cluster_id: id, member_id: id, revision, raft_term: TERM }
    }

    /// A node is a cluster of one: no other has its revisions.
    fn id(&self) -> u64 {
        let id = self.config.me.as_bytes();
        u64::from_be_bytes(*id.first_chunk().expect("an id has 32 bytes"))
    }

    fn grant(&self, ask: &pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Failure> {
        let mut state = self.now();
        let id = match ask.id {
            0 => loop {
                // Positive, as etcd's are.
                let id = i64::from_be_bytes(tunnel::identity::random()) & i64::MAX;
                if id != 0 && state.leases.get(id).is_none() {
                    break id;
                }
            },
            id => id,
        };
        let granted = state.leases.grant(id, ask.ttl, Instant::now());
        let ttl = granted.map_err(|refused| match refused {
            Refused::Exists => refusals::lease_exists(),
            Refused::TooLong => refusals::lease_too_long(),
            Refused::TooMany => {
                let why = "too many leases on this node; let some run out";
                refusals::refused(tonic::Code::ResourceExhausted, why)
            }
        })?;
        let header = Some(self.header(&state));
        Ok(pb::LeaseGrantResponse { header, id, ttl, error: String::new() })
    }

    fn left(&self, ask: &pb::LeaseTimeToLiveRequest) -> pb::LeaseTimeToLiveResponse {
        let state = self.now();
        let header = Some(self.header(&state));
        let id = ask.id;
        let Some(lease) = state.leases.get(id) else {
            return pb::LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() };
        };
        // Whole seconds, rounded as etcd does.
        let ttl = i64::try_from(lease.left(Instant::now()).as_secs()).unwrap_or(i64::MAX);
        let keys = lease.keys.iter().filter(|_| ask.keys).cloned().collect();
        pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: lease.granted, keys }
    }

    fn members(&self) -> pb::MemberListResponse {
        let member = pb::Member {
            id: self.id(),
            name: self.config.node_name.clone(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: self.parts.urls.clone(),
            is_learner: false,
        };
        pb::MemberListResponse { header: Some(self.header(&self.now())), members: vec![member] }
    }

    fn status(&self) -> pb::StatusResponse {
        let state = self.now();
        let index = state.table.revision().unsigned_abs();
        let size = i64::try_from(state.table.bytes()).unwrap_or(i64::MAX);
        pb::StatusResponse {
            header: Some(self.header(&state)),
            version: VERSION.to_owned(),
            db_size: size,
            leader: self.id(),
            raft_index: index,
            raft_term: TERM,
            raft_applied_index: index,
            errors: Vec::new(),
            db_size_in_use: size,
            is_learner: false,
        }
    }
}
