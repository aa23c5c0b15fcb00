//! What a node is told: one optional file, the environment over it, flags over both.
//!
//! Two types: [`file::File`] is what was written, [`Settings`] is what it means: complete, checked,
//! immutable. Between them [`layers`] keeps where each value came from, so that a wrong one is
//! reported where it stands and `micro config show --origin` can tell.

pub mod backend;
pub mod bridge;
pub mod duration;
pub mod env;
pub mod file;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod layers;
mod login;
pub mod paths;
pub mod secret;
pub mod size;
pub mod stream;
pub mod values;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proto::LabelSet;

pub use paths::Paths;

/// Where links are accepted unless told otherwise: every address, UDP 8085 (go-micro's port).
pub const DEFAULT_LISTEN: &str = "[::]:8085";
/// Where programs call unless told otherwise.
pub const DEFAULT_PROXY: &str = "127.0.0.1:8081";
/// Where names are asked for unless told otherwise.
pub const DEFAULT_DNS: &str = "127.0.0.1:8053";
/// Where clients of NATS connect unless told otherwise.
pub const DEFAULT_NATS: &str = "127.0.0.1:4222";
/// Where health and metrics are read.
pub const DEFAULT_OBSERVE: &str = "127.0.0.1:8086";
/// Calls in flight on one node unless told otherwise.
pub const DEFAULT_MAX_INFLIGHT: u32 = 1024;
/// How long open calls may take to finish when the node stops, unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(20);
/// How long a grant is valid unless told otherwise; it is renewed at a third of that.
pub const DEFAULT_GRANT_TTL: Duration = Duration::from_secs(72 * 3600);

/// Everything a node is told, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name: letters, digits, `.`, `-`, `_`; at most 63 bytes.
    pub name: String,
    /// Whether the name was asked for; a default name that is taken gets `-2`.
    pub name_asked: bool,
    /// Where it is.
    pub region: String,
    /// Its labels: those of all nodes of its network, and its own over them.
    pub labels: LabelSet,
    /// The name of its network; `None`: that of the ticket, of its membership, or `local-USER`.
    pub network: Option<String>,
    /// UDP addresses for links.
    pub listen: Vec<Address>,
    /// What others are told to dial: `host:port`; empty: what is found out.
    pub advertise: Vec<String>,
    /// Seeds: `host[:port]` or an SRV name.
    pub join: Vec<String>,
    /// A ticket to redeem when there is no membership yet.
    pub ticket: Option<secret::Secret>,
    /// Where programs call.
    pub proxy: Address,
    /// Whose programs may call on the loopback, beside those of the node's own user and of root.
    pub allow_users: Users,
    /// Calls in flight at once; more are refused with M1305.
    pub max_inflight: u32,
    /// Where programs look for etcd, beside [`Settings::proxy`].
    pub etcd: Option<SocketAddr>,
    /// Where records of programs are kept.
    pub store: StoreBackend,
    /// Where names are asked for.
    pub dns: Address,
    /// Registries of others that are watched.
    pub backends: Vec<backend::Backend>,
    /// Where clients of NATS connect.
    pub nats: Address,
    /// What lets them in, any of these and of [`Settings::nats_keys`]; with neither, everybody.
    pub nats_tokens: Vec<secret::Secret>,
    /// Users of NATS that are let in, by their keys.
    pub nats_keys: Vec<proto::PublicKey>,
    /// Bridges to servers of NATS.
    pub bridges: Vec<bridge::Bridge>,
    /// Topics whose messages are kept.
    pub streams: Vec<stream::Stream>,
    /// Where health and metrics are read.
    pub observe: Address,
    /// What is logged: a level, or directives (`info,router=debug`).
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How long open calls may take to finish when the node stops.
    pub grace: Duration,
    /// How long the grants that this node signs are valid.
    pub grant_ttl: Duration,
    /// The admin socket, when asked for; else in [`Paths::runtime`] under the node's name.
    pub socket: Option<PathBuf>,
    /// Where files are.
    pub paths: Paths,
}

impl Settings {
    /// Keys and tables of this node in `network`.
    #[must_use]
    pub fn state_dir(&self, network: &str) -> PathBuf {
        self.paths.state.join(network).join(&self.name)
    }

    /// The admin socket.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.paths.socket(&self.name))
    }

    /// The name of a network that is made here: `local-USER`.
    #[must_use]
    pub fn default_network(&self) -> String {
        format!("local-{}", values::user_name())
    }
}

/// An address to listen on, and whether somebody insists on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub at: SocketAddr,
    /// Asked for: when taken, that is an error (M6001). Else the next free port will do.
    pub asked: bool,
}

/// Users of this machine whose programs are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// All of them.
    Everybody,
    /// These, by number, beside the node's own user and root.
    These(Vec<u32>),
}

/// Where the records of programs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreBackend {
    /// In a file of the state directory.
    Disk,
    /// In memory, until the node stops.
    Memory,
}

impl fmt::Display for StoreBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        })
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}
