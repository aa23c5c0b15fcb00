//! Registrations without a TTL: kept for as long as somebody listens at their address.
//!
//! go-micro reads a TTL of 0 as "for ever", so a program that dies without a word would be offered
//! for ever. Here it is a lease that the node renews itself, each time the address takes a
//! connection. What people expose with the command line stays until they withdraw it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use proto::ServiceName;
use proxy::{Registrar, RegistrarError};
use router::Registration;

/// Registrations without a TTL on one node; more are refused.
const MAX_KEPT: usize = 4096;
/// Addresses tried at once.
const AT_ONCE: usize = 64;
/// How long an address may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// How often an address is tried, and how long a registration outlives the last time it answered.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Between two tries.
    pub probe: Duration,
    /// What the router is told each time: three tries may fail.
    pub lease: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { probe: Duration::from_secs(10), lease: Duration::from_secs(35) }
    }
}

/// Whether this node offers an instance of a service now, by the instance's id.
pub type Offered = dyn Fn(&ServiceName, &str) -> bool + Send + Sync;

/// A registrar for programs, in front of that of the router.
pub struct Alive {
    kept: Arc<Kept>,
}

struct Kept {
    router: Arc<dyn Registrar>,
    offered: Box<Offered>,
    terms: Terms,
    all: Mutex<BTreeMap<Key, Registration>>,
}

type Key = (ServiceName, String);

impl std::fmt::Debug for Alive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alive").field("kept", &self.kept.all.lock().len()).finish_non_exhaustive()
    }
}

impl Alive {
    /// In front of `router`. Tries addresses in a task of the runtime this runs on, which ends with
    /// this.
    #[must_use]
    pub fn start(router: Arc<dyn Registrar>, offered: Box<Offered>, terms: Terms) -> Self {
        let kept = Arc::new(Kept { router, offered, terms, all: Mutex::default() });
        tokio::spawn(keep(Arc::downgrade(&kept), terms.probe));
        Self { kept }
    }
}

impl Registrar for Alive {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
        let key = (registration.service.clone(), registration.instance.id.clone());
        let kept = &self.kept;
        if registration.ttl.is_some() {
            kept.all.lock().remove(&key);
            return kept.router.register(registration);
        }
        async move {
            {
                let all = kept.all.lock();
                if all.len() >= MAX_KEPT && !all.contains_key(&key) {
                    let why = format!("{MAX_KEPT} registrations without a TTL are kept already");
                    return Err(RegistrarError::Refused(why));
                }
            }
            kept.renew(&registration).await?;
            kept.all.lock().insert(key, registration);
            Ok(())
        }
        .boxed()
    }

    fn deregister(
        &self,
        service: ServiceName,
        version: Option<String>,
        instance: String,
    ) -> BoxFuture<'_, Result<(), RegistrarError>> {
        self.kept.all.lock().remove(&(service.clone(), instance.clone()));
        self.kept.router.deregister(service, version, instance)
    }
}

impl Kept {
    async fn renew(&self, registration: &Registration) -> Result<(), RegistrarError> {
        let lease = Registration { ttl: Some(self.terms.lease), ..registration.clone() };
        self.router.register(lease).await
    }

    /// Renews what answers; forgets what is not offered any more: it was withdrawn, or has not
    /// answered until its lease was over.
    async fn round(&self) {
        let all: Vec<(Key, Registration)> =
            self.all.lock().iter().map(|(key, of)| (key.clone(), of.clone())).collect();
        let each = futures_util::stream::iter(all);
        each.for_each_concurrent(AT_ONCE, |(key, registration)| async move {
            let answers = accepts(&registration.instance.address).await;
            let (service, instance) = &key;
            if !(self.offered)(service, instance) {
                tracing::info!(%service, instance, "a registration without a TTL has ended");
                self.all.lock().remove(&key);
            } else if answers
                // Deregistered meanwhile, it must not come back.
                && self.all.lock().get(&key) == Some(&registration)
                && let Err(why) = self.renew(&registration).await
            {
                tracing::warn!(%service, instance, %why, "a registration was not renewed");
            }
        })
        .await;
    }
}

async fn keep(kept: Weak<Kept>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(kept) = kept.upgrade() else { return };
        kept.round().await;
    }
}

async fn accepts(address: &str) -> bool {
    matches!(tokio::time::timeout(CONNECT, proxy::dial(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::record::{Instance, Protocol};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    const TERMS: Terms =
        Terms { probe: Duration::from_millis(20), lease: Duration::from_millis(70) };

    /// Tells what it is asked.
    struct Told(mpsc::UnboundedSender<Option<Duration>>);

    impl Registrar for Told {
        fn register(&self, new: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
            let _ = self.0.send(new.ttl);
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

    fn alive(offered: bool) -> (Alive, mpsc::UnboundedReceiver<Option<Duration>>) {
        let (sender, told) = mpsc::unbounded_channel();
        (Alive::start(Arc::new(Told(sender)), Box::new(move |_, _| offered), TERMS), told)
    }

    fn registration(address: String, ttl: Option<Duration>) -> Registration {
        let instance = Instance {
            id: "s-1".into(),
            address,
            protocol: Protocol::Grpc,
            metadata: proto::LabelSet::default(),
        };
        Registration {
            service: "s".parse().unwrap(),
            version: "1".into(),
            metadata: proto::LabelSet::default(),
            endpoints: Vec::new(),
            instance,
            ttl,
        }
    }

    #[tokio::test]
    async fn it_is_renewed_while_its_address_answers_and_no_longer() {
        let (alive, mut told) = alive(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        alive.register(registration(at, None)).await.unwrap();
        for _ in 0..4 {
            assert_eq!(told.recv().await.unwrap(), Some(TERMS.lease));
        }
        drop(listener);
        // One round may be under way.
        while told.try_recv().is_ok() {}
        let late = tokio::time::timeout(TERMS.probe * 10, async {
            told.recv().await;
            told.recv().await
        });
        assert!(late.await.is_err(), "nobody listens and it was renewed");
    }

    #[tokio::test]
    async fn what_is_deregistered_or_has_a_ttl_of_its_own_is_not_renewed() {
        let (alive, mut told) = alive(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        alive.register(registration(at.clone(), None)).await.unwrap();
        alive.deregister("s".parse().unwrap(), None, "s-1".into()).await.unwrap();
        alive.register(registration(at.clone(), None)).await.unwrap();
        let minute = Some(Duration::from_secs(60));
        alive.register(registration(at, minute)).await.unwrap();
        assert!(alive.kept.all.lock().is_empty());
        while told.recv().await.unwrap() != minute {}
    }

    #[tokio::test]
    async fn what_the_node_does_not_offer_any_more_is_forgotten() {
        let (alive, _told) = alive(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        alive.register(registration(at, None)).await.unwrap();
        let forgotten = async {
            while !alive.kept.all.lock().is_empty() {
                tokio::time::sleep(TERMS.probe).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), forgotten).await.unwrap();
    }
}
