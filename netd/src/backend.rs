//! Registries of others that this node watches: what is learned there becomes its own service records.
//!
//! ```text
//! source (file, etcd, mdns, consul, kubernetes)   tells: all there is, then changes, or trouble
//!   └─ session     begins again when it fails, ever more seldom
//!        └─ keeper and its table                  gathers, damps, compares ── Request::Change ──▶ router
//! ```
//!
//! Every face sees what is learned, marked with `micro.backend`, and it leaves with the back end's own
//! word that it is gone. A back end that is silent takes nothing away: what it said is kept and marked
//! with `micro.stale`.

pub mod consul;
mod damp;
pub mod entry;
pub mod etcd;
pub mod file;
mod http;
mod keeper;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod mdns;
mod session;
mod source;
mod standing;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use proxy::Published;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

pub use standing::Word;
pub use table::Counts;

use self::entry::Rules;
use self::keeper::Keeper;
use self::session::Feed;
use self::source::Source;
use crate::config::backend::Backend;
use crate::drive::Asks;

/// What a source has said and nobody has taken note of yet; a source that says more waits.
const WAITING: usize = 1024;

/// The back ends of a node. They are watched until this is dropped.
#[derive(Debug, Default)]
pub struct Backends(Vec<Watched>);

/// One of them.
#[derive(Debug)]
pub struct Watched {
    /// What it is.
    pub backend: Backend,
    shown: Arc<ArcSwap<Shown>>,
    tasks: [AbortHandle; 2],
}

/// How a back end is.
#[derive(Clone, Debug)]
pub struct Shown {
    /// In a word.
    pub word: Word,
    /// Since when.
    pub since: Instant,
    /// Why it is not watched: one line.
    pub why: Option<String>,
    /// All of why, where that is more.
    pub detail: Option<String>,
    /// Its entries.
    pub counts: Counts,
}

impl Backends {
    /// Begins to watch, in tasks of the runtime this runs on. `own` is where this node listens for
    /// programs.
    #[must_use]
    pub fn start(
        backends: &[Backend],
        asks: &Asks,
        routes: &Arc<Published>,
        own: &[SocketAddr],
    ) -> Self {
        let start = |backend: &Backend| {
            let (to, heard) = mpsc::channel(WAITING);
            let shown = Arc::new(ArcSwap::from_pointee(Shown {
                word: Word::Starting,
                since: Instant::now(),
                why: None,
                detail: None,
                counts: Counts::default(),
            }));
            let keeper = Keeper {
                name: backend.name.as_str().into(),
                heard,
                asks: asks.clone(),
                routes: Arc::clone(routes),
                shown: Arc::clone(&shown),
            };
            let loopback = backend.loopback.unwrap_or_else(|| source::is_local(backend));
            let feed = Feed::new(to, Rules { loopback, own: own.to_vec() });
            let tasks = [
                tokio::spawn(keeper.run()).abort_handle(),
                tokio::spawn(session::run(Source::of(backend), feed)).abort_handle(),
            ];
            Watched { backend: backend.clone(), shown, tasks }
        };
        Self(backends.iter().map(start).collect())
    }

    /// All of them, as configured.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Watched> {
        self.0.iter()
    }
}

impl Watched {
    /// How it is now.
    #[must_use]
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}
