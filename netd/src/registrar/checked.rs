//! Instances that are looked at: those that are not well stay known and leave the candidates of every
//! node, with the reason, until they are well again.
//!
//! ```text
//! well ── `fall` failures in a row ──▶ not well        registered again, with why
//!      ◀── `rise` successes in a row ──                registered again, without
//! ```
//!
//! Each instance is looked at by a task of its own, so that none waits for another. What a node says of
//! it changes only when the verdict does, so a program that flaps costs the network no more than one
//! record in `fall` or `rise` intervals.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::{LabelSet, ServiceName};
use proxy::health::UNHEALTHY;
use proxy::{Registrar, RegistrarError};
use router::Registration;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use super::alive::Offered;
use super::probe::Check;

/// Instances of one node that are looked at; more are refused.
const MAX_CHECKED: usize = 1024;
/// Characters of a reason.
const MAX_WHY: usize = 200;
/// Looks at an instance that is not offered, until it is certain that it is withdrawn and not only
/// just registered.
const UNOFFERED: u32 = 3;

/// The instances of one node that are looked at.
pub struct Checks(Arc<Inner>);

struct Inner {
    registrar: Arc<dyn Registrar>,
    offered: Box<Offered>,
    all: Mutex<BTreeMap<Key, Checked>>,
}

type Key = (ServiceName, String);

struct Checked {
    check: Check,
    registration: Registration,
    state: State,
    task: AbortHandle,
}

/// What is thought of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// Why it is out.
    out: Option<String>,
    /// Looks in a row that said otherwise.
    against: u32,
}

impl State {
    /// Takes note of a look; `true` if the verdict has changed.
    fn saw(&mut self, look: Result<(), String>, check: &Check) -> bool {
        match (&self.out, look) {
            (None, Ok(())) | (Some(_), Err(_)) => self.against = 0,
            (None, Err(why)) => {
                self.against += 1;
                if self.against >= check.fall {
                    let why = why.chars().filter(|letter| !letter.is_control()).take(MAX_WHY);
                    *self = Self { out: Some(why.collect()), against: 0 };
                    return true;
                }
            }
            (Some(_), Ok(())) => {
                self.against += 1;
                if self.against >= check.rise {
                    *self = Self::default();
                    return true;
                }
            }
        }
        false
    }

    /// The registration as others are to see it.
    fn said_of(&self, registration: &Registration) -> Registration {
        let mut said = registration.clone();
        if let Some(why) = &self.out {
            let mark: LabelSet = [(UNHEALTHY, why.as_str())].into_iter().collect();
            said.instance.metadata = said.instance.metadata.overlaid(&mark);
        }
        said
    }
}

impl std::fmt::Debug for Checks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").field("checked", &self.0.all.lock().len()).finish_non_exhaustive()
    }
}

impl Checks {
    /// None yet. `offered` says whether the node offers an instance now.
    #[must_use]
    pub fn new(registrar: Arc<dyn Registrar>, offered: Box<Offered>) -> Self {
        Self(Arc::new(Inner { registrar, offered, all: Mutex::default() }))
    }

    /// Registers an instance, looked at by `check` from now on; without one, not any more. Registered
    /// again with the same check, what is thought of it stays.
    ///
    /// # Errors
    /// [`RegistrarError`], also where too many are looked at.
    pub async fn register(
        &self,
        registration: Registration,
        check: Option<Check>,
    ) -> Result<(), RegistrarError> {
        let key = (registration.service.clone(), registration.instance.id.clone());
        let Some(check) = check else {
            self.forget(&key);
            return self.0.registrar.register(registration).await;
        };
        let state = {
            let all = self.0.all.lock();
            let same = all.get(&key).filter(|known| known.check == check);
            if same.is_none() && all.len() >= MAX_CHECKED && !all.contains_key(&key) {
                let why = format!("{MAX_CHECKED} instances are checked on this node already");
                return Err(RegistrarError::Refused(why));
            }
            same.map(|known| known.state.clone())
        };
        let known = state.is_some();
        self.0.registrar.register(state.unwrap_or_default().said_of(&registration)).await?;
        let mut all = self.0.all.lock();
        if let Some(checked) = all.get_mut(&key).filter(|_| known) {
            checked.registration = registration;
            return Ok(());
        }
        let task = tokio::spawn(keep_looking(Arc::downgrade(&self.0), key.clone(), check.clone()));
        let checked =
            Checked { check, registration, state: State::default(), task: task.abort_handle() };
        if let Some(before) = all.insert(key, checked) {
            before.task.abort();
        }
        Ok(())
    }

    /// Looks at an instance no more.
    pub fn forget(&self, key: &(ServiceName, String)) {
        if let Some(checked) = self.0.all.lock().remove(key) {
            checked.task.abort();
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for checked in self.0.all.lock().values() {
            checked.task.abort();
        }
    }
}

/// Looks at one instance until it is forgotten or not offered any more.
async fn keep_looking(inner: std::sync::Weak<Inner>, key: Key, check: Check) {
    let mut ticks = tokio::time::interval(check.every);
    // One that took long is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unoffered = 0;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        unoffered = if (inner.offered)(&key.0, &key.1) { 0 } else { unoffered + 1 };
        if unoffered >= UNOFFERED {
            tracing::debug!(service = %key.0, instance = key.1, "looked at no more");
            inner.all.lock().remove(&key);
            return;
        }
        let address = match inner.all.lock().get(&key) {
            Some(checked) => checked.registration.instance.address.clone(),
            None => return,
        };
        let look = check.look(key.0.as_str(), &address).await;
        let Some(changed) = inner.saw(&key, look, &check) else { continue };
        let (service, instance) = &key;
        match &changed.instance.metadata.get(UNHEALTHY) {
            Some(why) => tracing::warn!(%service, instance, why, "an instance is not well"),
            None => tracing::info!(%service, instance, "an instance is well again"),
        }
        if let Err(why) = inner.registrar.register(changed).await {
            tracing::warn!(%service, instance, %why, "what is thought of it is not said");
        }
    }
}

impl Inner {
    /// Takes note of a look; what is to be registered if that changed anything.
    fn saw(&self, key: &Key, look: Result<(), String>, check: &Check) -> Option<Registration> {
        let mut all = self.all.lock();
        let checked = all.get_mut(key)?;
        // What is not offered any more must not come back by this.
        let offered = (self.offered)(&key.0, &key.1);
        let changed = checked.state.saw(look, check) && offered;
        changed.then(|| checked.state.said_of(&checked.registration))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;
    use proto::record::{Instance, Protocol};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::registrar::probe::Kind;

    const EVERY: Duration = Duration::from_millis(10);

    fn check() -> Check {
        Check { kind: Kind::Tcp, every: EVERY, timeout: EVERY, fall: 3, rise: 2 }
    }

    /// Tells the reason it is registered with.
    struct Told(mpsc::UnboundedSender<Option<String>>);

    impl Registrar for Told {
        fn register(&self, new: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
            let _ = self.0.send(new.instance.metadata.get(UNHEALTHY).map(str::to_owned));
            std::future::ready(Ok(())).boxed()
        }

        fn deregister(
            &self,
            _: ServiceName,
            _: Option<String>,
            _: String,
        ) -> BoxFuture<'_, Result<(), RegistrarError>> {
            std::future::ready(Ok(())).boxed()
        }
    }

    fn registration(address: String) -> Registration {
        Registration {
            service: "s".parse().unwrap(),
            version: "1".into(),
            metadata: LabelSet::default(),
            endpoints: Vec::new(),
            instance: Instance {
                id: "s-1".into(),
                address,
                protocol: Protocol::Tcp,
                metadata: LabelSet::default(),
            },
            ttl: None,
        }
    }

    #[tokio::test]
    async fn an_instance_goes_out_with_its_reason_and_comes_back() {
        let (sender, mut told) = mpsc::unbounded_channel();
        let checks = Checks::new(Arc::new(Told(sender)), Box::new(|_, _| true));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        checks.register(registration(at.to_string()), Some(check())).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), None);
        drop(listener);
        assert_eq!(told.recv().await.unwrap().as_deref(), Some("tcp: connection refused"));
        // Registered again, as a lease is renewed, it stays out.
        checks.register(registration(at.to_string()), Some(check())).await.unwrap();
        assert_eq!(told.recv().await.unwrap().as_deref(), Some("tcp: connection refused"));
        let _listener = TcpListener::bind(at).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_the_node_does_not_offer_any_more_is_not_looked_at() {
        let (sender, _told) = mpsc::unbounded_channel();
        let checks = Checks::new(Arc::new(Told(sender)), Box::new(|_, _| false));
        checks.register(registration("127.0.0.1:1".into()), Some(check())).await.unwrap();
        let forgotten = async {
            while !checks.0.all.lock().is_empty() {
                tokio::time::sleep(EVERY).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), forgotten).await.unwrap();
    }

    proptest! {
        /// The verdict follows a run of equal looks, and nothing shorter.
        #[test]
        fn only_a_run_of_looks_changes_the_verdict(
            looks in prop::collection::vec(any::<bool>(), 0..200),
            fall in 1u32..5,
            rise in 1u32..5,
        ) {
            let check = Check { fall, rise, ..check() };
            let mut state = State::default();
            let mut run = (true, 0);
            for well in looks {
                run = if run.0 == well { (well, run.1 + 1) } else { (well, 1) };
                let before = state.out.is_none();
                let changed = state.saw(if well { Ok(()) } else { Err("no".into()) }, &check);
                let enough = if well { rise } else { fall };
                prop_assert_eq!(changed, before != well && run.1 >= enough);
                prop_assert_eq!(state.out.is_none(), before != changed);
            }
        }
    }
}
