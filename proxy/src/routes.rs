//! The newest answers of the router, for everybody who reads them; with the routes that local
//! programs made laid over them.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use proto::NodeId;
use router::Routes;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::statics::{Refused, Statics};

/// The one place where the router's answers are published: a pointer swap for the writer, a pointer
/// load for readers, and a number that changes for those who wait.
pub struct Published {
    routes: ArcSwap<Routes>,
    generation: watch::Sender<u64>,
    /// Held while one of the two changes: what is published is always made of both.
    layers: Mutex<Layers>,
    /// Wakes who takes routes away when their time is over.
    expiring: watch::Sender<()>,
}

struct Layers {
    /// What the router answers: from signed records alone.
    signed: Arc<Routes>,
    /// What local programs made.
    statics: Statics,
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
        let layers = Layers { signed: Arc::clone(&routes), statics: Statics::default() };
        let (layers, expiring) = (Mutex::new(layers), watch::Sender::new(()));
        Self { routes: ArcSwap::new(routes), generation, layers, expiring }
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

    /// The newest answers without the routes of local programs: what all nodes know.
    #[must_use]
    pub fn signed(&self) -> Arc<Routes> {
        Arc::clone(&self.layers.lock().signed)
    }

    /// Puts new answers in place of the old and wakes who waits for them.
    pub fn publish(&self, routes: Arc<Routes>) {
        let mut layers = self.layers.lock();
        layers.signed = routes;
        self.lay(&layers);
    }

    /// Yields whenever new answers are published; several may be seen as one.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Changes the routes of local programs, and publishes what comes of it before it returns.
    ///
    /// # Errors
    /// Those of `change`; nothing is published then.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Statics, &Routes) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let mut layers = self.layers.lock();
        let Layers { signed, statics } = &mut *layers;
        let changed = change(statics, signed)?;
        self.lay(&layers);
        self.expiring.send_replace(());
        Ok(changed)
    }

    /// Takes routes away whose time is over, for as long as there are such. To be run as a task when
    /// one is made; ends at once where such a task runs.
    pub(crate) async fn expire(self: Arc<Self>) {
        if !self.layers.lock().statics.begin_expiring() {
            return;
        }
        let mut changed = self.expiring.subscribe();
        loop {
            let due = {
                let mut layers = self.layers.lock();
                if layers.statics.expire(Instant::now()) {
                    self.lay(&layers);
                }
                match layers.statics.due() {
                    Some(due) => due,
                    None => return layers.statics.end_expiring(),
                }
            };
            // Which of the two it is makes no difference: both are looked at above.
            let _ = tokio::time::timeout_at(due, changed.changed()).await;
        }
    }

    fn lay(&self, layers: &Layers) {
        let routes = layers.statics.over(&layers.signed);
        let generation = routes.generation();
        self.routes.store(routes);
        self.generation.send_replace(generation);
    }
}
