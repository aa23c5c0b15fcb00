//! The newest answers of the router, for everybody who reads them.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use proto::NodeId;
use router::Routes;
use tokio::sync::watch;

/// The one place where the router's answers are published: a pointer swap for the writer, a pointer
/// load for readers, and a number that changes for those who wait.
pub struct Published {
    routes: ArcSwap<Routes>,
    generation: watch::Sender<u64>,
}

impl Published {
    /// Before the router has said anything: node `me`, no services.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self::with(Arc::new(Routes::empty(me)))
    }

    /// Beginning with `routes`.
    #[must_use]
    pub fn with(routes: Arc<Routes>) -> Self {
        let generation = watch::Sender::new(routes.generation());
        Self { routes: ArcSwap::new(routes), generation }
    }

    /// The newest answers, for a moment: hold it for a lookup, not across an `await`.
    pub fn load(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// The newest answers, to keep.
    #[must_use]
    pub fn load_full(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// Puts new answers in place of the old and wakes who waits for them.
    pub fn publish(&self, routes: Arc<Routes>) {
        let generation = routes.generation();
        self.routes.store(routes);
        self.generation.send_replace(generation);
    }

    /// Yields whenever new answers are published; several may be seen as one.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
