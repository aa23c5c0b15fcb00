//! A service with little patience for callers who give up: it counts what is begun and what is reset on each of its
//! connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use h2::server::SendResponse;
use http::Response;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// A gRPC service on the `h2` crate, whose calls wait until they are let go.
#[derive(Debug)]
pub struct Patience {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Counts>>>>,
    go: Arc<Notify>,
    _runtime: Runtime,
}

/// What happened on one connection.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that began.
    pub begun: AtomicUsize,
    /// Calls that were reset.
    pub resets: AtomicUsize,
    /// Whether it ended with an error: it had too much.
    pub broken: AtomicUsize,
}

impl Patience {
    /// Starts one.
    ///
    /// # Panics
    /// If there is no port.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Runtime::new().expect("threads are left");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let (connections, go) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Notify>::default());
        let (all, goes) = (Arc::clone(&connections), Arc::clone(&go));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let counts = Arc::<Counts>::default();
                lock(&all).push(Arc::clone(&counts));
                tokio::spawn(serve(socket, counts, Arc::clone(&goes)));
            }
        });
        Self { address, connections, go, _runtime: runtime }
    }

    /// Lets every call that waits now be answered.
    pub fn go(&self) {
        self.go.notify_waiters();
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.connections).len()
    }

    /// The sum of a count over all connections, and the largest of one.
    #[must_use]
    pub fn count(&self, which: fn(&Counts) -> &AtomicUsize) -> (usize, usize) {
        let counts = lock(&self.connections);
        let all = counts.iter().map(|counts| which(counts).load(Ordering::Relaxed));
        all.fold((0, 0), |(sum, most), one| (sum + one, most.max(one)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(socket: tokio::net::TcpStream, counts: Arc<Counts>, go: Arc<Notify>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1_000);
    let Ok(mut connection) = builder.handshake::<_, bytes::Bytes>(socket).await else { return };
    while let Some(accepted) = connection.accept().await {
        let Ok((request, respond)) = accepted else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return;
        };
        counts.begun.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(call(request, respond, Arc::clone(&counts), Arc::clone(&go)));
    }
}

async fn call(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    counts: Arc<Counts>,
    go: Arc<Notify>,
) {
    let response = || {
        let head = Response::builder().header("content-type", "application/grpc");
        head.header("grpc-status", "0").body(()).expect("a head")
    };
    if !request.uri().path().ends_with("/Wait") {
        let _ = respond.send_response(response(), true);
        return;
    }
    let let_go = go.notified();
    tokio::select! {
        _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
            counts.resets.fetch_add(1, Ordering::Relaxed);
        }
        () = let_go => drop(respond.send_response(response(), true)),
    }
}
