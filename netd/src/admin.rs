//! The admin API: HTTP with JSON on a unix socket that only this user and root may talk to.
//!
//! The file is mode 0600 in a directory of mode 0700, and the uid of every peer is checked besides.
//! Bodies, connections and waits are bounded. The documents are those of [`crate::api`].

mod answer;
mod backends;
mod change;
mod detect;
mod face;
mod forward;
mod intercept;
mod labels;
mod read;
mod rules;
mod streams;
mod subscribe;
mod topics;
mod wait;
mod why;

pub use change::make_ticket;
pub use face::Face;
pub use forward::MAX_HELD;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::error::{Exit, Problem};
use crate::httpd::{self, Slots};
use crate::node::Node;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// Time for a request body.
const BODY_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of a request body.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a request body with rules, which are longer in JSON than as they travel.
const MAX_RULES: usize = 1024 * 1024;

/// The admin socket, bound. Its file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds the socket at `path`. One that a dead node left behind is replaced.
    ///
    /// # Errors
    /// M6004 when a living node listens there, M6002 when the file cannot be made.
    pub async fn bind(path: &Path) -> Result<Self, Problem> {
        let failed = |error: io::Error| {
            Problem::machine(format!("the admin socket {} cannot be made", path.display()), &error)
        };
        if let Some(dir) = path.parent() {
            private_dir(dir).map_err(failed)?;
        }
        if UnixStream::connect(path).await.is_ok() {
            let what = format!("a node listens on {} already", path.display());
            return Err(Problem::new("M6004", Exit::Failed, what)
                .attempt("micro status", "use the node that is already running")
                .attempt("micro network --name b", "run a second one"));
        }
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `stop`.
    pub async fn serve(self, node: Arc<Node>, stop: CancellationToken) {
        let service = routes(node);
        let slots = Slots::new(CONNECTIONS);
        loop {
            let slot = slots.take().await;
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    httpd::accept_failed("admin", &error).await;
                    continue;
                }
            };
            let ours = stream.peer_cred().is_ok_and(|peer| may_ask(peer.uid()));
            let service = if ours { service.clone() } else { answer::not_yours() };
            tokio::spawn(httpd::serve(stream, service, slot));
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that is already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether the admin socket answers to this user.
fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// A directory that only this user may enter. One in `/tmp` may have been made by somebody else,
/// who would then choose what we talk to: it must be ours and closed.
fn private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    if !dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let found = std::fs::symlink_metadata(dir)?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if owner != rustix::process::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(io::Error::other(format!(
            "{} is not ours alone (uid {owner}, mode {mode:04o})",
            dir.display()
        )));
    }
    Ok(())
}

fn routes(node: Arc<Node>) -> Router {
    Router::new()
        .route("/v1/status", get(read::status))
        .route("/v1/nodes", get(read::nodes))
        .route("/v1/graph", get(read::graph))
        .route("/v1/routes", get(read::routes))
        .route("/v1/services", get(read::services))
        .route("/v1/services/{*name}", get(read::service))
        .route("/v1/invite", post(change::invite))
        .route("/v1/join", post(change::join))
        .route("/v1/expose", post(change::expose))
        .route("/v1/unexpose", post(change::unexpose))
        .route("/v1/forward", post(forward::forward))
        .route("/v1/intercept", get(intercept::list).post(intercept::change))
        .route("/v1/down", post(change::down))
        .route(
            "/v1/rules",
            get(rules::list).post(rules::apply).layer(DefaultBodyLimit::max(MAX_RULES)),
        )
        .route("/v1/rules/{*name}", get(rules::one))
        .route("/v1/rules-history/{*name}", get(rules::history))
        .route("/v1/labels", get(labels::list).post(labels::change))
        .route("/v1/backends", get(backends::backends))
        .route("/v1/streams", get(streams::list))
        .route("/v1/streams/{name}", get(streams::consumers))
        .route("/v1/topics", get(topics::list))
        .route("/v1/publish", post(topics::publish))
        .route("/v1/subscribe", post(subscribe::subscribe))
        .route("/v1/request", post(subscribe::request))
        .route("/v1/why", post(why::why))
        .route("/v1/ping", get(wait::ping))
        .route("/v1/wait", get(wait::wait))
        .route("/v1/ready", get(wait::ready))
        .fallback(answer::no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(node)
}
