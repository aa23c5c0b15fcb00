//! Transparent mode: the kernel leads connections to addresses of names to the node, on every port,
//! for all programs of the machine, some users, or another network namespace (a container).
//!
//! ```text
//! program ── connect web.micro.internal:80 ── nat output ─▶ listener of the node ── proxy::intercept
//! ```
//!
//! Only addresses of names are touched. The rules are one table of nftables in each namespace, put
//! there whole and taken away whole: by `off`, or when the node stops. After a crash they lead to a
//! port on which nothing listens, so that connections are refused as without them.

pub mod rules;
mod sockets;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use proxy::{Led, Proxy};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use self::sockets::Sockets;
use crate::error::{Exit, Problem};

/// The network namespace of this process.
const OWN: &str = "/proc/self/ns/net";
/// Namespaces at a time: each holds four sockets.
const MAX_NAMESPACES: usize = 64;

/// What shall be led here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Of programs of these users only; empty: of all.
    pub users: Vec<u32>,
    /// The file of the network namespace; `None`: that of the node.
    pub namespace: Option<PathBuf>,
}

/// One namespace in which connections are led here.
#[derive(Clone, Debug)]
pub struct Active {
    /// What was asked for.
    pub scope: Scope,
    /// Whether addresses of IPv6 are led here too.
    pub v6: bool,
    /// What was changed, for people.
    pub changes: Vec<String>,
}

/// All that is led here. What serves it ends with this.
pub struct Intercept {
    proxy: Proxy,
    data: Handle,
    /// By the number of the namespace.
    active: Mutex<BTreeMap<u64, Held>>,
}

#[derive(Debug)]
struct Held {
    active: Active,
    namespace: File,
    ports: rules::Ports,
    /// Dropped, they end.
    _serving: JoinSet<()>,
}

impl std::fmt::Debug for Intercept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intercept").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Intercept {
    /// Nothing is led here yet.
    #[must_use]
    pub fn new(proxy: Proxy, data: Handle) -> Self {
        Self { proxy, data, active: Mutex::default() }
    }

    /// What is led here now.
    pub async fn list(&self) -> Vec<Active> {
        self.active.lock().await.values().map(|held| held.active.clone()).collect()
    }

    /// What [`Intercept::on`] would change.
    #[must_use]
    pub fn plan(scope: &Scope) -> Vec<String> {
        rules::lines(scope, &rules::Ports { v4: "PORT".to_owned(), v6: Some("PORT".to_owned()) })
    }

    /// Leads connections here from now on; where some are already, as `scope` says it now.
    ///
    /// # Errors
    /// M6012 without the privilege, M6008 when the kernel takes no rules, M6002 when the namespace
    /// cannot be entered, M1305 when there are too many.
    pub async fn on(&self, scope: Scope) -> Result<Active, Problem> {
        let mut active = self.active.lock().await;
        let (namespace, number) = open(scope.namespace.as_deref())?;
        let own = open(None)?.1 == number;
        if active.len() >= MAX_NAMESPACES && !active.contains_key(&number) {
            let what = format!("{MAX_NAMESPACES} network namespaces are led here already");
            return Err(Problem::new("M1305", Exit::Failed, what)
                .why("each holds sockets of the node")
                .attempt("micro network intercept off", "ends all of them"));
        }
        // Where connections are led here already, they go on to the same sockets.
        let (fresh, ports) = match active.get(&number) {
            Some(held) => (None, held.ports.clone()),
            None => {
                let sockets = within(clone(&namespace)?, own, move || Sockets::bind(!own)).await?;
                let ports = sockets.ports()?;
                (Some(self.serve(sockets, !own)), ports)
            }
        };
        let asked = scope.clone();
        let ports = within(clone(&namespace)?, own, move || rules::put(&asked, ports)).await?;
        let changes = rules::lines(&scope, &ports);
        let now = Active { changes, v6: ports.v6.is_some(), scope };
        if let Some(serving) = fresh {
            let held = Held { active: now.clone(), namespace, ports, _serving: serving };
            active.insert(number, held);
        } else if let Some(held) = active.get_mut(&number) {
            held.active = now.clone();
        }
        self.tell(&active);
        Ok(now)
    }

    /// Leads nothing here any more: in one namespace, or anywhere. Gives what was led here.
    ///
    /// # Errors
    /// M6008 when the kernel does not take the rules away; what could not be ended stays listed.
    pub async fn off(&self, namespace: Option<&Path>) -> Result<Vec<Active>, Problem> {
        let mut active = self.active.lock().await;
        let only = namespace.map(|path| open(Some(path))).transpose()?.map(|(_, number)| number);
        let mut ended = Vec::new();
        for number in active.keys().copied().collect::<Vec<_>>() {
            if only.is_some_and(|only| only != number) {
                continue;
            }
            let Some(held) = active.get(&number) else { continue };
            let entered = clone(&held.namespace)?;
            let own = open(None)?.1 == number;
            within(entered, own, rules::remove).await?;
            ended.extend(active.remove(&number).map(|held| held.active));
        }
        self.tell(&active);
        Ok(ended)
    }

    /// Has names answered as connections are led.
    fn tell(&self, active: &BTreeMap<u64, Held>) {
        let here = open(None).ok().and_then(|(_, number)| active.get(&number));
        let all = here.filter(|held| held.active.scope.users.is_empty());
        self.proxy.led(Led { all: all.is_some(), v6: all.is_some_and(|held| held.active.v6) });
    }

    fn serve(&self, sockets: Sockets, anybody: bool) -> JoinSet<()> {
        let mut serving = JoinSet::new();
        for listener in [Some(sockets.v4), sockets.v6].into_iter().flatten() {
            let proxy = self.proxy.clone();
            // The listener belongs to the event loop it is made in.
            let serve = async move {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => proxy.intercept(listener, anybody).await,
                    Err(error) => tracing::error!(%error, "led connections cannot be served"),
                }
            };
            serving.spawn_on(serve, &self.data);
        }
        if let Some((tcp, udp)) = sockets.dns {
            let proxy = self.proxy.clone();
            let serve = async move {
                let tcp = tokio::net::TcpListener::from_std(tcp);
                match (tcp, tokio::net::UdpSocket::from_std(udp)) {
                    (Ok(tcp), Ok(udp)) => proxy.dns_also(udp, tcp).await,
                    (Err(error), _) | (_, Err(error)) => {
                        tracing::error!(%error, "names cannot be served in a namespace");
                    }
                }
            };
            serving.spawn_on(serve, &self.data);
        }
        serving
    }
}

/// A namespace and its number.
fn open(path: Option<&Path>) -> Result<(File, u64), Problem> {
    let path = path.unwrap_or(Path::new(OWN));
    let failed = |error: std::io::Error| {
        Problem::machine(format!("the network namespace {} cannot be used", path.display()), &error)
            .attempt("ip netns list", "those with a name, under /run/netns")
            .attempt("micro network intercept on --pid PID", "that of a running program")
    };
    let file = File::open(path).map_err(failed)?;
    let number = file.metadata().map_err(failed)?.ino();
    Ok((file, number))
}

fn clone(file: &File) -> Result<File, Problem> {
    file.try_clone().map_err(|error| Problem::machine("a namespace cannot be held", &error))
}

/// Runs `work` in a network namespace, which this thread itself does not enter, with the right to change
/// it.
async fn within<T: Send + 'static>(
    namespace: File,
    own: bool,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let work = move || {
        if !own {
            sockets::enter(&namespace)?;
        }
        sockets::may()?;
        work()
    };
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("namespace".to_owned())
        .spawn(move || drop(done.send(work())))
        .map_err(|error| Problem::machine("no thread can be started", &error))?;
    answer.await.unwrap_or_else(|_| Err(Problem::bug("a thread ended without an answer")))
}
